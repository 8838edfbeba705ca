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
        "Signed clusters: the best arm is within a factor 3 of A√(d/2), the floor for equal cluster weights, at m ="
        " n/2, for every d, clusters and ρ (the arm picked on these rows)",
        "tilted, unweighted, free",
        hard.ORTHONORMAL,
        BANDS["floor_factor"],
        hard.best_over_floor(),
        LOWER,
        "the error is at least 1 × A√(d/2), and a constant × it can be had; 3 is ours",
        "an instance where no arm is within 3, or where the factor grows with d or ρ",
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
        "our proposition: an unweighted subset has at least e^(2ρ)(1−ε)/(1+ε) tokens, and about as many suffice",
        "an exponent below 1.8, or one that the tilted model has too (1)",
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
        "an exponent above 1.1 that stays so as ρ grows",
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
        "not of draws; their own error falls as 1/√m",
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
        "Signed clusters: no coreset, of any size and weights, errs by less than max(i, ii, iv, v), the bounds for"
        " its own weights; smallest error over them",
        hard.ORTHONORMAL,
        BANDS["floor"],
        hard.smallest_over_bounds(),
    ),
    Check(
        "floor_equal",
        "Signed clusters: no arm errs by less than A√(d/2), proven for equal cluster weights only, with m ≤ n/2;"
        " smallest error over it",
        hard.ORTHONORMAL,
        BANDS["floor_equal"],
        hard.smallest_over_floor(),
    ),
    Check(
        "antipodal_floor",
        "Antipodal pair: no unweighted subset is smaller than e^(2ρ)(1−ε)/(1+ε), corrected for the rounded number"
        " of keys at +u, at its error ε; smallest m over it",
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
