"""Constructions against the exact optimum of tiny caches: error at equal size, size at equal error."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured, exactly
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import Estimate, median
from attention_coresets.analysis.stats.frames import column, groups, medians

EXPERIMENT = "optimum"
CACHE = ["cache", "cache_params", "n", "d", "rho", "seed", "head"]
ROUNDING = 1e-7


def against(results: Results) -> pd.DataFrame:
    """Every construction's row with best, the optimum's error at the same size in the same coreset model; error_ratio =
    error / best, NaN where the optimum is exact; size_ratio = the least size measured at which the construction errs by
    at most best, over the optimum's size, infinite where no measured size suffices."""
    rows = results.rows(EXPERIMENT)
    optima = rows.loc[rows["coreset"] == "optimum"]
    parts = [_matched(group, optima.loc[optima["model"] == names["model"]]) for names, group in _arms(rows)]
    return pd.concat(parts, ignore_index=True) if parts else rows.iloc[:0]


def _arms(rows: pd.DataFrame) -> Iterator[tuple[dict, pd.DataFrame]]:
    return groups(rows.loc[rows["coreset"] != "optimum"], ["arm", "model"])


def _matched(rows: pd.DataFrame, optima: pd.DataFrame) -> pd.DataFrame:
    best = optima[[*CACHE, "size"]].assign(best=optima["error"])
    both = rows.merge(best, on=[*CACHE, "size"])
    error, floor = column(both, "error"), column(both, "best")
    ratio = np.where(floor > ROUNDING, error / np.maximum(floor, ROUNDING), np.nan)
    return both.assign(error_ratio=ratio, size_ratio=_size_at(rows, both) / column(both, "size"))


def _size_at(rows: pd.DataFrame, both: pd.DataFrame) -> np.ndarray:
    """For each row of `both` the least size in `rows` on the same cache with error at most `best`; infinite if none."""
    pairs = both[[*CACHE, "best"]].assign(row=range(len(both))).merge(rows[[*CACHE, "size", "error"]], on=CACHE)
    enough = pairs.loc[column(pairs, "error") <= column(pairs, "best") + ROUNDING]
    return enough.groupby("row")["size"].min().astype(float).reindex(range(len(both)), fill_value=np.inf).to_numpy()


def over_caches(rows: pd.DataFrame) -> Estimate:
    """Median over caches of error_ratio, which is 1 or more: no subset errs by less than the best one. Of each cache
    the median over its sizes and rho."""
    each = medians(rows, [name for name in CACHE if name != "rho"], ["error_ratio"])
    return median(column(each, "error_ratio"), positive=True).at_least(1.0)


def never_below() -> Measure:
    """The smallest error over the optimum's of any construction: 1 or more, but for the optimum's own tolerance."""

    def measure(results: Results) -> list[Measured]:
        rows = against(results)
        ratios = column(rows.loc[rows["error_ratio"].notna()], "error_ratio") if len(rows) else np.array([])
        return [Measured("least of all", exactly(float(ratios.min()), len(ratios)), unit="rows")] if len(ratios) else []

    return measure


def error_over_optimum(arm: str) -> Measure:
    """Error of one construction over the optimum's of its model at equal size: of each cache the median over sizes
    and rho, then the median over caches, family by family."""

    def measure(results: Results) -> list[Measured]:
        rows = against(results)
        rows = rows.loc[(rows["arm"] == arm) & rows["error_ratio"].notna()] if len(rows) else rows
        return [Measured(names["cache"], over_caches(group), unit="caches") for names, group in groups(rows, ["cache"])]

    return measure
