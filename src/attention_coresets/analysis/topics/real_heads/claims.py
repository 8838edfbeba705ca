"""What is expected of the heads of a real model, and our own targets on them."""

from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.real_heads import caches
from attention_coresets.analysis.topics.real_heads import measures as real
from attention_coresets.analysis.topics.real_heads.tolerances import BANDS


def _real(name: str, column: str, arm: str = caches.OURS) -> Claim:
    statement = (
        f"Real heads, 1/8 of the cache: {arm} errs less than every eviction heuristic and than kept sinks with the rest"
        f" reweighted, geometric mean over heads: {caches.ERRORS[column]}"
    )
    models = "tilted" if arm == "walk_tilted" else "free"
    return Claim(name, statement, models, caches.HEADS, BANDS["real_ratio"], real.beats(arm, caches.RIVALS, column, 8))


def _against(name: str, statement: str, arm: str, other: str) -> Claim:
    models = "free" if arm == caches.OURS else "tilted"
    measure = real.beats(arm, (other,), "heldout_mean", 8)
    return Claim(name, f"Real heads, held-out mean: {statement}", models, caches.HEADS, BANDS["real_ratio"], measure)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "real_rho",
        "Real heads: the norms say ρ near 49 (keys centred), where e^ρ is vacuous; median over heads",
        "all",
        caches.HEADS,
        BANDS["real_rho"],
        real.head_median("rho_centred"),
    ),
    Claim(
        "real_log_t",
        "Real heads: the sensitivities of later queries say log T near 3; median over heads",
        "all",
        caches.HEADS,
        BANDS["real_log_t"],
        real.head_median("log_total_sensitivity_heldout"),
    ),
    Claim(
        "real_uncovered",
        "Real heads: at most 5 % of later queries' attention is on tokens to which calibration queries gave at most a"
        " tenth of it; median over heads",
        "all",
        caches.HEADS,
        BANDS["real_uncovered"],
        real.head_median("uncovered_10"),
    ),
    Claim(
        "real_constant",
        "Real heads: m·err/(√d·T) of the walk on calibration queries lies where m·err/(√d e^(ρσ)) lies on synthetic"
        " caches; held-out queries, 99 %, median over heads",
        "tilted",
        caches.HEADS,
        BANDS["real_constant"],
        real.constants("query_walk"),
    ),
    Claim(
        "real_t_slope",
        "Real heads: the walk's error grows from head to head as T does, slope 1 in logarithms; held-out queries, 99 %",
        "tilted",
        caches.HEADS,
        BANDS["real_t_slope"],
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
)
