"""Measures on the heads of a real model: their geometry, errors against rivals, and errors against T."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import (
    LEAST,
    Estimate,
    clustered_mean,
    median,
    median_of,
    paired_log_ratio,
    stretched,
)
from attention_coresets.analysis.stats.frames import column, groups, medians
from attention_coresets.analysis.topics.real_heads.caches import HEAD, HEADS, at_share, met, named

_REPLICATES = 2000


def heads_measured(results: Results) -> pd.DataFrame:
    """heads.parquet, or no rows where real heads were not measured."""
    return pd.DataFrame() if results.heads is None else results.heads


def head_median(name: str) -> Measure:
    """The median over heads of one column of heads.parquet, text by text; intervals resample layers."""

    def measure(results: Results) -> list[Measured]:
        if results.heads is None:
            return []
        return [
            Measured(
                f"{names['text']}, {len(heads)} heads, n = {column(heads, 'n').max():.0f}",
                over_layers(heads, name),
                unit="layers",
            )
            for names, heads in groups(results.heads, ["text"])
        ]

    return measure


def over_layers(heads: pd.DataFrame, name: str) -> Estimate:
    """The median over heads of a column of heads.parquet, of which only logarithms can be negative."""
    return median(column(heads, name), column(heads, "layer").astype(int), positive=not name.startswith("log_"))


def beats(arm: str, rivals: Sequence[str], name: str, share: int) -> Measure:
    """Geometric mean over heads of the ratio of the errors `name` at m = n / share: arm over each rival, a part each.

    Paired head by head; intervals resample layers, whose heads on the two texts go together.
    """

    def measure(results: Results) -> list[Measured]:
        rows = at_share(results.rows(HEADS), share)
        return [
            Measured(f"over {rival}, m = n/{share}", pooled(rows, arm, rival, name), unit="layers")
            for rival in met(rows, rivals)
        ]

    return measure


def pooled(rows: pd.DataFrame, arm: str, rival: str, name: str) -> Estimate:
    pairs = paired_log_ratio(rows, arm, rival, name, HEAD)
    return clustered_mean(column(pairs, "log_ratio"), column(pairs, "layer").astype(int)).exp()


def constants(arm: str, name: str = "heldout_p99") -> Measure:
    """Median over heads of m err / (sqrt(d) T), T the total sensitivity of the calibration queries; a part a size. Of a
    head the median over texts."""

    def measure(results: Results) -> list[Measured]:
        rows = named(results.rows(HEADS))
        rows = rows.loc[rows["arm"] == arm]
        rows = rows.assign(constant=rows["size"] * rows[name] / (np.sqrt(rows["d"]) * rows["total_sensitivity"]))
        return [
            Measured(setting(names), median_of(group, "constant", HEAD[1:]), unit="heads")
            for names, group in groups(rows, ["n", "size"])
        ]

    return measure


def slope(arm: str, name: str = "heldout_p99", share: int = 8) -> Measure:
    """Slope of log error on log T over heads at m = n / share, least squares; the interval resamples layers."""

    def measure(results: Results) -> list[Measured]:
        rows = at_share(results.rows(HEADS), share)
        rows = medians(rows.loc[rows["arm"] == arm], [*HEAD, "total_sensitivity"], [name])
        if rows.empty:
            return []
        x, y = np.log(column(rows, "total_sensitivity")), np.log(column(rows, name))
        found = _slope(x, y, column(rows, "layer").astype(int))
        return [Measured(f"{len(rows)} heads, m = n/{share}", found, unit="layers")]

    return measure


def _slope(x: np.ndarray, y: np.ndarray, clusters: np.ndarray) -> Estimate:
    members = [np.flatnonzero(clusters == label) for label in np.unique(clusters)]
    value = float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else np.nan
    if len(members) < LEAST:
        return Estimate(value, np.nan, np.nan, len(members))
    rng, found = np.random.default_rng(0), []
    for _ in range(_REPLICATES):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if np.ptp(x[rows]) > 0:
            found.append(np.polyfit(x[rows], y[rows], 1)[0])
    return stretched(value, np.array(found), len(members))
