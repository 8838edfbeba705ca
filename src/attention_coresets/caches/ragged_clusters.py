"""Draws signed clusters for any number of tokens: groups may be short, and signs balance as nearly as they can."""

from dataclasses import dataclass

import numpy as np

from attention_coresets.caches.directions import Vectors, sphere
from attention_coresets.checks import positive


@dataclass(frozen=True)
class RaggedClusters:
    """n tokens dealt to `clusters` groups of one key each, with values +-e_l whose signs sum to 0, 1 or -1 for every l.

    Token t = a d + l has the value +-e_l and stands in group (a + l) mod clusters, so that whole groups are those of
    `signed_clusters`. `clusters` is n / d, rounded up and at least 2, unless said: an odd number of whole groups leaves
    signs that cannot balance. The centres are orthonormal up to d groups, random unit vectors beyond. No floor is
    proven here: these caches are starts of a search for hard ones.
    """

    n: int = 16
    d: int = 4
    clusters: int | None = None

    def __post_init__(self) -> None:
        positive(n=self.n, d=self.d)
        if self.count < 2:
            raise ValueError(f"clusters must be at least 2, got {self.count}")

    @property
    def count(self) -> int:
        """Returns the number of clusters."""
        return max(2, -(-self.n // self.d)) if self.clusters is None else self.clusters

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Draws keys ``[n, d]`` and values of the same shape."""
        r, d = self.count, self.d
        centers = np.linalg.qr(rng.standard_normal((d, d)))[0][:r] if r <= d else sphere(rng, r, d)
        layer, coordinate = np.divmod(np.arange(self.n), d)
        values = np.zeros((self.n, d))
        for axis in range(d):
            tokens = np.flatnonzero(coordinate == axis)
            signs = np.where(np.arange(len(tokens)) % 2, -1.0, 1.0) * rng.choice([-1.0, 1.0])
            values[tokens, axis] = rng.permutation(signs)
        return centers[(layer + coordinate) % r], values
