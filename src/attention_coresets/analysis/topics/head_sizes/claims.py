"""What is expected of the sizes that the heads of a model need.

Said before the run: the slope in log T will come out below 1, some 0.8, for a head whose T is large keeps tokens with
certainty and has nothing to balance there; that in log 1/epsilon near 1. Of measures that may tell the errors, the
variance and the spectral tail, which know the size, will tell most, then the output's change where a token is left out,
then T; and Gamma, of a part of the queries, less than T.
"""

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.measured import rows_of
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.head_sizes.measures import slopes
from attention_coresets.analysis.topics.head_sizes.plans import OURS, SIZES
from attention_coresets.analysis.topics.head_sizes.tolerances import BANDS

CLAIMS: tuple[Claim, ...] = (
    Claim(
        SIZES,
        "Real heads: the size that the walk needs for an error ε at another replay's queries, 99 %, grows as T and as"
        " 1/ε do; slopes of its logarithm",
        "tilted",
        SIZES,
        BANDS[SIZES],
        slopes,
        OWN,
        "√d·T/ε, a conjecture: both slopes 1",
        "a slope away from 1 by more than a quarter; undecided where 0 or 2 is in its interval",
        rows_of(SIZES, arm=[OURS]),
    ),
)
