"""Constants of caches sought to be hard: the error of what answers them over sqrt(d) e^x / m."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured, exactly, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import NOTHING, Estimate, clustered_mean
from attention_coresets.analysis.stats.frames import column, distinct, groups

EXPERIMENT = "hardness_search"
BEST = "optimum_tilted"
OWN, RHO = "own", "rho"  # what a search raised: the constant with the exponent of its model's theorem, or with rho
SEARCH = ["cache", "seed", "head"]  # what names one search among those of a cell


def searches(results: Results) -> pd.DataFrame:
    """The rows of all searches with three constants, and `sought`, the one that the search raised.

    constant_own = m err / (sqrt(d) e^x) with x = rho sigma or, unweighted, rho R; constant_rho with x = rho; start_rho
    that of the cache that the search began with.
    """
    rows = results.rows(EXPERIMENT)
    if rows.empty:
        return rows
    unit = column(rows, "size") / np.sqrt(column(rows, "d"))
    error, rho = column(rows, "error"), column(rows, "rho")
    own, plain = unit * error * np.exp(-column(rows, "exponent")), unit * error * np.exp(-rho)
    start = unit * column(rows, "start_error") * np.exp(-rho)
    sought = np.where(rows["objective"] == OWN, own, plain)
    return rows.assign(constant_own=own, constant_rho=plain, start_rho=start, sought=sought)


def simplex_constant(d: int) -> float:
    """The constant of the hardest caches known as rho sigma -> 0, d >= 2: equal keys, an odd number of tokens with each
    of the vertices of a regular simplex as its value.

    Whatever m = n/2 of them are kept, the error times m is half of a balanced sum of signs of the values, which are odd
    numbers a_i of each vertex v_i, of sum 0. k vertices span k - 1 dimensions and |sum a_i v_i|^2 = sum a_i^2 k/(k-1),
    at least k^2/(k-1). With k = d (d + 1 for odd d, as n = 2m is even) that makes sqrt(d/(d-1))/2, or (d+1)/(2d).
    """
    return (d + 1) / (2 * d) if d % 2 else np.sqrt(d / (d - 1)) / 2


def largest() -> Measure:
    """The largest constant of the best tilted subset, with e^{rho sigma}, over `simplex_constant`, dimension by
    dimension: a statement about the caches found and no others."""

    def measure(results: Results) -> list[Measured]:
        rows = searches(results)
        rows = rows.loc[rows["arm"] == BEST]
        found = []
        for names, group in groups(rows, ["d"]):
            over = column(group, "constant_own").max() / simplex_constant(int(names["d"]))
            found.append(Measured(setting(names), exactly(float(over), len(group)), unit="searches"))
        return found

    return measure


def found(n: int, d: int, rho: float) -> Measure:
    """The largest constant of the best tilted subset with e^rho, of searches that raised it."""

    def measure(results: Results) -> list[Measured]:
        rows = searches(results)
        if rows.empty:
            return []
        rows = rows.loc[(rows["arm"] == BEST) & (rows["objective"] == RHO)]
        rows = rows.loc[(rows["n"] == n) & (rows["d"] == d) & (rows["rho"] == rho)]
        if rows.empty:
            return []
        value = exactly(float(column(rows, "constant_rho").max()), len(rows))
        return [Measured(setting({"n": n, "d": d, "rho": rho}), value, unit="searches")]

    return measure


def trend(rows: pd.DataFrame) -> Estimate:
    """The slope of the log of the constant sought in log n, the mean over searches; NOTHING of one n.

    A search is the start family, seed and head: the same at every n, though not the same cache.
    """
    if len(distinct(rows, "n")) < 2:
        return NOTHING
    slopes = [
        np.polyfit(np.log(column(group, "n")), np.log(column(group, "sought")), 1)[0]
        for _, group in groups(rows, SEARCH)
        if len(distinct(group, "n")) > 1
    ]
    return clustered_mean(np.array(slopes), np.arange(len(slopes)))
