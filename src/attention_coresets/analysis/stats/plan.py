"""What a law to fit is, over which rows and at which epsilons: fixed before any result is seen.

**Regime** (theory: the rates hold only for n well above m and m well above the kernel's rank): sizes from
``min_per_dimension * d`` to ``max_fraction * n``; a size outside is censored, not dropped. Errors above `EPSILON_MAX`
are saturated (no error exceeds 2) and only counted as above it.

**Epsilons** come from the design, one grid for all values of the covariate that is fitted, since a grid that moved with
the covariate would make it collinear with epsilon: see `epsilon_grid`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from attention_coresets.analysis.stats.sizes import within_regime

EPSILON_MAX = 0.5
Window = tuple[str, float, float]  # a column, the least and the largest value
CLUSTERS = ("seed", "head")  # one seed and head draws related caches at every n, d and rho: resampled together


@dataclass(frozen=True)
class Regime:
    """Sizes inside which a law is fitted."""

    max_fraction: float = 0.25
    min_per_dimension: float = 2.0


@dataclass(frozen=True)
class EpsilonRule:
    """Parameters of `epsilon_grid`: at most `max_censored` of the (configuration, epsilon) pairs unresolved, but at
    least `least` epsilons, each `ratio` above the one before.

    The ratio is no power of sqrt(2), by which the sizes grow: with such a ratio all epsilons lie at the same place
    between two sizes where gamma is 1 or 2, so that rows of little noise say nothing finer than the sizes' grid, and
    gamma locks in there. (It was sqrt(2) once, with least = 4.)"""

    ratio: float = 1.2
    max_censored: float = 0.3
    least: int = 6


@dataclass(frozen=True)
class FitPlan:
    """One law: log `response` ("size" or "error") on `features` = (symbol, column), fitted for `each` combination of
    columns apart (those are held fixed in a fit); the largest `held_out` is left out for the prediction score. With
    `window` only the rows inside it are looked at, and only where both its ends were run: a slope of a part of the
    range. error: the column whose size or value is fitted. clusters: columns whose values together name what is
    resampled whole.

    Columns beyond the table's: log_n, log_d, log_t (of total_sensitivity), log_inv_epsilon, log_inv_size, and variant
    (the cache's parameters other than n, d and rho). On the error side the symbols end in _error, decay is gamma' in
    err ~ m^-gamma', and slope that of log err in rho.
    """

    name: str
    experiment: str
    response: str
    features: tuple[tuple[str, str], ...]
    each: tuple[str, ...]
    held_out: str
    regime: Regime = Regime()
    epsilons: EpsilonRule = EpsilonRule()
    window: Window | None = None
    error: str = "error"
    clusters: tuple[str, ...] = CLUSTERS


ARM = ("arm", "cache", "variant")  # what every fit holds fixed
DECAY = ("decay", "log_inv_size")


def epsilon_grid(table: pd.DataFrame, rule: EpsilonRule, regime: Regime, floor: float = 0.0) -> Float[np.ndarray, "e"]:
    """The epsilons of one fit: points ``ratio**k`` of a fixed lattice in (`floor`, EPSILON_MAX].

    A configuration (n, d, rho, variant) resolves epsilon when its median error over caches is at most epsilon at its
    largest size of the regime and above it at the smallest. Taken are the epsilons that most configurations resolve:
    the share asked for is lowered for as long as at most `max_censored` of all pairs stay unresolved, and further only
    where fewer than `least` epsilons would be left. Medians at the two end sizes alone enter, never where a curve lies
    between. Raises ValueError where no configuration resolves two epsilons.
    """
    at_largest, at_smallest = _end_medians(table.loc[regime_rows(table, regime)])
    low, high = np.log(at_largest.min()), np.log(min(EPSILON_MAX, at_smallest.max()))
    step = np.log(rule.ratio)
    lattice = rule.ratio ** np.arange(
        np.ceil(max(low, np.log(floor or 1e-300)) / step), np.floor(high / step + 1e-9) + 1
    )
    resolved = (at_largest <= lattice[:, None]) & (lattice[:, None] < at_smallest)
    chosen = _most_resolved(resolved.mean(axis=1), rule)
    if chosen.sum() < 2:
        raise ValueError(f"{int(chosen.sum())} epsilons are resolved by the sizes measured; add sizes")
    return lattice[chosen]


def regime_rows(table: pd.DataFrame, regime: Regime) -> np.ndarray:
    """Which rows of a result table lie inside the regime."""
    return within_regime(table, regime.max_fraction, regime.min_per_dimension * table["d"].to_numpy())


def _end_medians(inside: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Median error over caches at the largest and at the smallest size of each configuration."""
    keys = ["n", "d", "rho", "variant"]
    medians = inside.groupby([*keys, "size"])["error"].median().clip(lower=1e-300).reset_index("size")
    ends = medians.groupby(level=keys)["error"]
    return ends.last().to_numpy(dtype=float), ends.first().to_numpy(dtype=float)


def _most_resolved(share: np.ndarray, rule: EpsilonRule) -> np.ndarray:
    """Lowers the share asked for, whole levels at a time, within the limits of the rule."""
    chosen = np.zeros(len(share), dtype=bool)
    for level in np.unique(share[share > 0])[::-1]:
        wider = share >= level
        if chosen.sum() >= rule.least and 1 - share[wider].mean() > rule.max_censored:
            break
        chosen = wider
    return chosen
