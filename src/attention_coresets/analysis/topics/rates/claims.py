"""What the upper bound says, and the rates of benign families, of which it says little."""

from collections.abc import Sequence

from attention_coresets.analysis.parts import exponents
from attention_coresets.analysis.parts.block import BENIGN, UPPER
from attention_coresets.analysis.parts.measured import rows_of
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.rates import measures as rates
from attention_coresets.analysis.topics.rates.tolerances import BANDS

FAMILIES = ("sphere", "clusters", "low_rank", "cap_outliers", "antipodal")
BOTH = "tilted, unweighted"
NOTHING = "nothing: a bound, not a prediction"
WALK, DRAWS = "m grows at most as", "nothing on random draws; their own bound grows as"


def _law(
    symbol: str, experiment: str, arm: str, cache: str, statement: str, says: str, band: str, name: str = ""
) -> Claim:
    """An exponent of a fitted law, told beside the one that the bound has."""
    return Claim(
        id=name or f"{symbol}_{arm}_{cache}",
        statement=f"On {cache} {statement}: {arm}",
        models="tilted" if arm == "walk_tilted" else "unweighted",
        experiment=experiment,
        expected=BANDS[band],
        measure=exponents.law(experiment, symbol, arm, cache),
        block=BENIGN,
        says=says,
        refutes=NOTHING,
        rows=rows_of(experiment, arm=[arm], cache=[cache]),
    )


def _gamma(arm: str) -> Claim:
    band, bound = ("gamma_draws", f"{DRAWS} 1/ε²") if arm == "uniform" else ("gamma_balanced", f"{WALK} 1/ε")
    statement, says = "the size for an error ε grows as ε^−γ", bound
    return _law("gamma", "epsilon_rate", arm, "clusters", statement, says, band, f"gamma_{arm}")


def _alpha(arm: str, cache: str) -> Claim:
    band, bound = ("alpha_draws", f"{DRAWS} d") if arm == "uniform" else ("alpha_balanced", f"{WALK} √d")
    statement, says = "the size for an error ε grows with the dimension as d^α", bound
    return _law("alpha", "d_rate", arm, cache, statement, says, band)


def _beta(arm: str, exponent: str, cache: str) -> Claim:
    statement, says = f"the size for an error ε grows as e^(β·{exponent})", f"{WALK} e^({exponent})"
    return _law("beta", "rho_rate", arm, cache, statement, says, "beta")


def _nu(arm: str, cache: str) -> Claim:
    statement, says = "the size for an error ε grows with the cache as n^ν", "m does not grow with n"
    return _law("nu", "n_independence", arm, cache, statement, says, "nu")


def _antipodal_error(name: str, arm: str, model: str, says: str) -> Claim:
    return Claim(
        name,
        f"Antipodal keys with random values, ρ = 3, n = 2048, d = 8: worst-case error of 512 tokens: {arm}",
        model,
        "constant",
        BANDS[name],
        rates.error_at("constant", arm, "antipodal", n=2048, d=8, rho=3.0, size=512),
        BENIGN,
        says,
        NOTHING,
        rows_of("constant", arm=[arm], cache=["antipodal"], rho=[3.0], size=[512]),
    )


def _constant(caches: Sequence[str], sizes: Sequence[int], rhos: Sequence[float]) -> Claim:
    return Claim(
        "constant_issue",
        "m·err/(√d e^ρ) is at most 0.7 on sphere and cap_outliers: walk_tilted, median over caches",
        "tilted",
        "constant",
        BANDS["constant_issue"],
        rates.constant_at("walk_tilted", caches, sizes, rhos, n=2048, d=8),
        UPPER,
        "m = O(√d e^(ρ+o(ρ))/ε), without a constant; 0.7 is ours",
        "a setting above 0.7 would refute the constant 0.7, not the theorem",
        rows_of("constant", arm=["walk_tilted"], cache=caches, size=sizes, rho=rhos),
    )


CLAIMS: tuple[Claim, ...] = (
    _constant(("sphere", "cap_outliers"), (128, 512), (1.0, 2.0, 3.0)),
    Claim(
        "beta_bound",
        "No family needs more than the bound's rate e^(ρσ): the largest β of walk_tilted over all families",
        "tilted",
        "rho_rate",
        BANDS["beta_bound"],
        exponents.law_everywhere("rho_rate", "beta", "walk_tilted"),
        UPPER,
        "β at most 1; 0.1 is added for the factor √log(2+ρσ) over these ρ",
        "an exponent that stays above 1.1 as ρ grows; one above 1.1 for ρ ≤ 3 is only a hint",
        rows_of("rho_rate", arm=["walk_tilted"]),
    ),
    *(_gamma(arm) for arm in ("walk_tilted", "walk_unweighted", "uniform")),
    *(_alpha(arm, cache) for arm in ("walk_tilted", "uniform") for cache in ("sphere", "clusters")),
    *(_beta("walk_tilted", "ρσ", cache) for cache in FAMILIES),
    *(_beta("walk_unweighted", "ρR", cache) for cache in FAMILIES),
    *(_nu(arm, "sphere") for arm in ("walk_tilted", "uniform")),
    Claim(
        "models_apart",
        "On cap_outliers and antipodal the ratio of errors of walk_unweighted and walk_tilted at equal size grows"
        " with ρ: slope of its logarithm",
        BOTH,
        "rho_rate",
        BANDS["models_apart"],
        rates.growth_of_ratio("walk_unweighted", "walk_tilted", ("cap_outliers", "antipodal")),
        BENIGN,
        "the bounds of the two models grow apart as e^(ρ(R−σ)); nothing on the errors",
        NOTHING,
        rows_of("rho_rate", arm=["walk_tilted", "walk_unweighted"], cache=["cap_outliers", "antipodal"]),
    ),
    _antipodal_error("antipodal_tilted_error", "walk_tilted", "tilted", "at most a constant × √d e^(ρσ)/m"),
    _antipodal_error("antipodal_uniform_error", "uniform", "unweighted", "nothing on random draws"),
)
