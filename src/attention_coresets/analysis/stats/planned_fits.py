"""Carries out the plans of `plan` on a result table: one record a law, ready for JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict

import numpy as np
import pandas as pd

from attention_coresets.analysis.stats.bootstrap import bootstrap
from attention_coresets.analysis.stats.frames import distinct
from attention_coresets.analysis.stats.held_out import leave_largest_out
from attention_coresets.analysis.stats.plan import CLUSTERS, EPSILON_MAX, FitPlan, epsilon_grid, regime_rows
from attention_coresets.analysis.stats.power_law import errors_as_intervals, fit
from attention_coresets.analysis.stats.sizes import size_table

COLUMNS = (
    "experiment",
    "arm",
    "cache",
    *CLUSTERS,
    "n",
    "d",
    "rho",
    "size",
    "error",
    "exponent",
    "total_sensitivity",
    "cache_params",
    "dtype",
)
MOST_CENSORED = 0.5  # share of a law's rows: with more, its slope hangs on the tails of an assumed normal law
_FLOOR = {"float64": 1e-12, "float32": 1e-5}  # what the search for the worst query resolves


def fit_all(table: pd.DataFrame, plans: Iterable[FitPlan], *, seed: int = 0, replicates: int = 400) -> list[dict]:
    """A record for every law of every plan: status "fitted", "not fitted" (with the reason) or "not run".

    A record holds name, experiment, response, the columns held fixed, coefficients (value, low, high: 95 %), scale,
    spans (the ends of n, d and rho where they vary), rows, caches, clusters, shares censored left and right, regime,
    epsilons, aicc and held_out. Raises ValueError where `table` lacks a column. A pure function of its arguments:
    `seed` drives the resampling.
    """
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(f"the table lacks the columns {missing}; collect it again")
    records = []
    for plan in plans:
        rows = _with_derived(_in_window(table.loc[table["experiment"] == plan.experiment], plan))
        if len(rows) == 0:
            records.append(_head(plan) | {"status": "not run"})
        for _, group in rows.groupby(list(plan.each), sort=True, dropna=False):
            if not _reaches_both_ends(group, plan):
                continue
            fixed = {name: _plain(group[name].iloc[0]) for name in plan.each}
            records.append(_head(plan) | {"fixed": fixed} | _law(plan, group, seed, replicates))
    return records


def law_rows(plan: FitPlan, group: pd.DataFrame) -> pd.DataFrame:
    """The intervals a plan fits, from the rows of one combination of its `each` columns; features as columns."""
    group = group.assign(error=group[plan.error])
    floor = max(_FLOOR.get(name, max(_FLOOR.values())) for name in group["dtype"].unique())
    if plan.response == "error":
        rows = errors_as_intervals(group.loc[regime_rows(group, plan.regime)], floor, EPSILON_MAX)
        return rows.assign(log_inv_size=-np.log(rows["size"]))
    epsilons = epsilon_grid(group, plan.epsilons, plan.regime, floor)
    by = ["n", "d", "rho", "variant", "exponent", "log_n", "log_d", "log_t", *plan.clusters]
    minimum = plan.regime.min_per_dimension * group["d"].to_numpy()
    rows = size_table(group, epsilons, by, max_size=plan.regime.max_fraction, min_size=minimum)
    return rows.assign(log_inv_epsilon=-np.log(rows["epsilon"]))


def _law(plan: FitPlan, group: pd.DataFrame, seed: int, replicates: int) -> dict:
    """The fitted part of a record; data that cannot carry the law is a result too, with its reason."""
    features = dict(plan.features)
    try:
        rows = law_rows(plan, group)
        law = fit(rows, features, clusters=plan.clusters)
        if law.left + law.right > MOST_CENSORED:
            share = f"{law.left + law.right:.0%} of the sizes lie below or above those measured"
            return {"status": "not fitted", "reason": f"{share}; measure more sizes"}
        ends = bootstrap(rows, features, np.random.default_rng(seed), clusters=plan.clusters, replicates=replicates)
    except ValueError as reason:
        return {"status": "not fitted", "reason": str(reason)}
    coefficients = {
        name: {"value": value, "low": ends[name][0], "high": ends[name][1]} for name, value in law.coefficients.items()
    }
    return {
        "status": "fitted",
        "coefficients": coefficients,
        "scale": law.scale,
        "spans": {name: [x[0], x[-1]] for name in ("n", "d", "rho") if len(x := distinct(rows, name)) > 1},
        "rows": law.n,
        "caches": int(rows.groupby(["n", "d", "variant", *plan.clusters]).ngroups),
        "clusters": law.clusters,
        "censored_left": law.left,
        "censored_right": law.right,
        "epsilons": sorted(rows["epsilon"].unique().tolist()) if plan.response == "size" else None,
        "aicc": law.aicc if np.isfinite(law.aicc) else None,  # too few rows for it
        "held_out": _held_out(plan, rows, features),
    }


def _held_out(plan: FitPlan, rows: pd.DataFrame, features: dict[str, str]) -> dict:
    try:
        return asdict(leave_largest_out(rows, features, plan.held_out, clusters=plan.clusters))
    except ValueError as reason:
        return {"column": plan.held_out, "reason": str(reason)}


def _head(plan: FitPlan) -> dict:
    head = {"name": plan.name, "experiment": plan.experiment, "response": plan.response}
    window = {} if plan.window is None else {"window": list(plan.window)}
    return head | {"features": dict(plan.features), "regime": asdict(plan.regime)} | window


def _in_window(rows: pd.DataFrame, plan: FitPlan) -> pd.DataFrame:
    if plan.window is None:
        return rows
    name, low, high = plan.window
    return rows.loc[rows[name].between(low, high)]


def _reaches_both_ends(group: pd.DataFrame, plan: FitPlan) -> bool:
    return plan.window is None or {*plan.window[1:]} <= set(group[plan.window[0]])


def _with_derived(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        log_n=np.log(rows["n"].astype(float)),
        log_d=np.log(rows["d"].astype(float)),
        log_t=np.log(rows["total_sensitivity"].astype(float)),
        variant=[variant(text) for text in rows["cache_params"]],
    )


def variant(cache_params: str) -> str:
    """The parameters of a cache other than those with a column of their own, which fits vary."""
    params = {k: v for k, v in json.loads(cache_params).items() if k not in ("n", "d", "rho")}
    return json.dumps(params, sort_keys=True)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
