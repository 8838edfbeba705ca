"""What a GPU's times are expected to be where none was measured: from counted launches, waits and bytes.

Launches and synchronisations were counted by running each loop on tensors that only say that they are on a GPU, every
operation that would be a kernel as one launch; tests/test_launches.py counts them again. Two costs then decide: issuing
a launch from Python, and waiting for one result. Both are typical of PyTorch's eager mode on a recent machine, and
neither was measured here.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from attention_coresets.analysis.parts.markdown import number
from benchmarks.gpu.walks import WITHIN_BATCH, WITHIN_ONE
from benchmarks.records import Target
from benchmarks.tables import Table, seconds

LAUNCH, WAIT = 8e-6, 20e-6  # seconds
FLOPS, SINGLE = 30e12, 50e12  # a second, of dense products in float64 and in float32
BYTES = 2e12  # a second, of the device's memory


@dataclass(frozen=True)
class Count:
    """One task: launches and synchronisations in all, flops and bytes beside them."""

    task: str
    launches: float
    waits: float
    flops: float = 0.0
    bytes: float = 0.0
    target: Target | None = None
    rate: float = FLOPS

    @property
    def seconds(self) -> float:
        """The host issues launches while the device works: the slower of the two, and every wait."""
        return max(self.launches * LAUNCH, self.flops / self.rate + self.bytes / BYTES) + self.waits * WAIT


class Work(NamedTuple):
    """What a loop costs: launches, and synchronisations and transfers."""

    launches: float
    waits: float


# what a step costs more, or the whole: the names are those of tests/test_launches.py
COUNTED = {
    "walk, a token": Work(77.8, 4.0),
    "kernel_halving, a pair": Work(32.0, 0.0),
    "ascent, a step": Work(68.0, 0.0),
    "kernel certificate, in all": Work(23281, 882),
    "taylor certificate, in all": Work(643, 59),
}


def steps(task: str, of: str, count: int = 1, **rest: Any) -> Count:
    """A task of so many steps of one loop."""
    work = COUNTED[of]
    return Count(task, count * work.launches, count * work.waits, **rest)


def walk(task: str, heads: int, n: int, walks: int, target: Target) -> Count:
    """`heads` walks of n tokens in `walks` batches.

    A step reads 1.7 columns of the inverse, each with the 48 downdates that are pending on average, over the half of
    the tokens that are alive on average: 40 numbers a token.
    """
    flops = heads * 8 / 3 * n**3  # inverse and downdates, as in walk_signs
    return steps(task, "walk, a token", n * walks, flops=flops, bytes=heads * n * n * 40 * 8, target=target)


COUNTS = (
    walk("96 × 4096 through make_coreset, 12 batches", 96, 4096, 12, WITHIN_BATCH),
    walk("96 × 4096 walked at once", 96, 4096, 1, WITHIN_BATCH),
    walk("a walk of 16384", 1, 16384, 1, WITHIN_ONE),
    steps("96 kernel halvings of 4096", "kernel_halving, a pair", 2048),
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
        "result, which no GPU has confirmed:"
    )


def table() -> Table:
    """Task, launches, synchronisations, predicted time, target."""
    head = ["Task", "Launches", "Synchronisations and transfers", "Predicted", "Target, s"]
    return head, [
        [one.task, number(float(one.launches)), number(float(one.waits)), seconds(one.seconds), str(one.target or "–")]
        for one in COUNTS
    ]
