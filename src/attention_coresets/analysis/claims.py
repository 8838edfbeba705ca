"""Every claim of the study, as data: what it says, which experiment decides it, how it is measured."""

from attention_coresets.analysis.parts import exponents as m
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.ablation import measures as comparisons
from attention_coresets.analysis.topics.hard_instances import antipodal as pair
from attention_coresets.analysis.topics.hard_instances import signed_clusters as hard
from attention_coresets.analysis.topics.language_model import measures as language
from attention_coresets.analysis.topics.league import measures as ours
from attention_coresets.analysis.topics.league import standings as league
from attention_coresets.analysis.topics.optimum import measures as optimum
from attention_coresets.analysis.topics.rates import measures as rates
from attention_coresets.analysis.topics.real_heads import caches
from attention_coresets.analysis.topics.real_heads import measures as real
from attention_coresets.analysis.topics.worst_case import measures as worst

FAMILIES = ("sphere", "clusters", "low_rank", "cap_outliers", "antipodal")
BOTH = "tilted, unweighted"


def _gamma(arm: str, model: str, band: str, expected: str) -> Claim:
    statement = f"On clusters the size for an error ε grows as ε^−γ with γ {expected}: {arm}"
    measure = m.law("epsilon_rate", "gamma", arm, "clusters")
    return Claim(f"gamma_{arm}", statement, model, "epsilon_rate", band, measure)


def _alpha(arm: str, model: str, cache: str, band: str) -> Claim:
    rate = "√d" if band == "alpha_balanced" else "a power of d between 0 and 1"
    statement = f"On {cache} the size for an error ε grows with the dimension as {rate}: {arm}"
    return Claim(f"alpha_{arm}_{cache}", statement, model, "d_rate", band, m.law("d_rate", "alpha", arm, cache))


def _beta(arm: str, model: str, exponent: str, cache: str) -> Claim:
    statement = f"On {cache} the size for an error ε grows as e^({exponent}): {arm}, β in that exponent"
    return Claim(f"beta_{arm}_{cache}", statement, model, "rho_rate", "beta", m.law("rho_rate", "beta", arm, cache))


def _nu(arm: str, model: str, cache: str) -> Claim:
    statement = f"On {cache} the size for an error ε does not depend on n: {arm}, exponent of n"
    measure = m.law("n_independence", "nu", arm, cache)
    return Claim(f"nu_{arm}_{cache}", statement, model, "n_independence", "nu", measure)


def _control(name: str, statement: str, arm: str, cache: str, symbol: str, band: str) -> Claim:
    model = "tilted" if arm == "walk_tilted" else "unweighted"
    measure = m.law("controls", symbol, arm, cache)
    return Claim(name, f"{statement}: {arm}", model, "lower_bound_controls", band, measure)


def _real(name: str, column: str, arm: str = caches.OURS) -> Claim:
    statement = (
        f"Real heads, 1/8 of the cache: {arm} errs less than every eviction heuristic and than kept sinks with the rest"
        f" reweighted, geometric mean over heads: {caches.ERRORS[column]}"
    )
    models = "tilted" if arm == "walk_tilted" else "free"
    return Claim(name, statement, models, caches.HEADS, "real_ratio", real.beats(arm, caches.RIVALS, column, 8))


def _against(name: str, statement: str, arm: str, other: str) -> Claim:
    models = "free" if arm == caches.OURS else "tilted"
    measure = real.beats(arm, (other,), "heldout_mean", 8)
    return Claim(name, f"Real heads, held-out mean: {statement}", models, caches.HEADS, "real_ratio", measure)


def _loss(share: int) -> Claim:
    statement = (
        f"A language model on coresets of 1/{share} of its cache loses less with {caches.OURS} than with every eviction"
        " heuristic and with kept sinks and the rest reweighted: nats a token, arm less rival"
    )
    measure = language.loses_less(caches.OURS, caches.RIVALS, share)
    return Claim(f"real_loss_{share}", statement, "free", language.LANGUAGE, "real_loss", measure)


def _ceiling(rho: float, band: str) -> Claim:
    statement = f"Kernel certificate over ascent, n = 1024, d = 8, m = 256, tilted walk, ρ = {rho:g}"
    families = ("sphere", "cap_outliers")
    measure = worst.ceiling_factor(families, "walk_tilted", n=1024, d=8, size=256, rho=rho)
    return Claim(f"ceiling_rho_{rho:g}", statement, "tilted", worst.JUDGED, band, measure)


