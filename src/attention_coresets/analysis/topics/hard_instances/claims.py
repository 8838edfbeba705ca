"""What theory says of the hard instances, where the bound is to be met, and of the controls."""

from attention_coresets.analysis.parts import exponents
from attention_coresets.analysis.parts.block import BENIGN, LOWER, UPPER
from attention_coresets.analysis.parts.measured import rows_of
from attention_coresets.analysis.parts.verdict import Check, Claim
from attention_coresets.analysis.topics.hard_instances import antipodal as pair
from attention_coresets.analysis.topics.hard_instances import signed_clusters as hard
from attention_coresets.analysis.topics.hard_instances.tolerances import BANDS

CONTROLS = "lower_bound_controls"


def _control(name: str, statement: str, arm: str, cache: str, symbol: str, band: str, says: str) -> Claim:
    return Claim(
        id=name,
        statement=f"{statement}: {arm}",
        models="tilted" if arm == "walk_tilted" else "unweighted",
        experiment=CONTROLS,
        expected=BANDS[band],
        measure=exponents.law("controls", symbol, arm, cache),
        block=BENIGN,
        says=says,
        refutes="nothing: a bound, not a prediction",
        rows=rows_of(CONTROLS, arm=[arm], cache=[cache]),
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "floor_factor",
        "Signed clusters, m = n/2: at every d, number of clusters and ρ the best construction errs by at most 3 ×"
        " A√(d/2), a weak floor for equal cluster weights (the best is picked on these rows)",
        "tilted, unweighted, free",
        hard.ORTHONORMAL,
        BANDS["floor_factor"],
        hard.best_over_floor(),
        LOWER,
        "the error is at least A√(d/2), and some constant times that is possible; 3 is ours",
        "an instance where no construction is within 3, or a factor that grows with d or ρ",
        hard.at_half,
    ),
    Claim(
        "antipodal_rate",
        "Antipodal pair: the unweighted size grows as e^(2ρ): walk_unweighted, exponent of ρ",
        "unweighted",
        pair.ANTIPODAL,
        BANDS["antipodal_rate"],
        pair.antipodal_rate("walk_unweighted"),
        LOWER,
        "our proposition: an unweighted subset needs e^(2ρ)(1−ε)/(1+ε) tokens; about as many are enough",
        "an exponent below 1.8, or an exponent of 1, which the tilted model has",
        rows_of(pair.ANTIPODAL, arm=["walk_unweighted"]),
    ),
    Claim(
        "antipodal_rate_tilted",
        "Antipodal pair: the tilted size grows as e^ρ at most: walk_tilted, exponent of ρ",
        "tilted",
        pair.ANTIPODAL,
        BANDS["antipodal_rate_tilted"],
        pair.antipodal_rate("walk_tilted"),
        UPPER,
        "at most 1, where unweighted subsets have 2",
        "an exponent that stays above 1.1 as ρ grows",
        rows_of(pair.ANTIPODAL, arm=["walk_tilted"]),
    ),
    _control(
        "equal_keys_decay",
        "Equal keys: the error falls as m^−decay",
        "walk_tilted",
        "equal_keys",
        "decay",
        "decay_balanced",
        "falls at least as 1/m",
    ),
    _control(
        "equal_keys_decay_uniform",
        "Equal keys: the error falls as m^−decay",
        "uniform",
        "equal_keys",
        "decay",
        "decay_uniform",
        "nothing on random draws; their own error falls as 1/√m",
    ),
    _control(
        "product_rho",
        "Product: slope of the error's logarithm in ρ",
        "walk_tilted",
        "product",
        "slope",
        "product_rho",
        "grows at most as e^ρ",
    ),
)

CHECKS: tuple[Check, ...] = (
    Check(
        "floor",
        "Signed clusters: no coreset errs by less than the largest of the bounds (i), (ii), (iv), (v) for its own"
        " weights; smallest ratio of error to bound",
        hard.ORTHONORMAL,
        BANDS["floor"],
        hard.smallest_over_bounds(),
    ),
    Check(
        "floor_equal",
        "Signed clusters, m ≤ n/2: no arm errs by less than A√(d/2), proven for equal cluster weights and expected"
        " of all; smallest ratio",
        hard.ORTHONORMAL,
        BANDS["floor_equal"],
        hard.smallest_over_floor(),
    ),
    Check(
        "antipodal_floor",
        "Antipodal pair: no unweighted subset of error ε is smaller than e^(2ρ)(1−ε)/(1+ε), corrected for the"
        " rounded number of keys at +u; smallest ratio of m to that",
        pair.ANTIPODAL,
        BANDS["antipodal_floor"],
        pair.smallest_over_antipodal_floor(),
    ),
    Check(
        "equal_keys_rho",
        "Equal keys: the error does not depend on ρ; slope of its logarithm in ρ: walk_tilted",
        CONTROLS,
        BANDS["no_rho"],
        exponents.law("controls", "slope", "walk_tilted", "equal_keys"),
    ),
)
