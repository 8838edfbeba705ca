"""Fits of measured sizes (or errors) to power laws: log m = const + sum of coefficient * feature + noise.

Every row is an interval ``(lo, hi]`` for the response; lo = 0 and hi = inf are censored rows, lo == hi an exact one.
Censored rows enter through their probability: dropping or capping them biases the slopes. The noise is normal in the
logarithm, its scale estimated; the maximum is the only one (see `censored`). Rows of one cache are dependent, so
intervals come from resampling whole caches (see `bootstrap`), never from the curvature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from attention_coresets.analysis.stats.censored import Observations, Optimum, maximise

Features = Mapping[str, "str | np.ndarray | pd.Series"]
COLLINEAR = 1e-6  # smallest singular value of the standardised features, relative to the largest
UNDETERMINED = 30.0  # standard error, in noise scales a standard deviation of the feature, of rows that say nothing


@dataclass(frozen=True)
class Fit:
    """A fitted law. `coefficients` holds "const" and one value a feature, in the feature's own unit; `scale` is the
    standard deviation of log response about the law; `aicc` counts rows as independent, so it prefers the larger of
    two models too readily: confirm with `held_out.leave_largest_out`. `left`, `right`: shares of censored rows."""

    coefficients: dict[str, float]
    scale: float
    loglik: float
    aicc: float
    n: int
    clusters: int
    left: float
    right: float

    def predict(self, table: pd.DataFrame, features: Features) -> Float[np.ndarray, "rows"]:
        """The fitted mean of the log response at each row of `table`."""
        columns = _columns(table, features)
        mean = np.full(len(table), self.coefficients["const"])
        for name, x in columns.items():
            mean += self.coefficients[name] * x
        return mean


@dataclass(frozen=True)
class Problem:
    """The rows of a fit with standardised features, and the way back to the features' units."""

    names: tuple[str, ...]
    rows: Observations
    center: Float[np.ndarray, "features"]
    unit: Float[np.ndarray, "features"]
    cluster: Int[np.ndarray, "rows"]

    def coefficients(self, beta: Float[np.ndarray, "b p"]) -> Float[np.ndarray, "b p"]:
        """Constant and slopes in the features' units."""
        slopes = beta[:, 1:] / self.unit
        return np.c_[beta[:, 0] - slopes @ self.center, slopes]


def fit(intervals: pd.DataFrame, features: Features, *, clusters: str | Sequence[str] = ("seed", "head")) -> Fit:
    """Interval-censored maximum likelihood of log response on `features`.

    `intervals` has columns lo, hi (units of the response) and those of `clusters`, which together name a cache;
    `features` maps a coefficient's name to a column or to an array, one entry a row. Raises ValueError, naming the
    feature, where one is constant, is a combination of the others, or is left undetermined by the censoring; also on
    rows all censored, NaN, or lo > hi.
    """
    problem = prepare(intervals, features, clusters)
    return _summary(intervals, problem, solve(problem))


def errors_as_intervals(table: pd.DataFrame, floor: float, ceiling: float = np.inf) -> pd.DataFrame:
    """The rows of an error table as observations of the error, for a fit of log err instead of log m.

    Errors up to `floor` (what the search for the worst query resolves; exact zeros among them) are known only to be at
    most `floor`, those above `ceiling` (saturated) only to be above it: both are censored there. The other rows are
    exact, and where all are, the fit is ordinary least squares.
    """
    error = table["error"]
    if not (error.to_numpy() >= 0).all():
        raise ValueError("errors must be non-negative numbers; drop or recompute those cells")
    small, large = error <= floor, error > ceiling
    lo = error.mask(small, 0.0).mask(large, ceiling)
    return table.assign(lo=lo, hi=error.mask(small, floor).mask(large, np.inf))


