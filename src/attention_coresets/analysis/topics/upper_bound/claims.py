"""What theory says of the constant of every row."""

from attention_coresets.analysis.parts.block import UPPER
from attention_coresets.analysis.parts.verdict import Check, Claim
from attention_coresets.analysis.topics.upper_bound import measures
from attention_coresets.analysis.topics.upper_bound.tolerances import BANDS

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="constant_sigma",
        statement="m·err/(√d e^(ρσ)) of walk_tilted is at most 1.3 on every synthetic row of any experiment: largest",
        models="tilted",
        experiment=measures.EXPERIMENT,
        expected=BANDS["constant_sigma"],
        measure=measures.largest_of_all,
        block=UPPER,
        says="O(√log(2 + ρσ)); proven here for the mean over walks: at most 5.3 √log(2 + ρσ)",
        refutes="one row above 1.3, this constant; growth with n, d or ρ faster than that root, the theorem",
        rows=measures.synthetic_walks,
    ),
)

CHECKS: tuple[Check, ...] = (
    Check(
        "balancing_bound",
        "Every synthetic row of walk_tilted errs by at most the bound that docs/theory.md (Balancing) proves for"
        " all rows together with probability 0.99; largest ratio of error to bound",
        measures.EXPERIMENT,
        BANDS["balancing_bound"],
        measures.largest_over_proven,
    ),
)
