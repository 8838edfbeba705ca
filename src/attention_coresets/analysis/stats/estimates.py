"""Medians and means over caches with bootstrap intervals; arms are compared on the same caches, pair by pair."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import t

from attention_coresets.analysis.stats.bootstrap import stretch
from attention_coresets.analysis.stats.frames import column, distinct, means, medians

SYNTHETIC = ("seed", "head")  # what names one cache among those of a family, n and d
CACHE = ("cache", "cache_params", "n", "d", *SYNTHETIC)  # what names one among all
LEAST = 3  # caches below which no interval is given
_REPLICATES = 2000
_STREAM = 1979  # of the resamples: apart from those that draw data


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over `caches` caches (or what else `Measured.unit` names); the ends are NaN where
    there are too few for one.

    `logarithmic`: the interval was made of logarithms, and is made wider there. `least`: no value is below it, proven.
    `exact`: nothing is estimated, and the interval is the value itself.
    """

    value: float
    low: float
    high: float
    caches: int
    logarithmic: bool = False
    least: float = -np.inf
    exact: bool = False

    def exp(self) -> "Estimate":
        """The estimate of exp(x) from that of x."""
        value, low, high = np.exp([self.value, self.low, self.high]).tolist()
        return Estimate(value, low, high, self.caches, logarithmic=True)

    def at_least(self, least: float) -> "Estimate":
        """The part of the interval that is not below `least`, which no true value is: the coverage stays the same. A
        value below it by rounding is left as it is."""
        low, high = (np.fmax(end, least) if np.isfinite(end) else end for end in (self.low, self.high))
        return replace(self, low=float(low), high=float(high), least=least)

    def simultaneous(self, claims: int) -> "Estimate":
        """The interval at level 1 - 0.05 / claims (Bonferroni), from that at 95 %: its distances from the value times
        the ratio of Student's quantiles, with a degree of freedom less than caches, as in `bootstrap.stretch`.

        ValueError for fewer than one claim. Of an estimate that is exact or has no interval: itself.
        """
        if claims < 1:
            raise ValueError(f"an interval is simultaneous for at least one claim, not {claims}")
        if self.exact or np.isnan(self.low) or self.low == self.high:
            return self
        ratio = float(t.ppf(1 - 0.025 / claims, self.caches - 1) / t.ppf(0.975, self.caches - 1))
        value, low, high = np.log([self.value, self.low, self.high]) if self.logarithmic else self._ends()
        ends = value + ratio * (np.array([low, high]) - value)
        low, high = (np.exp(ends) if self.logarithmic else ends).tolist()
        wider = replace(self, low=low, high=high)
        return wider if np.isinf(self.least) else wider.at_least(self.least)

    def _ends(self) -> tuple[float, float, float]:
        return self.value, self.low, self.high


NOTHING = Estimate(np.nan, np.nan, np.nan, 0)


def median(
    values: Float[np.ndarray, "values"],
    clusters: Int[np.ndarray, "values"] | None = None,
    *,
    positive: bool = False,
    level: float = 0.95,
) -> Estimate:
    """The median over caches, one value a cache, with the percentile interval of 2000 resamples, its distances from the
    median made longer for few caches (`bootstrap.stretch`): of three, plain percentiles are the least and the largest
    value, which hold the true median with probability 0.75. They may leave the range of the values. `clusters`: values
    of one label are resampled together, and `caches` is the number of labels. `positive`: of a quantity that cannot be
    negative; the distances are those of logarithms, where no value is 0, so that the ends are positive too.

    The resamples are the same for all medians of as many values. Seeded by the values, as they once were, intervals of
    numbers alike up to rounding differed by the chance of the resampling.
    """
    if len(values) == 0 or np.isnan(values).any():
        raise ValueError("a median needs at least one value and no NaN")
    members = np.sort(values)[:, None] if clusters is None else _members(values, clusters)
    k, value = len(members), float(np.median(values))
    if k < LEAST:
        return Estimate(value, np.nan, np.nan, k)
    rng = np.random.default_rng([_STREAM, k])
    middle = np.nanmedian if np.isnan(members).any() else np.median  # alike, and the other many times as fast
    drawn = middle(members[rng.integers(k, size=(_REPLICATES, k))].reshape(_REPLICATES, -1), axis=1)
    if positive and values.min() > 0:
        return stretched(float(np.log(value)), np.log(drawn), k, level).exp()
    return stretched(value, drawn, k, level)


def _members(
    values: Float[np.ndarray, "values"], clusters: Int[np.ndarray, "values"]
) -> Float[np.ndarray, "clusters most"]:
    """The values of each cluster, a row each, filled up with NaN."""
    rows = [values[clusters == label] for label in np.unique(clusters)]
    most = max(len(row) for row in rows)
    return np.array([np.pad(row, (0, most - len(row)), constant_values=np.nan) for row in rows])


