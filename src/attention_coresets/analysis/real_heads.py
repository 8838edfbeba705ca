"""Measures on the heads of a real model: their geometry, and arms compared head by head."""

import pandas as pd

from attention_coresets.analysis.frames import column, groups, medians
from attention_coresets.analysis.measures import Measure, Measured, setting
from attention_coresets.analysis.results import Results
from attention_coresets.analysis.summary import REAL, median, median_of, paired_log_ratio

ERRORS = {
    "heldout_mean": "held-out queries, mean",
    "heldout_p99": "held-out queries, 99th percentile",
    "heldout_max": "held-out queries, largest",
    "error": "worst query of the ball of radius ρ",
}
SINK_HEAVY = 0.5  # mean weight of token 0 from which a head counts as one with an attention sink


def head_median(name: str) -> Measure:
    """The median over heads of one column of heads.parquet."""

    def measure(results: Results) -> list[Measured]:
        heads = results.heads
        if heads is None:
            return []
        return [Measured(f"{len(heads)} heads, n = {column(heads, 'n').max():.0f}", median(column(heads, name)))]

    return measure


def head_ratio(arm: str, other: str, name: str) -> Measure:
    """Median over heads of the error ratio arm / other on the same heads, a part for each radius rho and size."""

    def measure(results: Results) -> list[Measured]:
        return _ratios(results.rows("real_heads"), arm, other, name)

    return measure


def sink_ratio(arm: str, other: str) -> Measure:
    """As `head_ratio` for the mean error at held-out queries, over heads with an attention sink only; for arms that do
    not look at rho, so rows of one radius say all."""

    def measure(results: Results) -> list[Measured]:
        heads, rows = results.heads, results.rows("real_heads")
        if heads is None or rows.empty:
            return []
        heavy = heads.loc[column(heads, "sink_weight") >= SINK_HEAVY, list(REAL)].astype(float)
        rows = rows.loc[rows["rho"] == rows["rho"].min()]
        return _ratios(rows.merge(heavy, on=list(REAL)), arm, other, "heldout_mean")

    return measure


def _ratios(rows: pd.DataFrame, arm: str, other: str, name: str) -> list[Measured]:
    pairs = paired_log_ratio(rows, arm, other, name, REAL)
    return [
        Measured(setting(names), median_of(group, "log_ratio", REAL).exp())
        for names, group in groups(pairs, ["rho", "size"])
    ]


def errors_by_size(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians over heads: a row for each (arm, rho, size), a column for each of ERRORS."""
    names = list(ERRORS)
    return medians(medians(rows, [*REAL, "arm", "rho", "size"], names), ["arm", "rho", "size"], names)
