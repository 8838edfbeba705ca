"""Signed clusters and coresets of them, made apart from the package, for the proofs of docs/lower_bound.md."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch

from attention_coresets import Cache, Coreset, attend

WEIGHTS = ("spread", "equal", "equal_clusters", "one_cluster", "one_token", "extreme", "all_kept")
SHAPES = [(2, 2), (3, 2), (4, 4), (5, 4), (8, 2), (8, 8)]  # d, r
RHOS = (0.1, 1.0, 2.5, 6.0)


@dataclass(frozen=True)
class Instance:
    """Centres, signs S [r, d] and weights w [r, d] of one coreset.

    level is A, total W and b the vector B of docs/lower_bound.md.
    """

    centers: np.ndarray
    S: np.ndarray
    w: np.ndarray
    rho: float

    @property
    def d(self) -> int:
        return self.S.shape[1]

    @property
    def a(self) -> float:
        r = len(self.S)
        return math.exp(self.rho * math.sqrt(r / (r - 1))) - 1

    @property
    def gamma(self) -> float:
        return self.a / (len(self.S) + self.a)

    @property
    def level(self) -> float:
        return self.gamma / self.d

    @property
    def omega(self) -> np.ndarray:
        return self.w.sum(1)

    @property
    def total(self) -> float:
        return float(self.w.sum())

    @property
    def z(self) -> np.ndarray:
        return self.total + self.a * self.omega

    @property
    def b(self) -> np.ndarray:
        return (self.w * self.S).sum(0)

    @property
    def dropped(self) -> np.ndarray:
        return (self.w == 0).sum(1)

    @property
    def size(self) -> int:
        return int((self.w > 0).sum())

    @property
    def cache(self) -> Cache:
        r, d = self.S.shape
        values = self.S[:, :, None] * np.eye(d)
        keys = np.repeat(self.centers, d, axis=0)
        return Cache(torch.from_numpy(keys), torch.from_numpy(values.reshape(r * d, d)))

    @property
    def coreset(self) -> Coreset:
        kept = np.flatnonzero(self.w.ravel())
        return Coreset(torch.from_numpy(kept), torch.from_numpy(np.log(self.w.ravel()[kept])))

    def errors(self) -> np.ndarray:
        """E [r, d]: full attention less the coreset's at each sharpened query."""
        cache, coreset = self.cache, self.coreset
        keys, values = cache.take(coreset.indices)
        q = torch.from_numpy(sharpened(self.centers, self.rho))
        return (attend(q, cache.keys, cache.values) - attend(q, keys, values, coreset.log_weights)).numpy()


def sharpened(centers: np.ndarray, rho: float) -> np.ndarray:
    """The queries rho (c_j - mean) / |c_j - mean| [r, k]."""
    away = centers - centers.mean(0)
    return rho * away / np.linalg.norm(away, axis=1, keepdims=True)


def orthonormal(rng: np.random.Generator, d: int, r: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((d, d)))[0][:r]


def signs(rng: np.random.Generator, d: int, r: int) -> np.ndarray:
    """Columns of r signs with the sum 0, or +-1 for odd r."""
    column = np.where(np.arange(r) < r // 2, 1.0, -1.0)
    S = rng.permuted(np.repeat(column[:, None], d, axis=1), axis=0)
    return S * rng.choice([-1.0, 1.0], size=d)


def weights(rng: np.random.Generator, kind: str, d: int, r: int) -> np.ndarray:
    """Non-negative weights of stated kinds, about half of them 0 but for the last kind."""
    w = rng.exponential(size=(r, d)) * (rng.random((r, d)) < rng.uniform(0.2, 0.8))
    if kind == "equal":
        w = (w > 0).astype(float)
    elif kind == "equal_clusters":
        w[:, 0] += 0.1
        w /= w.sum(1, keepdims=True)
    elif kind == "one_cluster":
        w[1:] = 0
    elif kind == "one_token":
        w = np.zeros((r, d))
        w[rng.integers(r), rng.integers(d)] = 3.0
    elif kind == "extreme":
        w *= 10.0 ** rng.uniform(-8, 8, size=(r, d))
    elif kind == "all_kept":
        w = rng.exponential(size=(r, d)) + 1e-3
    if not w.any():
        w[0, 0] = 1.0
    return w


def instances(rng: np.random.Generator, kind: str) -> list[Instance]:
    found = []
    for (d, r), rho, _ in itertools.product(SHAPES, RHOS, range(3)):
        found.append(Instance(orthonormal(rng, d, r), signs(rng, d, r), weights(rng, kind, d, r), rho))
    return found
