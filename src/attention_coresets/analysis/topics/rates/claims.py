"""What theory says of the rates and of the constant."""

from attention_coresets.analysis.parts import exponents
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.rates import measures as rates
from attention_coresets.analysis.topics.rates.tolerances import BANDS

FAMILIES = ("sphere", "clusters", "low_rank", "cap_outliers", "antipodal")
BOTH = "tilted, unweighted"


def _gamma(arm: str, model: str, band: str, expected: str) -> Claim:
    statement = f"On clusters the size for an error ε grows as ε^−γ with γ {expected}: {arm}"
    measure = exponents.law("epsilon_rate", "gamma", arm, "clusters")
    return Claim(f"gamma_{arm}", statement, model, "epsilon_rate", BANDS[band], measure)


def _alpha(arm: str, model: str, cache: str, band: str) -> Claim:
    rate = "√d" if band == "alpha_balanced" else "a power of d between 0 and 1"
    statement = f"On {cache} the size for an error ε grows with the dimension as {rate}: {arm}"
    return Claim(
        f"alpha_{arm}_{cache}", statement, model, "d_rate", BANDS[band], exponents.law("d_rate", "alpha", arm, cache)
    )


def _beta(arm: str, model: str, exponent: str, cache: str) -> Claim:
    statement = f"On {cache} the size for an error ε grows as e^({exponent}): {arm}, β in that exponent"
    return Claim(
        f"beta_{arm}_{cache}",
        statement,
        model,
        "rho_rate",
        BANDS["beta"],
        exponents.law("rho_rate", "beta", arm, cache),
    )


def _nu(arm: str, model: str, cache: str) -> Claim:
    statement = f"On {cache} the size for an error ε does not depend on n: {arm}, exponent of n"
    measure = exponents.law("n_independence", "nu", arm, cache)
    return Claim(f"nu_{arm}_{cache}", statement, model, "n_independence", BANDS["nu"], measure)


CLAIMS: tuple[Claim, ...] = (
    _gamma("walk_tilted", "tilted", "gamma_balanced", "= 1"),
    _gamma("walk_unweighted", "unweighted", "gamma_balanced", "= 1"),
    _gamma("uniform", "unweighted", "gamma_uniform", "near 2"),
    *(_alpha("walk_tilted", "tilted", cache, "alpha_balanced") for cache in ("sphere", "clusters")),
    *(_alpha("uniform", "unweighted", cache, "alpha_uniform") for cache in ("sphere", "clusters")),
    *(_beta("walk_tilted", "tilted", "ρσ", cache) for cache in FAMILIES),
    *(_beta("walk_unweighted", "unweighted", "ρR", cache) for cache in FAMILIES),
    Claim(
        "beta_bound",
        "No family needs more than the bound's rate e^(ρσ): walk_tilted, β",
        "tilted",
        "rho_rate",
        BANDS["beta_bound"],
        exponents.law_everywhere("rho_rate", "beta", "walk_tilted"),
    ),
    Claim(
        "models_apart",
        "The two models have different rates in ρ on cap_outliers and antipodal: growth in ρ of log(error of"
        " walk_unweighted / error of walk_tilted) at equal size",
        BOTH,
        "rho_rate",
        BANDS["models_apart"],
        rates.growth_of_ratio("walk_unweighted", "walk_tilted", ("cap_outliers", "antipodal")),
    ),
    Claim(
        "constant_issue",
        "m·err/(√d e^ρ) on sphere and cap_outliers, n = 2048, d = 8, m = 128 and 512, ρ = 1, 2, 3: walk_tilted, median",
        "tilted",
        "constant",
        BANDS["constant_issue"],
        rates.constant_at("walk_tilted", ("sphere", "cap_outliers"), (128, 512), (1.0, 2.0, 3.0), n=2048, d=8),
    ),
    Claim(
        "constant_sigma",
        "m·err/(√d e^(ρσ)) is bounded over every family: walk_tilted, largest median of each",
        "tilted",
        "constant",
        BANDS["constant_sigma"],
        rates.worst_constant("walk_tilted"),
    ),
    Claim(
        "antipodal_tilted_error",
        "Antipodal keys with random values, ρ = 3, n = 2048, d = 8: 512 tilted tokens err by less than 0.01",
        "tilted",
        "constant",
        BANDS["antipodal_tilted_error"],
        rates.error_at("constant", "walk_tilted", "antipodal", n=2048, d=8, rho=3.0, size=512),
    ),
    Claim(
        "antipodal_uniform_error",
        "In the same place 512 uniform tokens err by more than 0.1",
        "unweighted",
        "constant",
        BANDS["antipodal_uniform_error"],
        rates.error_at("constant", "uniform", "antipodal", n=2048, d=8, rho=3.0, size=512),
    ),
    _nu("walk_tilted", "tilted", "sphere"),
    _nu("uniform", "unweighted", "sphere"),
)
