"""What caches sought to be hard say of the upper bound's constant."""

from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.hardness import measures as hardness
from attention_coresets.analysis.topics.hardness.tolerances import BANDS

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "hardness_ceiling",
        "No cache is found whose best tilted subset has m·err/(√d e^(ρσ)) above that of a simplex of values as ρσ → 0,"
        " ½√(d/(d−1)): the largest over that",
        "tilted",
        hardness.EXPERIMENT,
        BANDS["hardness_ceiling"],
        hardness.largest(),
    ),
    Claim(
        "hardness_found",
        "Caches far harder than signed clusters are found: the best tilted subset, all looked at, has m·err/(√d e^ρ)"
        " ≥ 0.38",
        "tilted",
        hardness.EXPERIMENT,
        BANDS["hardness_found"],
        hardness.found(16, 4, 1.0),
    ),
)
