"""Sentences with numbers on the errors of arms on real heads."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.markdown import interval, number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import between, claimed, listed, span, tally
from attention_coresets.analysis.stats.frames import column, groups
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
from attention_coresets.analysis.topics.upper_bound.measures import largest_by_family

WALK, WEIGHTS = "query_walk", "query_exchange_weights"


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
    synthetic = largest_by_family(results)
    beside = (
        f", where the largest m·err/(√d·e^(ρσ)) on synthetic families are {between(synthetic)}" if synthetic else ""
    )
    return (
        f"At 1/{SHARE} of the cache the walk on calibration queries errs, at held-out queries, in the mean"
        f" {_over_heuristics(here, 'heldout_mean')}, and at the 99th percentile"
        f" {_over_heuristics(here, 'heldout_p99')}. Divided by √d·T/m its error at the 99th percentile is,"
        f" size by size, {span(constants)}{beside}; note that the latter are of a supremum, so that like is not quite"
        f" compared with like: the largest error at a head's later queries is {number(tail)} times that at the 99th"
        " percentile (median). From head to head the logarithm of the walk's error grows with that of T at the slope"
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


def headline(results: Results) -> str:
    """ρ and log T of heads, and our errors over those of heuristics."""
    rho, log_t = claimed(CLAIMS, results, "real_rho"), claimed(CLAIMS, results, "real_log_t")
    if not rho or not log_t:
        return ""
    text = (
        f"**Real heads** (SmolLM2-135M): the norms say ρ = {span(rho)}, the sensitivities of the model's own queries"
        f" log T = {span(log_t)} (medians over heads)."
    )
    mean, p99 = claimed(CLAIMS, results, "real_mean"), claimed(CLAIMS, results, "real_p99")
    if mean and p99:
        text += (
            f" At 1/8 of the cache tokens and weights fitted to the model's own queries err {span(mean)} times what"
            f" eviction heuristics and kept sinks err at held-out queries in the mean, {span(p99)} at the 99th"
            " percentile."
        )
    return text