def clustered_mean(
    values: Float[np.ndarray, "values"], clusters: Int[np.ndarray, "values"], *, level: float = 0.95
) -> Estimate:
    """The mean over all values, with the percentile interval of 2000 resamples of whole clusters (values of one
    cluster have the same label), made wider for few of them (`bootstrap.stretch`); `caches` is their number.

    The resamples are the same for all means of as many clusters, as for `median`.
    """
    if len(values) == 0 or np.isnan(values).any():
        raise ValueError("a mean needs at least one value and no NaN")
    labels = np.unique(clusters, return_inverse=True)[1]
    sums, counts = np.bincount(labels, weights=values), np.bincount(labels)
    k, value = len(sums), float(values.mean())
    if k < LEAST:
        return Estimate(value, np.nan, np.nan, k)
    drawn = _resamples(k)
    return stretched(value, drawn @ sums / (drawn @ counts), k, level)


@lru_cache(maxsize=16)
def _resamples(k: int) -> Int[np.ndarray, "replicates k"]:
    """How often each of k clusters is drawn; a report asks for the same few k thousands of times."""
    drawn = np.random.default_rng([_STREAM, k]).multinomial(k, np.full(k, 1 / k), size=_REPLICATES)
    drawn.flags.writeable = False
    return drawn


def stretched(value: float, drawn: Float[np.ndarray, "replicates"], clusters: int, level: float = 0.95) -> Estimate:
    """The estimate with the percentile interval of its resamples, made wider for few clusters."""
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    low, high = value + stretch(clusters, level) * (ends - value)
    return Estimate(value, float(low), float(high), clusters)


def median_of(rows: pd.DataFrame, name: str, caches: Sequence[str] = SYNTHETIC, *, least: float = -np.inf) -> Estimate:
    """The median over caches of each cache's own median of a column, nowhere negative, over whatever else varies.
    `least`: what no value of the column is below, proven (1 for an error over its floor)."""
    found = median(column(medians(rows, caches, [name]), name), positive=True)
    return found if np.isinf(least) else found.at_least(least)


def paired_log_ratio(
    rows: pd.DataFrame, arm: str, other: str, name: str = "error", caches: Sequence[str] = CACHE
) -> pd.DataFrame:
    """log(arm / other) of the column `name` on every (cache, setting) that both arms have.

    Columns: those of `caches`, cache, n, d, rho, size, and log_ratio. Where a real head has several seeds of the
    construction, their median is compared. Where either is zero the pair is left out: one of them is then exact, and a
    ratio says nothing.
    """
    return _pairs(_logs(rows.loc[rows["arm"].isin([arm, other])], name, caches), arm, other)


def paired_ratio(
    rows: pd.DataFrame, arm: str, other: str, name: str = "error", caches: Sequence[str] = CACHE
) -> Estimate:
    """Median over caches of the geometric-mean ratio arm / other over settings; NOTHING where no cache has both."""
    return _over_caches(paired_log_ratio(rows, arm, other, name, caches), caches)


def paired_ratios(
    rows: pd.DataFrame, other: str, name: str = "error", caches: Sequence[str] = CACHE
) -> dict[str, Estimate]:
    """`paired_ratio` of every arm of the rows to one other."""
    logs = _logs(rows, name, caches)
    return {arm: _over_caches(_pairs(logs, arm, other), caches) for arm in distinct(rows, "arm")}


def _logs(rows: pd.DataFrame, name: str, caches: Sequence[str]) -> pd.DataFrame:
    """The logarithm of the column, a row for each cache and setting, a column for each arm."""
    keys = list(dict.fromkeys([*caches, "cache", "cache_params", "n", "d", "rho", "size"]))
    found = medians(rows.loc[:, [*keys, "arm", name]], [*keys, "arm"], [name])
    found = found.loc[found[name] > 0]
    return found.assign(log=np.log(column(found, name))).pivot(index=keys, columns="arm", values="log")


def _pairs(logs: pd.DataFrame, arm: str, other: str) -> pd.DataFrame:
    """log_ratio, and what names the cache and the setting."""
    if arm not in logs or other not in logs:
        return logs.iloc[:0].index.to_frame(index=False).assign(log_ratio=np.empty(0))
    ratio = (logs[arm] - logs[other]).dropna()
    return ratio.index.to_frame(index=False).assign(log_ratio=ratio.to_numpy())


def _over_caches(pairs: pd.DataFrame, caches: Sequence[str]) -> Estimate:
    return median(column(means(pairs, caches, ["log_ratio"]), "log_ratio")).exp() if len(pairs) else NOTHING
