"""What is expected of the tilted Gram–Schmidt walk among its variants."""

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.ablation import measures as comparisons
from attention_coresets.analysis.topics.ablation.tolerances import BANDS

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "ablation",
        "The tilted Gram–Schmidt walk errs by at most 1.25 times the error of the best rule, on every family",
        "tilted, unweighted",
        "ablation",
        BANDS["ablation"],
        comparisons.against_best("walk_tilted"),
        OWN,
        "the walk is as good as any rule, up to a quarter",
        "a family on which some rule errs by less than 1/1.25 of the walk",
    ),
)
