"""Measures on facts kept by a language model that runs on coresets: shares of the full cache's, divergences."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import Estimate, clustered_mean, paired_ratio
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.language_model.measures import less
from attention_coresets.analysis.topics.real_heads.caches import SEGMENT, at_share, met, named

FACTS, GEMMA, ABLATION = "real_tasks", "real_tasks_gemma", "real_ablation"
OURS = "replay_fit"
MATCHING = "attention_matching"


def told(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with text and start named, loss added, and facts found over those that the full cache finds.

    Segments whose full cache finds none say nothing about facts; theirs are NaN, as those of random tokens.
    """
    rows = named(rows)
    full = column(rows, "needle_found_full")
    found = np.divide(column(rows, "needle_found"), full, out=np.full(len(rows), np.nan), where=full > 0)
    return rows.assign(found=found, added=column(rows, "loss") - column(rows, "loss_full"))


def unweighted(rows: pd.DataFrame) -> list[str]:
    """The published arms of these rows that have no weights."""
    return [arm for arm in distinct(rows.loc[rows["model"] == "unweighted"], "arm") if not arm.startswith(OURS)]


def mean(rows: pd.DataFrame, arm: str, name: str) -> Estimate | None:
    """The mean over segments, not below 0 where the column never is; None where no segment says anything."""
    found = column(rows.loc[rows["arm"] == arm], name)
    found = found[np.isfinite(found)]
    if not len(found):
        return None
    estimate = clustered_mean(found, np.arange(len(found)))
    return estimate.at_least(0.0) if name in ("found", "right", "kl") else estimate


def means_of(name: str, share: int) -> Measure:
    """The mean over segments of a column of `told`, of ours at m = n / share."""

    def measure(results: Results) -> list[Measured]:
        found = mean(_at(results, share), OURS, name)
        return [] if found is None else [Measured(f"m = n/{share}", found, unit="segments")]

    return measure


def matched(rows: pd.DataFrame) -> list[str]:
    """The arms of Attention Matching of these rows whose tokens keep their own values."""
    return [arm for arm in distinct(rows.loc[rows["model"] == "free"], "arm") if arm.startswith(MATCHING)]


def divergence_ratios(
    shares: Sequence[int], among: Callable[[pd.DataFrame], list[str]] = unweighted, experiment: str = FACTS
) -> Measure:
    """The median over segments of our divergence over that of each of some arms, a part each."""

    def measure(results: Results) -> list[Measured]:
        parts = []
        for share in shares:
            rows = _at(results, share, experiment)
            rivals = among(rows) if OURS in set(rows["arm"]) else []
            ratios = {rival: paired_ratio(rows, OURS, rival, "kl", SEGMENT) for rival in rivals}
            parts += [Measured(f"over {name}, m = n/{share}", x, unit="segments") for name, x in ratios.items()]
        return parts

    return measure


def finds_more(rivals: Sequence[str], share: int) -> Measure:
    """The mean over segments of the facts found over the full cache's, ours less each rival's, a part each."""

    def measure(results: Results) -> list[Measured]:
        rows = _at(results, share)
        rows = rows.loc[np.isfinite(column(rows, "found"))]
        if OURS not in set(rows["arm"]):
            return []
        return [
            Measured(f"less {rival}, m = n/{share}", less(rows, OURS, rival, "found"), unit="segments")
            for rival in met(rows, rivals)
        ]

    return measure


def _at(results: Results, share: int, experiment: str = FACTS) -> pd.DataFrame:
    return told(at_share(results.rows(experiment), share))
