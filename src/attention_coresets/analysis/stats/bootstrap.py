"""Confidence intervals for fitted laws by resampling whole caches.

Rows of one cache share its luck, so caches, not rows, are drawn with replacement. With k caches the plain percentile
interval is too short (its variance is (k-1)/k of the right one, and it uses the normal where t is due), and k is often
ten: the distances from the estimate are therefore stretched by t_{k-1} sqrt(k/(k-1)) / z, which tends to 1 (the
correction behind Hesterberg's expanded percentile, 2015). tests/test_fits.py measures the coverage.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import norm, t

from attention_coresets.analysis.stats.censored import maximise
from attention_coresets.analysis.stats.power_law import UNDETERMINED, Features, prepare, solve

Derived = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]  # of coefficients, by name
LOST = 0.05  # share of resamples that may leave a coefficient undetermined


def bootstrap(
    intervals: pd.DataFrame,
    features: Features,
    rng: np.random.Generator,
    *,
    clusters: str | Sequence[str] = ("seed", "head"),
    replicates: int = 400,
    level: float = 0.95,
    derived: Derived | None = None,
) -> dict[str, tuple[float, float]]:
    """(low, high) of each coefficient of `fit` at `level`, from refits on `replicates` resamples of the clusters; or of
    what `derived` makes of them, arrays in and out.

    Refits start at the estimate and run together: about a second for 400 refits of 1000 rows. Raises ValueError as
    `fit` does, with fewer than 3 clusters, and where over 5 % of the resamples leave a coefficient undetermined.
    """
    problem = prepare(intervals, features, clusters)
    best = solve(problem)
    k = int(problem.cluster.max()) + 1
    if k < 3:
        raise ValueError(f"{k} caches cannot be resampled; measure at least 3 seeds or heads")
    counts = rng.multinomial(k, np.full(k, 1 / k), size=replicates)  # [replicates, clusters]
    refits = maximise(problem.rows, counts[:, problem.cluster].astype(float), (best.beta[0], float(best.scale[0])))
    kept = refits.converged & (refits.spread <= UNDETERMINED).all(axis=1)
    if kept.mean() < 1 - LOST:
        raise ValueError(f"{(~kept).sum()} of {replicates} resamples leave {list(problem.names)} undetermined")
    drawn = problem.coefficients(np.concatenate([best.beta, refits.beta[kept]]))
    values = dict(zip(("const", *problem.names), drawn.T, strict=True))
    return {name: _ends(x[0], x[1:], stretch(k, level), level) for name, x in (derived or dict)(values).items()}


def _ends(value: float, drawn: Float[np.ndarray, "resamples"], wider: float, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = value + wider * (np.quantile(drawn, [tail, 1 - tail]) - value)
    return float(low), float(high)


def stretch(clusters: int, level: float) -> float:
    """How much wider than the percentile interval an interval from few clusters has to be."""
    tail = (1 + level) / 2
    return float(t.ppf(tail, clusters - 1) / norm.ppf(tail) * np.sqrt(clusters / (clusters - 1)))
