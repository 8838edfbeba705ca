"""Signed clusters against the bounds proven for them: errors over floors."""

import math

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured, least, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import median_of
from attention_coresets.analysis.stats.frames import column, groups
from attention_coresets.lower_bound import FLOORS, any_weights_floor, equal_weights_floor

ROUNDING = 1e-5  # of measured errors, float32 included
ORTHONORMAL, RANDOM = "lower_bound_orthonormal", "lower_bound_random"


def over_floor(results: Results, experiment: str = ORTHONORMAL) -> pd.DataFrame:
    """The rows of signed clusters with the columns clusters, fraction = m / n, and ratio = error / (A sqrt(d/2)).

    Of ORTHONORMAL those with clusters <= d, where bounds are proven; of RANDOM those with more, where A sqrt(d/2) is a
    unit and no floor. It is `equal_weights_floor` at m = n/2 over sqrt 2.
    """
    rows = results.rows(experiment)
    rows = rows.assign(clusters=rows["n"] // rows["d"], fraction=column(rows, "size") / column(rows, "n"))
    orthonormal = rows["clusters"] <= rows["d"]
    rows = rows.loc[orthonormal if experiment == ORTHONORMAL else ~orthonormal]
    places = zip(*(rows[name].tolist() for name in ("d", "clusters", "n", "rho")), strict=True)
    units = [equal_weights_floor(d, clusters, n // 2, rho) / math.sqrt(2) for d, clusters, n, rho in places]
    return rows.assign(ratio=column(rows, "error") / np.array(units, dtype=float))


def over_bounds(results: Results) -> pd.DataFrame:
    """`over_floor` with bound = max(i, ii, iv, v) of each row's own coreset and excess = error / bound, which theory
    keeps at 1 or more; rows whose bounds are all 0 (m = n) are left out. A bound that was not computed is NaN, and so
    is its excess. (v) needs no weights: it is computed here, so that rows older than it have it too."""
    rows = over_floor(results)
    places = zip(*(rows[name].tolist() for name in ("d", "clusters", "size", "rho")), strict=True)
    rows = rows.assign(floor_v=np.array([any_weights_floor(*place) for place in places], dtype=float))
    rows = rows.assign(bound=rows.reindex(columns=list(FLOORS)).max(axis=1, skipna=False))
    rows = rows.loc[~(rows["bound"] == 0)]
    return rows.assign(excess=column(rows, "error") / column(rows, "bound"))


def smallest_over_bounds() -> Measure:
    """The smallest error over max(i, ii, iv, v) of all rows, whatever the arm and the size."""

    def measure(results: Results) -> list[Measured]:
        return least(over_bounds(results), "excess")

    return measure


def smallest_over_floor() -> Measure:
    """The smallest error over A sqrt(d/2) of all rows with at most half the tokens, whatever the arm."""

    def measure(results: Results) -> list[Measured]:
        rows = over_floor(results)
        return least(rows.loc[rows["fraction"] <= 0.5], "ratio")

    return measure


def at_half(results: Results) -> pd.DataFrame:
    """`over_floor` at m = n/2."""
    rows = over_floor(results)
    return rows.loc[rows["fraction"] == 0.5]


def best_over_floor() -> Measure:
    """At m = n/2 the arm of the smallest median error over A sqrt(d/2), instance by instance: 1 or more for equal
    cluster weights, which all arms have there.

    The arm is picked on the rows it is then measured on, and the interval is that arm's alone, without the luck of the
    pick: the value is too small if anything, which favours the claim that some arm is near the floor.
    """

    def measure(results: Results) -> list[Measured]:
        parts = []
        for names, instance in groups(at_half(results), ["n", "d", "rho"]):
            arms = {found["arm"]: median_of(group, "ratio", least=1.0) for found, group in groups(instance, ["arm"])}
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
