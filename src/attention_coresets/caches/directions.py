"""Draws the unit vectors that families share: uniform, or von Mises-Fisher around given means."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]


def sphere(rng: np.random.Generator, n: int, d: int) -> Vectors:
    """Draws n independent uniform unit vectors, ``[n, d]``."""
    x = rng.standard_normal((n, d))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def von_mises_fisher(rng: np.random.Generator, means: Vectors, concentration: float) -> Vectors:
    """Draws one von Mises-Fisher vector around each unit vector of `means` ``[n, d]``, d >= 2.

    Source: rejection after Wood (1994).
    """
    n, d = means.shape
    if concentration == 0:
        return sphere(rng, n, d)
    cosine = _cosines(rng, n, d, concentration)[:, None]  # [n, 1]
    tangent = rng.standard_normal((n, d))
    tangent -= (tangent * means).sum(-1, keepdims=True) * means
    tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
    x = cosine * means + np.sqrt(np.maximum(0, 1 - cosine**2)) * tangent
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _cosines(rng: np.random.Generator, n: int, d: int, concentration: float) -> Vectors:
    """Draws the cosines between n vectors and their means, by rejection from a transformed beta law."""
    b = (d - 1) / (2 * concentration + np.sqrt(4 * concentration**2 + (d - 1) ** 2))
    x0 = (1 - b) / (1 + b)
    c = concentration * x0 + (d - 1) * np.log1p(-(x0**2))
    kept = np.empty(0)
    while len(kept) < n:
        z = rng.beta((d - 1) / 2, (d - 1) / 2, size=2 * n)
        w = (1 - (1 + b) * z) / (1 - (1 - b) * z)
        accept = concentration * w + (d - 1) * np.log1p(-x0 * w) - c >= np.log(rng.random(2 * n))
        kept = np.concatenate([kept, w[accept]])
    return kept[:n]
