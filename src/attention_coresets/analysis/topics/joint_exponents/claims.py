"""What the theorem says of the instances that make it tight, and what would refute it."""

from attention_coresets.analysis.parts.block import LOWER
from attention_coresets.analysis.parts.measured import Measure, rows_of
from attention_coresets.analysis.parts.verdict import Check, Claim
from attention_coresets.analysis.topics.joint_exponents import measures
from attention_coresets.analysis.topics.joint_exponents.rows import BEYOND, EXPONENTS, KNOWS, LARGE, RATIOS, WEIGHTS
from attention_coresets.analysis.topics.joint_exponents.tolerances import BANDS

NEAR = ("walk_tilted_kernel_swaps", "herding_tilted")
WALK, DRAWS = ("walk_tilted",), ("uniform", "kernel_halving_tilted")
_NAMES = {"α": ("alpha", "d^α, α = ½"), "β": ("beta", "(e^ρ − 1)^β, β = 1"), "γ": ("gamma", "ε^−γ, γ = 1")}
_REFUTES = "an exponent that stays off it as d, r grow"


def _joint(symbol: str, arms: tuple[str, ...], suffix: str, who: str) -> Claim:
    name, law = _NAMES[symbol]
    return Claim(
        id=f"joint_{name}{suffix}",
        statement=f"α, β, γ fitted together (finite-size form): {symbol}, {who}",
        models="tilted = unweighted",
        experiment=EXPONENTS,
        expected=BANDS[f"joint_{name}{suffix}"],
        measure=measures.exponent(symbol, arms),
        block=LOWER,
        says=f"size ∝ {law}",
        refutes=_REFUTES,
        rows=rows_of(EXPONENTS, arm=list(arms)),
        added="log ε is fitted, not log m, which is the design's and made γ too small",
    )


def _coordinate(symbol: str) -> Claim:
    name, law = _NAMES[symbol]
    return Claim(
        id=f"coordinate_{name}",
        statement=f"The coordinate subset, which is told the clusters, at r ≥ 16 (e^ρ − 1): {symbol}",
        models="unweighted",
        experiment=LARGE,
        expected=BANDS[f"coordinate_{name}"],
        measure=measures.coordinate_exponent(symbol),
        block=LOWER,
        says=f"size ∝ {law}; nearly algebra of floor (iv): how far the design is from the limit",
        refutes="nothing by itself",
        rows=rows_of(LARGE),
    )


def _factor(
    name: str, statement: str, models: str, experiment: str, measure: Measure, says: str, refutes: str
) -> Claim:
    return Claim(name, statement, models, experiment, BANDS[name], measure, LOWER, says, refutes, rows_of(experiment))


CLAIMS: tuple[Claim, ...] = (
    *(_joint(symbol, NEAR, "", "walk with kernel swaps, herding") for symbol in _NAMES),
    *(_joint(symbol, WALK, "_walk", "walk alone") for symbol in _NAMES),
    _joint("γ", DRAWS, "_draws", "uniform subsets and kernel halving"),
    _factor(
        "ratio_alpha",
        "Caches of equal r/d and ρ compared, γ = 1: α, for each of three arms",
        "tilted = unweighted",
        RATIOS,
        measures.ratio_exponent(),
        "size ∝ d^α, α = ½",
        _REFUTES,
    ),
    _factor(
        "sandwich_factor",
        "At m = n/2 the best construction that is not told the clusters, picked on these rows, errs by at most 1.5"
        " × floor (iv) in the median, at every d, r and ρ of the design",
        "tilted = unweighted",
        EXPONENTS,
        measures.sandwich(),
        "a factor that does not depend on d, ρ and ε, but for e^o(ρ)",
        "a median above it refutes the 1.5 alone",
    ),
    _factor(
        "beyond_factor",
        "At m = n/2, n = 8192 and 16,384 herding, not told the clusters, errs by at most 1.6 × floor (iv), median",
        "tilted = unweighted",
        BEYOND,
        measures.beyond_over_iv(),
        "a factor that does not depend on d, ρ and ε, but for e^o(ρ)",
        "a factor that grows with n",
    ),
    _factor(
        "beyond_law",
        "There, at ρ = ½, error / floor (iv) is ρ (1 + √(r/d))/(e^ρ − 1), a heuristic for signs that look random:"
        " ratio to that",
        "tilted = unweighted",
        BEYOND,
        measures.beyond_over_random_signs(),
        "nothing; the heuristic explains an α below ½: r/d falls as d grows in the design",
        "nothing: the heuristic alone would be wrong",
    ),
    *(_coordinate(symbol) for symbol in _NAMES),
    _factor(
        "coordinate_factor",
        f"At m = n/2 the coordinate subset ({KNOWS}), Hadamard pairs, errs by at most 1.3 × floor (iv) everywhere",
        "unweighted",
        LARGE,
        measures.coordinate_over_floor(),
        "a factor that does not depend on d, ρ and ε: the floor is met up to a constant near 1",
        "a factor that grows with n",
    ),
    _factor(
        "coordinate_median",
        "The same, median over all rows",
        "unweighted",
        LARGE,
        measures.coordinate_median(),
        "as above",
        "as above",
    ),
    _factor(
        "free_factor",
        "At m = n/2 and γ = a/(r + a) ≤ 1/8 the best coreset of any weights, picked on these rows, errs by at most"
        " 1.4 × floor (v), which holds for any weights, in the median",
        "tilted, unweighted, free",
        WEIGHTS,
        measures.free_over_v(),
        "for free weights, a lower bound of the same form in this range of ε only",
        "a coreset below (v)",
    ),
)

CHECKS: tuple[Check, ...] = (
    Check(
        "floor_v",
        "Signed clusters: no coreset of any weights ≥ 0 errs by less than floor (v); smallest ratio of error to floor",
        EXPONENTS,
        BANDS["floor_v"],
        measures.least_over_v(),
    ),
)
