"""How much of the spread of errors is the cache's luck, and how much the construction's."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from attention_coresets.analysis.stats.estimates import LEAST, Estimate, stretched

_REPLICATES, _STREAM = 2000, 2718


@dataclass(frozen=True)
class Components:
    """Variances of one-way analysis: `between` caches, `within` a cache from draw to draw; `share`: between / sum."""

    between: float
    within: float
    share: Estimate


def components(values: Float[np.ndarray, "caches draws"]) -> Components:
    """The variance components of values y = mean + cache + draw, by the method of moments.

    within is the mean over caches of the variance over draws; between the variance of the caches' means less within /
    draws, or 0 where that is negative. The interval of the share resamples caches (`stretched`). Raises ValueError for
    fewer than 2 draws or caches.
    """
    caches, draws = values.shape
    if caches < 2 or draws < 2:
        raise ValueError(f"{caches} caches of {draws} draws have no variance components; both must be at least 2")
    means, variances = values.mean(axis=1), values.var(axis=1, ddof=1)
    between, within = _moments(means[None], variances[None], draws)
    value = float(_share(between, within)[0])
    share = Estimate(value, np.nan, np.nan, caches)
    if caches >= LEAST:
        chosen = np.random.default_rng([_STREAM, caches]).integers(caches, size=(_REPLICATES, caches))
        around = stretched(value, _share(*_moments(means[chosen], variances[chosen], draws)), caches)
        share = Estimate(value, max(0.0, around.low), min(1.0, around.high), caches)
    return Components(float(between[0]), float(within[0]), share)


def _moments(means: np.ndarray, variances: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Between and within, over the last axis."""
    within = variances.mean(axis=-1)
    return np.maximum(means.var(axis=-1, ddof=1) - within / draws, 0.0), within


def _share(between: np.ndarray, within: np.ndarray) -> np.ndarray:
    return between / np.maximum(between + within, 1e-300)
