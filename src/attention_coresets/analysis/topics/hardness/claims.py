"""What caches sought to be hard say of the upper bound's constant."""

from attention_coresets.analysis.parts.block import OWN, UPPER
from attention_coresets.analysis.parts.measured import rows_of
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.hardness import measures as hardness
from attention_coresets.analysis.topics.hardness.tolerances import BANDS

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "hardness_ceiling",
        "No search finds a cache whose best tilted subset has m·err/(√d e^(ρσ)) above ½√(d/(d−1)), the value for"
        " a simplex of values as ρσ → 0: the largest over that",
        "tilted",
        hardness.EXPERIMENT,
        BANDS["hardness_ceiling"],
        hardness.largest(),
        UPPER,
        "O(√log(2 + ρσ)) for the best subset too; the value at ρσ → 0 is that of balancing vectors",
        "the theorem: caches whose constant grows without limit with d, ρ or 1/ε, which n ≤ 20 cannot show",
        rows_of(hardness.EXPERIMENT, model=["tilted"]),
    ),
    Claim(
        "hardness_found",
        "A search finds caches far harder than signed clusters: at n = 16, d = 4, ρ = 1 the best of all tilted"
        " subsets has m·err/(√d e^ρ) ≥ 0.38",
        "tilted",
        hardness.EXPERIMENT,
        BANDS["hardness_found"],
        hardness.found(16, 4, 1.0),
        OWN,
        "0.38, where signed clusters have 0.264",
        "searches that end below it",
        rows_of(hardness.EXPERIMENT, model=["tilted"]),
    ),
)