def prepare(intervals: pd.DataFrame, features: Features, clusters: str | Sequence[str]) -> Problem:
    """Checks the rows and the features, and standardises the features: fits do not depend on their units."""
    lower, upper = log_bounds(intervals)
    columns = _columns(intervals, features)
    x = np.stack(list(columns.values()), axis=1) if columns else np.empty((len(intervals), 0))
    center, unit = x.mean(axis=0), x.std(axis=0)
    _check_features(tuple(columns), x, center, unit)
    keys = [clusters] if isinstance(clusters, str) else list(clusters)
    cluster = intervals.groupby(keys, dropna=False).ngroup().to_numpy()
    design = np.c_[np.ones(len(x)), (x - center) / unit]
    return Problem(tuple(columns), Observations(design, lower, upper), center, unit, cluster)


def solve(problem: Problem) -> Optimum:
    """The fit with every row counted once. Raises ValueError where censoring leaves a coefficient undetermined."""
    best = maximise(problem.rows, np.ones((1, len(problem.rows.lower))))
    loose = np.flatnonzero(best.spread[0] > UNDETERMINED)
    if len(loose) or not best.converged[0]:
        names = [("const", *problem.names)[i] for i in loose] or list(problem.names)
        raise ValueError(
            f"the censored rows leave {names} undetermined; measure more sizes or a narrower epsilon range"
        )
    return best


def _summary(intervals: pd.DataFrame, problem: Problem, best: Optimum) -> Fit:
    values = problem.coefficients(best.beta)[0]
    n, k, loglik = len(intervals), len(values) + 1, float(best.loglik[0])
    aicc = 2 * k - 2 * loglik + (2 * k * (k + 1) / (n - k - 1) if n > k + 1 else np.inf)
    return Fit(
        coefficients={name: float(v) for name, v in zip(("const", *problem.names), values, strict=True)},
        scale=float(best.scale[0]),
        loglik=loglik,
        aicc=float(aicc),
        n=n,
        clusters=len(np.unique(problem.cluster)),
        left=float(np.isinf(problem.rows.lower).mean()),
        right=float(np.isinf(problem.rows.upper).mean()),
    )


def log_bounds(intervals: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of lo and hi. Raises ValueError on what is no interval, and on rows all censored."""
    lo, hi = intervals["lo"].to_numpy(dtype=float), intervals["hi"].to_numpy(dtype=float)
    bad = ~((lo >= 0) & (hi > 0) & (lo <= hi) & (lo < np.inf) & ((lo > 0) | (hi < np.inf)))  # NaN is bad too
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise ValueError(f"row {i} is no interval: ({lo[i]}, {hi[i]}]; need 0 <= lo <= hi, one end finite")
    if ((lo == 0) | np.isinf(hi)).all():
        raise ValueError(f"all {len(lo)} rows are censored; choose epsilons that the measured sizes reach")
    with np.errstate(divide="ignore"):
        return np.log(lo), np.log(hi)


def _columns(intervals: pd.DataFrame, features: Features) -> dict[str, np.ndarray]:
    columns = {k: np.asarray(intervals[f] if isinstance(f, str) else f, dtype=float) for k, f in features.items()}
    for name, x in columns.items():
        if x.shape != (len(intervals),) or not np.isfinite(x).all():
            raise ValueError(f"feature {name!r} needs one finite number for each of the {len(intervals)} rows")
    return columns


def _check_features(
    names: tuple[str, ...], x: Shaped[np.ndarray, "rows p"], center: np.ndarray, unit: np.ndarray
) -> None:
    for name, mean, spread in zip(names, center, unit, strict=True):
        if spread <= 1e-9 * max(abs(mean), 1e-300):
            raise ValueError(f"feature {name!r} is constant ({mean:g}); vary it or leave it out")
    if not names:
        return
    _, singular, directions = np.linalg.svd((x - center) / unit, full_matrices=False)
    if singular[-1] < COLLINEAR * singular[0]:
        involved = [name for name, part in zip(names, directions[-1], strict=True) if abs(part) > 0.05]
        raise ValueError(f"features {involved} are collinear; vary them apart or leave one out")
