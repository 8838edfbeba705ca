"""What a GPU's times are expected to be where none was measured: from counted launches, waits and bytes.

Launches and synchronisations were counted by running each loop on tensors that only say that they are on a GPU, every
operation that would be a kernel as one launch; tests/test_launches.py and tests/test_triton.py count them again. Two
costs then decide: issuing a launch from Python, and waiting for one result. Both are typical of PyTorch's eager mode on
a recent machine, and neither was measured here. Where Triton walks, a program a head does one step after another: what
it reads and how often its threads wait for each other decide.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from attention_coresets.analysis.parts.markdown import number
from attention_coresets.coresets.walks.walk import BLOCK
from benchmarks.gpu.walks import WITHIN_BATCH, WITHIN_ONE
from benchmarks.records import Target
from benchmarks.tables import Table, seconds

LAUNCH, WAIT = 8e-6, 20e-6  # seconds
FLOPS, SINGLE = 30e12, 50e12  # a second, of dense products in float64 and in float32
BYTES, PROGRAM_BYTES = 2e12, 1e11  # a second, of the device's memory, and of what one program reads through a cache
STEP, PAIR = 8e-6, 3e-6  # seconds for which the threads of a program wait, in a step of a walk and for a pair
COMPACT = 0.8  # of the columns are alive when they are moved


@dataclass(frozen=True)
class Count:
    """One task: launches and synchronisations in all, flops and bytes beside them, and seconds of Triton's programs."""

    task: str
    launches: float
    waits: float
    flops: float = 0.0
    bytes: float = 0.0
    target: Target | None = None
    rate: float = FLOPS
    programs: float = 0.0

    @property
    def seconds(self) -> float:
        """The host issues launches while the device works: the slower of the two, and every wait."""
        work = self.flops / self.rate + self.bytes / BYTES + self.programs
        return max(self.launches * LAUNCH, work) + self.waits * WAIT


class Work(NamedTuple):
    """What a loop costs: launches, and synchronisations and transfers."""

    launches: float
    waits: float


# what a step costs more, or the whole: the names are those of tests/test_launches.py
COUNTED = {
    "walk, a token": Work(47.6, 0.0),
    "kernel_halving, a pair": Work(4.0, 0.0),
    "ascent, a step": Work(68.0, 0.0),
    "tilt, in all": Work(489, 11),
    "kernel certificate, in all": Work(1610, 49),
    "taylor certificate, in all": Work(355, 6),
}


def steps(task: str, of: str, count: int = 1, **rest: Any) -> Count:
    """A task of so many steps of one loop."""
    work = COUNTED[of]
    return Count(task, count * work.launches, count * work.waits, **rest)


def walk(task: str, heads: int, n: int) -> Count:
    """`heads` walks of n tokens by torch's loop.

    A step reads 2 columns of the inverse, each with the 48 downdates that are pending on average, over the half of the
    tokens that are alive on average: 48 numbers a token.
    """
    flops = heads * 8 / 3 * n**3  # inverse and downdates, as in walk_signs
    return steps(task, "walk, a token", n, flops=flops, bytes=heads * n * n * 48 * 8)


def triton_launches(n: int) -> Work:
    """A walk of n tokens by Triton, of any number of heads: 37 once, 2 a block, 10 where columns are moved."""
    blocks = moved = 0
    columns = n
    for left in range(n, 0, -BLOCK):
        blocks += 1
        if left < COMPACT * columns:
            columns, moved = left, moved + 1
    return Work(37 + 2 * blocks + 10 * moved, 4)


def triton_walk(task: str, heads: int, n: int, target: Target, before: Work, passes: int) -> Count:
    """`heads` walks of n tokens by Triton, after work that passes over the Gram matrices so often.

    A step reads one column of the inverse, 48 pending rows, and x, row sums and the like 16 times, over 0.55 n columns:
    dead ones are moved out late. Each of n / 96 downdates reads and writes 0.4 n^2 numbers. All moves of columns read
    and write 8 n^2.
    """
    own = triton_launches(n)
    column = (1 + 48 + 16) * 0.55 * n * 8
    programs = n * (STEP + column / min(PROGRAM_BYTES, BYTES / heads))
    numbers = (n / BLOCK * 2 * 0.4 + 8 + passes) * n * n * heads
    launches, waits = own.launches + before.launches, own.waits + before.waits
    return Count(task, launches, waits, heads * 8 / 3 * n**3, 8 * numbers, target, programs=programs)


def triton_halving(task: str, heads: int, n: int) -> Count:
    """A pair reads two rows and the moves, over half of the tokens on average; 5 launches in all."""
    programs = n / 2 * (PAIR + 3 * n / 2 * 8 / min(PROGRAM_BYTES, BYTES / heads))
    return Count(task, 5, 0, programs=programs)


COUNTS = (
    triton_walk("96 × 4096 through make_coreset", 96, 4096, WITHIN_BATCH, COUNTED["tilt, in all"], 12),
    triton_walk("96 × 4096 walked at once", 96, 4096, WITHIN_BATCH, Work(0, 0), 0),
    triton_walk("a walk of 16384", 1, 16384, WITHIN_ONE, Work(0, 0), 0),
    triton_halving("96 kernel halvings of 4096", 96, 4096),
    walk("96 × 4096 walked at once, without Triton", 96, 4096),
    walk("a walk of 16384, without Triton", 1, 16384),
    steps("96 kernel halvings of 4096, without Triton", "kernel_halving, a pair", 2048),
    # 4 products with keys and values a step, and some ten passes over the logits
    steps(
        *("60 climbing steps, n = 8192, d = 64, 256 climbs, 16 heads", "ascent, a step", 60),
        flops=60 * 4 * 16 * 256 * (8192 + 512) * 2 * 64,
        bytes=60 * 10 * 16 * 256 * (8192 + 512) * 4,
        rate=SINGLE,
    ),
    steps("certificate kernel, one head, n = 256, d = 8", "kernel certificate, in all"),
    steps("certificate taylor, one head, n = 256, d = 8", "taylor certificate, in all"),
)


def words() -> str:
    """How the times come about, in one sentence."""
    return (
        f"Predicted from counts, at {seconds(LAUNCH)} to issue a launch from Python and {seconds(WAIT)} to wait for a "
        f"result, at {BYTES / 1e12:g} TB/s of the memory, {FLOPS / 1e12:g} Tflop/s in float64, and in one of Triton's "
        f"programs {PROGRAM_BYTES / 1e9:g} GB/s and waits of {seconds(STEP)} a step, {seconds(PAIR)} a pair. No GPU "
        "has confirmed any of these:"
    )


def table() -> Table:
    """Task, launches, synchronisations, predicted time, target."""
    head = ["Task", "Launches", "Synchronisations and transfers", "Predicted", "Target, s"]
    return head, [
        [one.task, number(float(one.launches)), number(float(one.waits)), seconds(one.seconds), str(one.target or "–")]
        for one in COUNTS
    ]
