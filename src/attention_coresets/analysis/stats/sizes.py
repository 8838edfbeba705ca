"""From worst-case errors on a grid of sizes to the interval that holds the size needed for an error epsilon.

The size needed is the smallest m with P(err <= epsilon) >= 1 - delta over replicates. On a grid it is known only up to
an interval ``(lo, hi]``, and measured curves are not monotone, so both ends are fixed from above: ``lo`` is the largest
grid size that fails, ``hi`` the next one, from which every larger grid size succeeds. A size that is adequate by luck
below one that is not therefore does not count.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

LEFT, INTERVAL, RIGHT = "left", "interval", "right"


def size_table(
    table: pd.DataFrame,
    epsilons: Sequence[float] | Float[np.ndarray, "epsilons"],
    by: Sequence[str],
    *,
    delta: float = 0.5,
    max_size: float | None = 0.25,
    min_size: Shaped[np.ndarray, "rows"] | int = 1,
) -> pd.DataFrame:
    """Size intervals of every group of `by` at every epsilon.

    `table` has columns size, error, n (if `max_size` is given) and those of `by`; the rows of one group at one size are
    its replicates, as many at each size. Sizes above ``max_size * n`` or below `min_size` (a number, or one a row) are
    dropped first: what is not reached inside that regime is censored. With one replicate a group delta has no effect.
    Returns the columns of `by` with epsilon, lo, hi, status and replicates, one row a (group, epsilon). Status
    "interval": lo fails, hi and all above succeed. "left": the smallest size already succeeds, with all above it,
    lo = 0. "right": the largest size fails, hi = inf.
    Raises ValueError on NaN errors, epsilon <= 0, delta outside [0, 1), and replicates that differ from size to size.
    Cost O(rows * epsilons).
    """
    levels = np.asarray(epsilons, dtype=float)
    _check(table, levels, delta)
    inside = within_regime(table, max_size, min_size)
    outcome = _quantile_errors(table.loc[inside], list(by), delta)
    _check_groups(table, outcome, list(by))
    start = np.flatnonzero(np.r_[True, np.diff(outcome["group"]) > 0])
    stop = np.r_[start[1:], len(outcome)]
    row = np.arange(len(outcome))[:, None]
    failing = np.where(outcome["error"].to_numpy()[:, None] > levels, row, -1)  # [rows, epsilons]
    last = np.maximum.reduceat(failing, start, axis=0)  # [groups, epsilons], -1: none fails
    grid = np.r_[outcome["size"].to_numpy(dtype=float), np.nan]
    lo = np.where(last < 0, 0.0, grid[last])
    hi = np.where(last < 0, grid[start][:, None], np.where(last + 1 == stop[:, None], np.inf, grid[last + 1]))
    out = outcome.iloc[np.repeat(start, len(levels))][[*by, "replicates"]].reset_index(drop=True)
    status = np.where(lo == 0, LEFT, np.where(np.isinf(hi), RIGHT, INTERVAL))
    return out.assign(epsilon=np.tile(levels, len(start)), lo=lo.ravel(), hi=hi.ravel(), status=status.ravel())


def within_regime(
    table: pd.DataFrame, max_size: float | None, min_size: Shaped[np.ndarray, "rows"] | int = 1
) -> Shaped[np.ndarray, "rows"]:
    """Which rows have min_size <= size <= max_size * n: the rates hold only where n is well above m."""
    sizes = table["size"].to_numpy()
    upper = np.inf if max_size is None else max_size * table["n"].to_numpy()
    return (sizes <= upper) & (sizes >= min_size)


def _quantile_errors(table: pd.DataFrame, by: list[str], delta: float) -> pd.DataFrame:
    """One row a (group, size), sorted: the order statistic of the errors that epsilon has to reach."""
    group = table.groupby(by, dropna=False, sort=True).ngroup() if by else pd.Series(0, index=table.index)
    ordered = table[[*by, "size", "error"]].assign(group=group).sort_values(["group", "size", "error"], kind="stable")
    keys = ordered.groupby(["group", "size"])
    # P(err <= epsilon) >= 1 - delta exactly when the ceil((1 - delta) r)-th smallest of r errors is <= epsilon
    count = keys["error"].transform("size").to_numpy()
    wanted = np.maximum(np.ceil((1 - delta) * count - 1e-9), 1) - 1
    return ordered.assign(replicates=count).loc[keys.cumcount().to_numpy() == wanted].reset_index(drop=True)


def _check(table: pd.DataFrame, levels: np.ndarray, delta: float) -> None:
    if table.empty:
        raise ValueError("no rows to take sizes from")
    if not ((levels > 0) & np.isfinite(levels)).all():
        raise ValueError(f"epsilon must be positive and finite, got {levels.tolist()}")
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be in [0, 1), got {delta}")
    if missing := int(np.isnan(table["error"].to_numpy(dtype=float)).sum()):
        raise ValueError(f"{missing} errors are NaN; drop or recompute those cells")


def _check_groups(table: pd.DataFrame, outcome: pd.DataFrame, by: list[str]) -> None:
    group, count = outcome["group"].to_numpy(), outcome["replicates"].to_numpy()
    ragged = np.flatnonzero((np.diff(group) == 0) & (np.diff(count) != 0))
    if len(ragged):
        name = outcome[by].iloc[ragged[0]].to_dict()
        raise ValueError(f"sizes of group {name} have different numbers of replicates; finish or repair the sweep")
    groups = table.groupby(by, dropna=False).ngroups if by else 1
    if len(np.unique(group)) < groups:
        raise ValueError("a group has no size inside the regime; measure smaller sizes or a larger n")
