"""What a GPU's times are expected to be where none was measured: from counted launches, waits and bytes.

Launches and synchronisations were counted by running each loop on tensors that only say that they are on a GPU, every
operation that would be a kernel as one launch. Two costs then decide: issuing a launch from Python, and waiting for one
result. Both are typical of PyTorch's eager mode on a recent machine, and neither was measured here.
"""

from dataclasses import dataclass

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


def walk(task: str, heads: int, n: int, walks: int, target: Target) -> Count:
    """`heads` walks of n tokens in `walks` batches, 76 launches and 4 waits a token in each.

    A step reads 1.7 columns of the inverse, each with the 48 downdates that are pending on average, over the half of
    the tokens that are alive on average: 40 numbers a token.
    """
    flops = heads * 8 / 3 * n**3  # inverse and downdates, as in walk_signs
    return Count(task, 76.4 * n * walks, 4.0 * n * walks, flops, heads * n * n * 40 * 8, target)


COUNTS = (
    walk("96 × 4096 through make_coreset, 12 batches", 96, 4096, 12, WITHIN_BATCH),
    walk("96 × 4096 walked at once", 96, 4096, 1, WITHIN_BATCH),
    walk("a walk of 16384", 1, 16384, 1, WITHIN_ONE),
    Count("96 kernel halvings of 4096", 34.4 * 2048, 2),
    # 4 products with keys and values a step, and some ten passes over the logits
    Count(
        *("60 climbing steps, n = 8192, d = 64, 256 climbs, 16 heads", 70.4 * 60, 0),
        flops=60 * 4 * 16 * 256 * (8192 + 512) * 2 * 64,
        bytes=60 * 10 * 16 * 256 * (8192 + 512) * 4,
        rate=SINGLE,
    ),
    Count("certificate kernel, one head, n = 256, d = 8", 22918, 882),
    Count("certificate taylor, one head, n = 256, d = 8", 643, 59),
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
