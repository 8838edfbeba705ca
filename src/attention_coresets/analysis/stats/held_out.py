"""How well a law predicts rows that its fit did not see."""

from collections.abc import Sequence
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
