"""The antipodal pair against e^{2 rho}: sizes over the floor of unweighted subsets, and their rate in rho."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured, least
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.bootstrap import bootstrap
from attention_coresets.analysis.stats.crossings import crossings
from attention_coresets.analysis.stats.estimates import NOTHING, SYNTHETIC, Estimate
from attention_coresets.analysis.stats.frames import column
from attention_coresets.analysis.stats.power_law import fit
from attention_coresets.analysis.stats.sizes import INTERVAL, size_table
from attention_coresets.analysis.topics.hard_instances.signed_clusters import ROUNDING
from attention_coresets.theory import antipodal_minimum_size

ANTIPODAL = "lower_bound_antipodal"
EPSILONS = (0.1, 0.2, 0.4)  # errors at which sizes are read


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
        return least(rows.assign(ratio=column(rows, "size") / column(rows, "floor")), "ratio")

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