def _league(model: str) -> tuple[Claim, ...]:
    statement = (
        f"League on a fresh seed: {league.our_arm(model)} errs by at most 0.7 times what the best other"
        f" {'construction of any model' if model == 'free' else f'{model} construction'} errs by, found cell by cell"
    )
    unseen = f"{statement}; families not used while it was developed"
    further = f"{unseen}, more dimensions and another seed, added after the former had left the free model open"
    more = ours.advantage(model, experiment=league.MORE)
    name, band = f"league_{model}", "league"
    return (
        Claim(name, statement, model, league.EXPERIMENT, band, ours.advantage(model)),
        Claim(f"{name}_unseen", unseen, model, league.EXPERIMENT, band, ours.advantage(model, league.UNSEEN)),
        Claim(f"{name}_unseen_more", further, model, league.MORE, band, more),
    )


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
        "beta_bound",
        m.law_everywhere("rho_rate", "beta", "walk_tilted"),
    ),
    Claim(
        "models_apart",
        "The two models have different rates in ρ on cap_outliers and antipodal: growth in ρ of log(error of"
        " walk_unweighted / error of walk_tilted) at equal size",
        BOTH,
        "rho_rate",
        "models_apart",
        rates.growth_of_ratio("walk_unweighted", "walk_tilted", ("cap_outliers", "antipodal")),
    ),
    Claim(
        "constant_issue",
        "m·err/(√d e^ρ) on sphere and cap_outliers, n = 2048, d = 8, m = 128 and 512, ρ = 1, 2, 3: walk_tilted, median",
        "tilted",
        "constant",
        "constant_issue",
        rates.constant_at("walk_tilted", ("sphere", "cap_outliers"), (128, 512), (1.0, 2.0, 3.0), n=2048, d=8),
    ),
    Claim(
        "constant_sigma",
        "m·err/(√d e^(ρσ)) is bounded over every family: walk_tilted, largest median of each",
        "tilted",
        "constant",
        "constant_sigma",
        rates.worst_constant("walk_tilted"),
    ),
    Claim(
        "antipodal_tilted_error",
        "Antipodal keys with random values, ρ = 3, n = 2048, d = 8: 512 tilted tokens err by less than 0.01",
        "tilted",
        "constant",
        "antipodal_tilted_error",
        rates.error_at("constant", "walk_tilted", "antipodal", n=2048, d=8, rho=3.0, size=512),
    ),
    Claim(
        "antipodal_uniform_error",
        "In the same place 512 uniform tokens err by more than 0.1",
        "unweighted",
        "constant",
        "antipodal_uniform_error",
        rates.error_at("constant", "uniform", "antipodal", n=2048, d=8, rho=3.0, size=512),
    ),
    _nu("walk_tilted", "tilted", "sphere"),
    _nu("uniform", "unweighted", "sphere"),
    Claim(
        "floor",
        "Signed clusters: no coreset, of any size and weights, errs by less than max(i, ii, iii, iv), the bounds for"
        " its own weights; smallest error over them",
        "tilted, unweighted, free",
        hard.ORTHONORMAL,
        "floor",
        hard.smallest_over_bounds(),
    ),
    Claim(
        "floor_equal",
        "Signed clusters: no arm errs by less than A√(d/2), proven for equal cluster weights only, with m ≤ n/2;"
        " smallest error over it",
        "tilted, unweighted, free",
        hard.ORTHONORMAL,
        "floor_equal",
        hard.smallest_over_floor(),
    ),
    Claim(
        "floor_factor",
        "Signed clusters: the best arm is within a factor 3 of A√(d/2) at m = n/2, for every d, clusters and ρ",
        "tilted, unweighted, free",
        hard.ORTHONORMAL,
        "floor_factor",
        hard.best_over_floor(),
    ),
    Claim(
        "antipodal_floor",
        "Antipodal pair: no unweighted subset is smaller than e^(2ρ)(1−ε)/(1+ε), corrected for the rounded number"
        " of keys at +u, at its error ε; smallest m over it",
        "unweighted",
        pair.ANTIPODAL,
        "antipodal_floor",
        pair.smallest_over_antipodal_floor(),
    ),
    Claim(
        "antipodal_rate",
        "Antipodal pair: the unweighted size grows as e^(2ρ): walk_unweighted, exponent of ρ",
        "unweighted",
        pair.ANTIPODAL,
        "antipodal_rate",
        pair.antipodal_rate("walk_unweighted"),
    ),
    Claim(
        "antipodal_rate_tilted",
        "Antipodal pair: the tilted size grows as e^ρ at most: walk_tilted, exponent of ρ",
        "tilted",
        pair.ANTIPODAL,
        "antipodal_rate_tilted",
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
    Claim(
        "ablation",
        "The tilted Gram–Schmidt walk is within 1.25 of the best rule on every family: ratio of errors",
        BOTH,
        "ablation",
        "ablation",
        comparisons.against_best("walk_tilted"),
    ),
    *(claim for model in league.MODELS for claim in _league(model)),
    Claim(
        "minimax_ceiling",
        "Our free construction is better by proven ceilings too, not only to the ascent that it is made against:"
        " certificate over that of the walk with kernel swaps and refitted weights",
        "free",
        "ablation",
        "minimax_ceiling",
        ours.ceiling_ratio("minimax_free", "walk_free_kernel_swaps"),
    ),
    Claim(
        "certificate",
        "No ceiling is below a query found, and the ascent ends within the gap of branch and bound: coresets of which"
        " that is not so, over all small caches",
        "tilted, unweighted",
        worst.SMALL,
        "no_contradiction",
        worst.contradictions([worst.SMALL]),
    ),
    Claim(
        "certificate_large",
        "The same on larger caches of every family, d and ρ tried",
        BOTH,
        worst.JUDGED,
        "no_contradiction",
        worst.contradictions([worst.JUDGED]),
    ),
    *(_ceiling(rho, band) for rho, band in ((1.0, "ceiling_one"), (2.0, "ceiling_two"))),
    Claim(
        "optimum_below",
        "No construction errs by less than the proven optimum of its own coreset model at equal size: smallest ratio",
        "tilted, unweighted, free",
        optimum.EXPERIMENT,
        "optimum_below",
        optimum.never_below(),
    ),
    Claim(
        "optimum_walk",
        "On tiny caches the tilted walk errs by at most 4 times the best tilted subset of its size, median of a family",
        "tilted",
        optimum.EXPERIMENT,
        "optimum_walk",
        optimum.error_over_optimum("walk_tilted"),
    ),
    Claim(
        "real_rho",
        "Real heads: the norms say ρ near 49 (keys centred), where e^ρ is vacuous; median over heads",
        "all",
        caches.HEADS,
        "real_rho",
        real.head_median("rho_centred"),
    ),
    Claim(
        "real_log_t",
        "Real heads: the sensitivities of later queries say log T near 3; median over heads",
        "all",
        caches.HEADS,
        "real_log_t",
        real.head_median("log_total_sensitivity_heldout"),
    ),
    Claim(
        "real_uncovered",
        "Real heads: at most 5 % of later queries' attention is on tokens to which calibration queries gave at most a"
        " tenth of it; median over heads",
        "all",
        caches.HEADS,
        "real_uncovered",
        real.head_median("uncovered_10"),
    ),
    Claim(
        "real_constant",
        "Real heads: m·err/(√d·T) of the walk on calibration queries lies where m·err/(√d e^(ρσ)) lies on synthetic"
        " caches; held-out queries, 99 %, median over heads",
        "tilted",
        caches.HEADS,
        "real_constant",
        real.constants("query_walk"),
    ),
    Claim(
        "real_t_slope",
        "Real heads: the walk's error grows from head to head as T does, slope 1 in logarithms; held-out queries, 99 %",
        "tilted",
        caches.HEADS,
        "real_t_slope",
        real.slope("query_walk"),
    ),
    _real("real_mean", "heldout_mean"),
    _real("real_p99", "heldout_p99"),
    _real("real_body", "error", "walk_tilted"),
    _against("real_rms", "marginals by RMS sensitivities beat those by the largest", "query_walk", "query_walk_max"),
    _against(
        "real_moved",
        "queries moved behind the cache beat the same queries where they were asked",
        caches.OURS,
        "query_exchange_causal",
    ),
    _loss(4),
    _loss(8),
)
