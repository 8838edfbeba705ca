"""How near constructions are to the best coreset there is."""

from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.optimum import measures as optimum
from attention_coresets.analysis.topics.optimum.tolerances import BANDS

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "optimum_below",
        "No construction errs by less than the proven optimum of its own coreset model at equal size: smallest ratio",
        "tilted, unweighted, free",
        optimum.EXPERIMENT,
        BANDS["optimum_below"],
        optimum.never_below(),
    ),
    Claim(
        "optimum_walk",
        "On tiny caches the tilted walk errs by at most 4 times the best tilted subset of its size, median of a family",
        "tilted",
        optimum.EXPERIMENT,
        BANDS["optimum_walk"],
        optimum.error_over_optimum("walk_tilted"),
    ),
)
