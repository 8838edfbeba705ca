"""Comparison of laws over the same rows: by AICc, and by predicting rows that the fit did not see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from attention_coresets.analysis.stats.censored import Observations, row_loglik
from attention_coresets.analysis.stats.power_law import Features, fit, log_bounds


@dataclass(frozen=True)
class HeldOut:
    """A law fitted without the largest value of a column, asked to predict the rows at that value: the mean
    log-likelihood of those rows, and the share whose interval meets the central 95 % of the prediction."""

    column: str
    value: float
    loglik: float
    hit_rate: float
    n: int


def leave_largest_out(
    intervals: pd.DataFrame, features: Features, column: str, *, clusters: str | Sequence[str] = ("seed", "head")
) -> HeldOut:
    """Fit below the largest value of `column`, predict at it. Raises ValueError where the rest cannot be fitted.

    `features` must name columns, for the rows are split. Higher `loglik` is the better law."""
    largest = float(intervals[column].to_numpy(dtype=float).max())
    inside, outside = intervals.loc[intervals[column] < largest], intervals.loc[intervals[column] == largest]
    if len(inside) == 0:
        raise ValueError(f"{column!r} has the one value {largest:g}; nothing is left to fit without it")
    law = fit(inside, features, clusters=clusters)
    center = law.predict(outside, features)
    lower, upper = log_bounds(outside)
    residual = Observations(np.zeros((len(outside), 1)), lower - center, upper - center)
    hits = (residual.lower <= 1.96 * law.scale) & (residual.upper >= -1.96 * law.scale)
    loglik = row_loglik(residual, np.zeros(1), law.scale)
    return HeldOut(column, largest, float(loglik.mean()), float(hits.mean()), len(outside))


def compare(
    intervals: pd.DataFrame,
    models: Mapping[str, Features],
    held_out: str,
    *,
    clusters: str | Sequence[str] = ("seed", "head"),
) -> pd.DataFrame:
    """Laws over the same rows, one a line, best AICc first: aicc, its excess over the best, and the held-out score."""
    lines = []
    for name, features in models.items():
        law, out = (
            fit(intervals, features, clusters=clusters),
            leave_largest_out(intervals, features, held_out, clusters=clusters),
        )
        lines.append({"model": name, "aicc": law.aicc, "held_out_loglik": out.loglik, "hit_rate": out.hit_rate})
    table = pd.DataFrame(lines).sort_values("aicc", ignore_index=True)
    return table.assign(excess=table["aicc"] - table["aicc"].min())
