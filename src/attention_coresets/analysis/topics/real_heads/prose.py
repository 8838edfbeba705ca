"""Sentences of README.md, docs/real_caches.md and docs/theory.md with numbers from the heads of a real model."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.markdown import interval, number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import between, claimed, listed, span, tally
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.rates.claims import (
    CLAIMS as RATES,  # constants of synthetic caches, beside those of heads
)
from attention_coresets.analysis.topics.real_heads.caches import (
    HEADS,
    HEURISTICS,
    OURS,
    SHARE,
    at_share,
    errors_by_size,
)
from attention_coresets.analysis.topics.real_heads.claims import CLAIMS
from attention_coresets.analysis.topics.real_heads.measures import pooled

WALK, WEIGHTS = "query_walk", "query_exchange_weights"


def norms(results: Results) -> str:
    """ρ by the norms, medians over heads of each text."""
    found = claimed(CLAIMS, results, "real_rho")
    return between(part.estimate.value for part in found) if found else ""


def log_t(results: Results) -> str:
    """log T of later queries, medians over heads of each text."""
    found = claimed(CLAIMS, results, "real_log_t")
    return between(part.estimate.value for part in found) if found else ""


def rho_range(results: Results) -> str:
    """Least, largest and median ρ of all heads."""
    if results.heads is None:
        return ""
    rho = column(results.heads, "rho_centred")
    return f"{between(rho)} (median {number(float(np.median(rho)))})"


def moved(results: Results) -> str:
    """T of calibration queries where they stood, of later ones, of calibration queries moved."""
    stood, later, here = (_by_text(results, f"total_sensitivity{part}") for part in ("_causal", "_heldout", ""))
    if not stood:
        return ""
    return (
        f"where they stood, the same queries have a total sensitivity T (below) of {stood} in the median over heads,"
        f" later ones of {later}; moved, they have {here}"
    )


def _by_text(results: Results, name: str) -> str:
    """Medians over heads of a column, text by text."""
    if results.heads is None:
        return ""
    return between(float(np.median(column(part, name))) for _, part in groups(results.heads, ["text"]))


def maps(results: Results) -> str:
    """How near the best map of keys and queries is to its bound, and what it and both centres make of ρ."""
    heads = results.heads
    if heads is None or "rho_query_linear_lower" not in heads:
        return ""
    share = column(heads, "rho_query_linear") / column(heads, "rho_centred")
    near = column(heads, "rho_query_linear") / column(heads, "rho_query_linear_lower")
    return (
        f"with both centres certified within {_percent(near.max() - 1)} of the least possible, take ρ down to"
        f" {number(float(np.median(share)))} of what it was, median over heads"
    )


def _percent(share: float) -> str:
    return f"{number(100 * float(share))} %"


def balancing(results: Results) -> str:
    """Γ over T of the same queries."""
    if results.heads is None:
        return ""
    ratio = column(results.heads, "gamma") / column(results.heads, "gamma_sensitivity")
    return f"{number(float(np.median(ratio)))} times T in the median over heads, {number(ratio.max())} times at most"


def ellipsoid(results: Results) -> str:
    """ρσ of the tilted walk's view of the cache, as large as the ellipsoid was asked for."""
    rows = results.rows(HEADS)
    rows = rows.loc[rows["arm"] == "walk_tilted"]
    if rows.empty:
        return ""
    exponent = float(np.median(column(rows, "exponent")))
    return f"{number(exponent)} nats already at {listed(distinct(rows, 'rho'))} times its size"


def body(results: Results) -> str:
    """Which arm has the least error at the worst query of the body, size by size."""
    rows = results.rows(HEADS)
    if rows.empty:
        return ""
    best: dict[str, list[int]] = {}
    for names, arms in groups(errors_by_size(rows), ["size"]):
        best.setdefault(arms["arm"].tolist()[column(arms, "error").argmin()], []).append(names["size"])
    return listed(f"`{arm}` at m = {listed(sizes)}" for arm, sizes in best.items())


def explained(results: Results) -> str:
    """The walk on calibration queries against the heuristics, its constant beside synthetic ones, its growth with T."""
    here, constants, slope = (
        _here(results, WALK),
        claimed(CLAIMS, results, "real_constant"),
        claimed(CLAIMS, results, "real_t_slope"),
    )
    if here.empty or not constants or not slope:
        return ""
    own = here.loc[here["arm"] == WALK]
    tail = float(np.median(column(own, "heldout_max") / column(own, "heldout_p99")))
    synthetic = [part.estimate.value for part in claimed(RATES, results, "constant_sigma")]
    beside = f", where those of m·err/(√d·e^(ρσ)) on synthetic families are {between(synthetic)}" if synthetic else ""
    return (
        f"At 1/{SHARE} of the cache the walk on calibration queries errs, at held-out queries, in the mean"
        f" {_over_heuristics(here, 'heldout_mean')}, and at the 99th percentile"
        f" {_over_heuristics(here, 'heldout_p99')}. Its error is a constant times √d·T/m. At the 99th percentile the"
        f" constant is"
        f" {span(constants)}{beside}; note that the latter are of a supremum, so that like is not quite compared with"
        f" like: the largest error at a head's later queries is {number(tail)} times that at the 99th percentile"
        " (median). From head to head the logarithm of the walk's error grows with that of T at the slope"
        f" {span(slope)}."
    )


def _here(results: Results, *arms: str) -> pd.DataFrame:
    """Errors on real heads at the share that pages quote; none where one of the arms or all heuristics are missing."""
    rows = results.rows(HEADS)
    rows = rows.loc[rows["size"] * SHARE == rows["n"]]
    there = set(rows["arm"])
    return at_share(rows, SHARE) if set(arms) <= there and there & set(HEURISTICS) else rows.iloc[:0]


def _over_heuristics(rows: pd.DataFrame, name: str) -> str:
    found = {rival: pooled(rows, WALK, rival, name) for rival in HEURISTICS if rival in set(rows["arm"])}
    below = tally({rival: ratio.high < 1 for rival, ratio in found.items()})
    values = between(ratio.value for ratio in found.values())
    return f"{values} times as much as the heuristics, with an interval below 1 against {below}"


def weights(results: Results) -> str:
    """Fitted weights alone over the best heuristic, and exchanged tokens over these."""
    here = _here(results, OURS, WEIGHTS)
    if here.empty:
        return ""
    found = {r: pooled(here, WEIGHTS, r, "heldout_mean") for r in HEURISTICS if r in set(here["arm"])}
    best = max(found, key=lambda rival: found[rival].value)
    return (
        f"errs {interval(found[best])} times as much as the best of them, `{best}`, in the mean over held-out queries;"
        f" exchanging tokens makes that {interval(pooled(here, OURS, WEIGHTS, 'heldout_mean'))} times as large"
    )


REAL: dict[str, Callable[[Results], str]] = {
    "real_norms": norms,
    "real_log_t": log_t,
    "real_rho_range": rho_range,
    "real_moved": moved,
    "real_maps": maps,
    "real_balancing": balancing,
    "real_ellipsoid": ellipsoid,
    "real_body": body,
    "real_explained": explained,
    "real_weights": weights,
}
