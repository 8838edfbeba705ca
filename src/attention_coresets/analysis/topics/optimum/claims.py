"""How near constructions are to the best coreset there is."""

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.measured import rows_of
from attention_coresets.analysis.parts.verdict import Check, Claim
from attention_coresets.analysis.topics.optimum import measures as optimum
from attention_coresets.analysis.topics.optimum.tolerances import BANDS

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "optimum_walk",
        "On tiny caches the tilted walk's error is at most 4 times that of the best tilted subset of its size, in"
        " the median over a family",
        "tilted",
        optimum.EXPERIMENT,
        BANDS["optimum_walk"],
        optimum.error_over_optimum("walk_tilted"),
        OWN,
        "at most 4 times the optimum, a guess before any optimum was known",
        "a family whose median is above 4",
        rows_of(optimum.EXPERIMENT, arm=["walk_tilted"]),
    ),
)

CHECKS: tuple[Check, ...] = (
    Check(
        "optimum_below",
        "No construction errs by less than the proven optimum of its own coreset model at equal size, up to the"
        " optimum's tolerance of 1 %; smallest ratio",
        optimum.EXPERIMENT,
        BANDS["optimum_below"],
        optimum.never_below(),
    ),
)
