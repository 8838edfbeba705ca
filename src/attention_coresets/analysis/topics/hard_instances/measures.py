"""Measures of the hard instances: signed clusters against their bounds, the antipodal pair against e^{2 rho}."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured, exactly, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.bootstrap import bootstrap
from attention_coresets.analysis.stats.crossings import crossings
from attention_coresets.analysis.stats.estimates import NOTHING, SYNTHETIC, Estimate, median_of
from attention_coresets.analysis.stats.frames import column, groups
from attention_coresets.analysis.stats.power_law import fit
from attention_coresets.analysis.stats.sizes import INTERVAL, size_table
from attention_coresets.lower_bound import FLOORS
from attention_coresets.theory import antipodal_minimum_size, signed_clusters_floor

ROUNDING = 1e-5  # of measured errors, float32 included
EPSILONS = (0.1, 0.2, 0.4)  # errors at which the antipodal pair's sizes are read
ORTHONORMAL, RANDOM, ANTIPODAL = "lower_bound_orthonormal", "lower_bound_random", "lower_bound_antipodal"


def over_floor(results: Results, experiment: str = ORTHONORMAL) -> pd.DataFrame:
    """The rows of signed clusters with the columns clusters, fraction = m / n, and ratio = error / (A sqrt(d/2)).

    Of ORTHONORMAL those with clusters <= d, where bounds are proven; of RANDOM those with more, where A sqrt(d/2) is a
    unit and no floor.
    """
    rows = results.rows(experiment)
    rows = rows.assign(clusters=rows["n"] // rows["d"], fraction=column(rows, "size") / column(rows, "n"))
    orthonormal = rows["clusters"] <= rows["d"]
    rows = rows.loc[orthonormal if experiment == ORTHONORMAL else ~orthonormal]
    places = zip(rows["d"].tolist(), rows["clusters"].tolist(), rows["rho"].tolist(), strict=True)
    floors = np.array([signed_clusters_floor(d, clusters, rho) for d, clusters, rho in places], dtype=float)
    return rows.assign(ratio=column(rows, "error") / floors)


def over_bounds(results: Results) -> pd.DataFrame:
    """`over_floor` with bound = max(i, ii, iii, iv) of each row's own coreset and excess = error / bound, which theory
    keeps at 1 or more; rows whose bounds are all 0 are left out. A bound that was not computed is NaN, and so is its
    excess."""
    rows = over_floor(results)
    rows = rows.assign(bound=rows.reindex(columns=list(FLOORS)).max(axis=1, skipna=False))
    rows = rows.loc[~(rows["bound"] == 0)]
    return rows.assign(excess=column(rows, "error") / column(rows, "bound"))


def smallest_over_bounds() -> Measure:
    """The smallest error over max(i, ii, iii, iv) of all rows, whatever the arm and the size."""

    def measure(results: Results) -> list[Measured]:
        return _least(over_bounds(results), "excess")

    return measure


def smallest_over_floor() -> Measure:
    """The smallest error over A sqrt(d/2) of all rows with at most half the tokens, whatever the arm."""

    def measure(results: Results) -> list[Measured]:
        rows = over_floor(results)
        return _least(rows.loc[rows["fraction"] <= 0.5], "ratio")

    return measure


def _least(rows: pd.DataFrame, name: str) -> list[Measured]:
    if rows.empty:
        return []
    values = column(rows, name)
    where = setting(rows.iloc[int(values.argmin())].to_dict(), "arm")
    return [Measured(f"{where}, least of {len(rows)} rows", exactly(float(values.min()), len(rows)), unit="rows")]


def best_over_floor() -> Measure:
    """At m = n/2 the arm of the smallest median error over A sqrt(d/2), instance by instance.

    The arm is picked on the rows it is then measured on, and the interval is that arm's alone, without the luck of the
    pick: the value is too small if anything, which favours the claim that some arm is near the floor.
    """

    def measure(results: Results) -> list[Measured]:
        rows = over_floor(results)
        parts = []
        for names, instance in groups(rows.loc[rows["fraction"] == 0.5], ["n", "d", "rho"]):
            arms = {found["arm"]: median_of(group, "ratio") for found, group in groups(instance, ["arm"])}
            best = min(arms, key=lambda arm, found=arms: found[arm].value)
            parts.append(Measured(setting({"arm": best, **names}, "arm"), arms[best]))
        return parts

    return measure


def distinct_rules(rows: pd.DataFrame) -> int:
    """How many of the arms differ, rounding aside, in the error of some row; the others are one rule by two names."""
    wide = rows.pivot_table("error", ["cache_params", "rho", "size", "seed", "head"], "arm")
    arms = list(wide.to_numpy(dtype=float).T)
    same = (any(np.allclose(arm, x, rtol=ROUNDING, equal_nan=True) for x in arms[:i]) for i, arm in enumerate(arms))
    return len(arms) - sum(same)


def antipodal_rows(results: Results) -> pd.DataFrame:
    """The antipodal rows with values = keys, the instance of the proof."""
    rows = results.rows(ANTIPODAL)
    return rows.loc[[json.loads(text).get("values") == "keys" for text in rows["cache_params"]]]


def antipodal_floor(n: int, rho: float, epsilon: float) -> float:
    """Tokens that an unweighted subset of this instance needs for an error epsilon; 0 where nothing is claimed.

    The number of keys at +u is rounded, so that full attention there is not 0 but t = tanh(rho + log(n+ / n-) / 2); a
    subset's |tanh(rho + log(m+ / m-) / 2) - t| <= epsilon < 1 - |t| then needs a token at +u (without one the error is
    1 + t) and e^{2 rho} (1 - epsilon - t) / (1 + epsilon + t) at -u for each.
    """
    plus = round(n / (1 + math.exp(2 * rho)))
    t = math.tanh(rho + math.log(plus / (n - plus)) / 2)
    return antipodal_minimum_size(rho, epsilon + t) if epsilon < 1 - abs(t) - ROUNDING else 0.0


def smallest_over_antipodal_floor() -> Measure:
    """m over `antipodal_floor` at the measured error, the smallest of all unweighted rows that have a floor."""

    def measure(results: Results) -> list[Measured]:
        rows = antipodal_rows(results)
        rows = rows.loc[(rows["model"] == "unweighted") & (rows["size"] < rows["n"])]
        places = zip(rows["n"].tolist(), rows["rho"].tolist(), rows["error"].tolist(), strict=True)
        rows = rows.assign(floor=[antipodal_floor(*place) for place in places])
        rows = rows.loc[rows["floor"] > 0]
        return _least(rows.assign(ratio=column(rows, "size") / column(rows, "floor")), "ratio")

    return measure


def antipodal_sizes(results: Results, arm: str, by: Sequence[str] = SYNTHETIC) -> pd.DataFrame:
    """Size intervals at EPSILONS, all sizes admitted: on this instance what matters is m against e^{2 rho}, not n."""
    rows = antipodal_rows(results)
    rows = rows.loc[rows["arm"] == arm]
    return size_table(rows, EPSILONS, ["n", "d", "rho", *by], max_size=None) if len(rows) else rows


def antipodal_rate(arm: str) -> Measure:
    """Slope of log m(epsilon) in rho at fixed epsilon, sizes read off between grid points.

    On this instance caches hardly differ: all fall between the same two sizes, and resampled intervals would not show
    how coarse the grid is.
    """

    def measure(results: Results) -> list[Measured]:
        sizes = antipodal_sizes(results, arm)
        if sizes.empty:
            return []
        rows = antipodal_rows(results)
        sizes = crossings(sizes, rows.loc[rows["arm"] == arm], ["n", "d", "rho", *SYNTHETIC])
        inside = (sizes["status"] == INTERVAL).to_numpy()
        points = column(sizes, "middle")
        sizes = sizes.assign(
            lo=np.where(inside, points, column(sizes, "lo")), hi=np.where(inside, points, column(sizes, "hi"))
        )
        features = {"rho": "rho", "gamma": -np.log(column(sizes, "epsilon"))}
        rho = column(sizes, "rho")
        label = f"ρ = {rho.min():g} to {rho.max():g}, ε = {', '.join(f'{e:g}' for e in EPSILONS)}"
        try:
            value = fit(sizes, features).coefficients["rho"]
            low, high = bootstrap(sizes, features, np.random.default_rng(0))["rho"]
        except ValueError as reason:
            return [Measured(label, NOTHING, str(reason))]
        return [Measured(label, Estimate(value, low, high, len(sizes[list(SYNTHETIC)].drop_duplicates())))]

    return measure
