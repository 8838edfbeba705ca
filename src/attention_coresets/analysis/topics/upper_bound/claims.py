"""What theory says of the constant of every row."""

from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.upper_bound import measures
from attention_coresets.analysis.topics.upper_bound.tolerances import BANDS

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "upper_bound_largest",
        "No row of any experiment, synthetic or of a real head, has m·err/(√d e^(ρσ)) above 1.3: walk_tilted, largest",
        "tilted",
        measures.EXPERIMENT,
        BANDS["upper_bound_largest"],
        measures.largest_of_all,
    ),
)
