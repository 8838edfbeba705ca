"""What is expected of the heads of a real model, and our own targets on them."""

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.measured import Rows, rows_of
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.real_heads import caches
from attention_coresets.analysis.topics.real_heads import measures as real
from attention_coresets.analysis.topics.real_heads.tolerances import BANDS

OVER_ONE = "a rival whose mean ratio is above 1; undecided where 1 is in the interval"


def _at_eighth(*arms: str) -> Rows:
    rows = rows_of(caches.HEADS, arm=arms)
    return lambda results: caches.at_share(rows(results), caches.SHARE)


def _real(name: str, column: str, arm: str = caches.OURS) -> Claim:
    each = "each eviction heuristic and kept sinks"
    statement = f"Real heads, 1/8 of the cache: {arm} errs less than {each}: {caches.ERRORS[column]}"
    return Claim(
        name,
        statement,
        "tilted" if arm == "walk_tilted" else "free",
        caches.HEADS,
        BANDS["real_ratio"],
        real.beats(arm, caches.RIVALS, column, caches.SHARE),
        OWN,
        "a ratio of errors below 1 against each",
        OVER_ONE,
        _at_eighth(arm, *caches.RIVALS),
    )


def _against(name: str, statement: str, arm: str, other: str) -> Claim:
    return Claim(
        name,
        f"Real heads, held-out mean: {statement}",
        "free" if arm == caches.OURS else "tilted",
        caches.HEADS,
        BANDS["real_ratio"],
        real.beats(arm, (other,), "heldout_mean", caches.SHARE),
        OWN,
        "a ratio of errors below 1",
        OVER_ONE,
        _at_eighth(arm, other),
    )


def _geometry(name: str, statement: str, column: str, says: str, refutes: str) -> Claim:
    statement = f"Real heads: {statement}; median over heads"
    measure = real.head_median(column)
    return Claim(name, statement, "all", caches.HEADS, BANDS[name], measure, OWN, says, refutes, real.heads_measured)


CLAIMS: tuple[Claim, ...] = (
    _geometry(
        "real_rho",
        "the ρ that the norms say (keys centred), where e^ρ is vacuous",
        "rho_centred",
        "near 49, as seen in a pilot on these heads",
        "nothing: a number told",
    ),
    _geometry(
        "real_log_t",
        "log T that the sensitivities of later queries say",
        "log_total_sensitivity_heldout",
        "near 3, as seen in a pilot on these heads",
        "nothing: a number told",
    ),
    _geometry(
        "real_uncovered",
        "at most 5 % of later queries' attention is on tokens to which calibration queries gave at most a tenth of it",
        "uncovered_10",
        "at most 0.05, a guess",
        "a text whose median is above 0.05",
    ),
    Claim(
        "real_constant",
        "Real heads: m·err/(√d·T) of the walk on calibration queries lies where m·err/(√d e^(ρσ)) lies on synthetic"
        " caches; held-out queries, 99 %, median over heads",
        "tilted",
        caches.HEADS,
        BANDS["real_constant"],
        real.constants("query_walk"),
        OWN,
        "T in the place of e^(ρσ), a conjecture: 0.01 to 0.6",
        "a size at which the median lies outside",
        rows_of(caches.HEADS, arm=["query_walk"]),
    ),
    Claim(
        "real_t_slope",
        "Real heads: the walk's error grows from head to head as T does, slope 1 in logarithms; held-out queries, 99 %",
        "tilted",
        caches.HEADS,
        BANDS["real_t_slope"],
        real.slope("query_walk"),
        OWN,
        "the same conjecture: slope 1",
        "a slope away from 1 by more than a half; undecided where 0 is in the interval",
        _at_eighth("query_walk"),
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
