"""What theory says of the hard instances, where the bound is to be met, and of the controls."""

from attention_coresets.analysis.parts import exponents
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.hard_instances import antipodal as pair
from attention_coresets.analysis.topics.hard_instances import signed_clusters as hard
from attention_coresets.analysis.topics.hard_instances.tolerances import BANDS


def _control(name: str, statement: str, arm: str, cache: str, symbol: str, band: str) -> Claim:
    model = "tilted" if arm == "walk_tilted" else "unweighted"
    measure = exponents.law("controls", symbol, arm, cache)
    return Claim(name, f"{statement}: {arm}", model, "lower_bound_controls", BANDS[band], measure)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "floor",
        "Signed clusters: no coreset, of any size and weights, errs by less than max(i, ii, iv, v), the bounds for"
        " its own weights; smallest error over them",
        "tilted, unweighted, free",
        hard.ORTHONORMAL,
        BANDS["floor"],
        hard.smallest_over_bounds(),
    ),
    Claim(
        "floor_equal",
        "Signed clusters: no arm errs by less than A√(d/2), proven for equal cluster weights only, with m ≤ n/2;"
        " smallest error over it",
        "tilted, unweighted, free",
        hard.ORTHONORMAL,
        BANDS["floor_equal"],
        hard.smallest_over_floor(),
    ),
    Claim(
        "floor_factor",
        "Signed clusters: the best arm is within a factor 3 of A√(d/2) at m = n/2, for every d, clusters and ρ",
        "tilted, unweighted, free",
        hard.ORTHONORMAL,
        BANDS["floor_factor"],
        hard.best_over_floor(),
    ),
    Claim(
        "antipodal_floor",
        "Antipodal pair: no unweighted subset is smaller than e^(2ρ)(1−ε)/(1+ε), corrected for the rounded number"
        " of keys at +u, at its error ε; smallest m over it",
        "unweighted",
        pair.ANTIPODAL,
        BANDS["antipodal_floor"],
        pair.smallest_over_antipodal_floor(),
    ),
    Claim(
        "antipodal_rate",
        "Antipodal pair: the unweighted size grows as e^(2ρ): walk_unweighted, exponent of ρ",
        "unweighted",
        pair.ANTIPODAL,
        BANDS["antipodal_rate"],
        pair.antipodal_rate("walk_unweighted"),
    ),
    Claim(
        "antipodal_rate_tilted",
        "Antipodal pair: the tilted size grows as e^ρ at most: walk_tilted, exponent of ρ",
        "tilted",
        pair.ANTIPODAL,
        BANDS["antipodal_rate_tilted"],
        pair.antipodal_rate("walk_tilted"),
    ),
    _control(
        "equal_keys_decay",
        "Equal keys: the error falls as 1/m",
        "walk_tilted",
        "equal_keys",
        "decay",
        "decay_balanced",
    ),
    _control(
        "equal_keys_decay_uniform",
        "Equal keys: the error falls as 1/√m",
        "uniform",
        "equal_keys",
        "decay",
        "decay_uniform",
    ),
    _control(
        "equal_keys_rho",
        "Equal keys: the error does not depend on ρ; slope of its logarithm in ρ",
        "walk_tilted",
        "equal_keys",
        "slope",
        "no_rho",
    ),
    _control(
        "product_rho",
        "Product: the error grows with ρ, by e^ρ at most; slope of its logarithm in ρ",
        "walk_tilted",
        "product",
        "slope",
        "product_rho",
    ),
)
