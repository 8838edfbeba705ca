"""The bound's constant, errors in one setting, and how far apart two arms grow with rho."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.constant import with_constants
from attention_coresets.analysis.parts.measured import Measure, Measured, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import SYNTHETIC, median, median_of, paired_log_ratio
from attention_coresets.analysis.stats.frames import column, distinct, groups, means


def error_at(experiment: str, arm: str, cache: str, *, n: int, d: int, rho: float, size: int) -> Measure:
    """The median worst-case error in exactly this setting."""
    wanted = {"arm": [arm], "cache": [cache], "n": [n], "d": [d], "rho": [rho], "size": [size]}

    def measure(results: Results) -> list[Measured]:
        return settings(_where(results.rows(experiment), wanted), ["n", "d", "rho", "size"], "error")

    return measure


def constant_at(
    arm: str, caches: Iterable[str], sizes: Iterable[int], rhos: Iterable[float], *, n: int, d: int
) -> Measure:
    """m err / (sqrt(d) e^rho) in every one of these settings."""
    wanted = {"arm": [arm], "cache": list(caches), "size": list(sizes), "rho": list(rhos), "n": [n], "d": [d]}

    def measure(results: Results) -> list[Measured]:
        rows = with_constants(_where(results.rows("constant"), wanted))
        return settings(rows, ["cache", "rho", "size"], "constant_rho", "cache")

    return measure


def settings(rows: pd.DataFrame, by: list[str], name: str, *first: str) -> list[Measured]:
    """The median over caches of a column, a part for each combination of the columns `by`."""
    return [Measured(setting(names, *first), median_of(group, name)) for names, group in groups(rows, by)]


def _where(rows: pd.DataFrame, wanted: Mapping[str, list]) -> pd.DataFrame:
    inside = np.ones(len(rows), dtype=bool)
    for name, values in wanted.items():
        inside &= rows[name].isin(values).to_numpy()
    return rows.loc[inside]


def growth_of_ratio(arm: str, other: str, caches: Iterable[str]) -> Measure:
    """Slope in rho of log(error of arm / error of other) at one size, on the same caches.

    The mean over sizes up to n/4, the median over caches. Errors saturate at 2, so a slope taken from large ones is too
    small if anything.
    """
    families = list(caches)

    def measure(results: Results) -> list[Measured]:
        rows = results.rows("rho_rate")
        pairs = paired_log_ratio(rows.loc[column(rows, "size") <= column(rows, "n") / 4], arm, other)
        return [
            Measured(names["cache"], median(_slopes_by_cache(group)))
            for names, group in groups(pairs, ["cache"])
            if names["cache"] in families and len(distinct(group, "rho")) > 1
        ]

    return measure


def _slopes_by_cache(pairs: pd.DataFrame) -> np.ndarray:
    """Least-squares slope of log_ratio in rho at each size, averaged over the sizes of a cache."""
    lines = [
        {**names, "slope": np.polyfit(column(group, "rho"), column(group, "log_ratio"), 1)[0]}
        for names, group in groups(pairs, [*SYNTHETIC, "n", "d", "size"])
        if len(distinct(group, "rho")) > 1
    ]
    return column(means(pd.DataFrame(lines), SYNTHETIC, ["slope"]), "slope")
