"""Draws signed clusters, the lower-bound instance: no coreset of half its tokens errs less than a stated floor."""

from dataclasses import dataclass

import numpy as np

from attention_coresets.caches.directions import Vectors
from attention_coresets.caches.signs import SIGNS, Signs, check_signs
from attention_coresets.checks import positive


@dataclass(frozen=True)
class SignedClusters:
    """`clusters` groups of d tokens with one key c_j for group j, and signs that balance.

    Group j has the values s_jl e_l for l = 1..d, where the signs s_jl are +-1 and sum_j s_jl = 0 for each l. So
    clusters is even and n = clusters * d; either of the two may be left out (default: d clusters).

    The centres c_j are orthonormal up to d clusters, where the floors of docs/lower_bound.md are proven. Beyond d they
    are random unit vectors, a descriptive extension.

    signs: how they are drawn (signs.py). "random": each coordinate's in random order; "hadamard": rows of a Hadamard
        matrix and their negatives, for d a power of two and at most d clusters; "simplex": the vertices of a simplex,
        for clusters a power of two with clusters - 1 a divisor of d.
    """

    n: int | None = None
    d: int = 16
    clusters: int | None = None
    signs: str = "random"

    def __post_init__(self) -> None:
        positive(d=self.d)
        if self.n is not None and self.n % self.d:
            raise ValueError(f"n must be a multiple of d = {self.d} for signed_clusters, got {self.n}")
        if self.n is not None and self.clusters is not None and self.n != self.clusters * self.d:
            raise ValueError(f"n must be clusters * d = {self.clusters * self.d}, got {self.n}; leave one of them out")
        if self.count < 2 or self.count % 2:
            raise ValueError(f"clusters must be even, so that the signs balance, got {self.count}")
        check_signs(self.signs, self.count, self.d)

    @property
    def count(self) -> int:
        """Returns the number of clusters."""
        if self.clusters is not None:
            return self.clusters
        return self.d if self.n is None else self.n // self.d

    @property
    def orthonormal(self) -> bool:
        """Tells whether the centres are orthonormal, where lower_bound.py has floors for every coreset."""
        return self.count <= self.d

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Draws keys ``[clusters * d, d]`` and values of the same shape."""
        r, d = self.count, self.d
        x = self._normals(rng)
        centers = np.linalg.qr(x)[0][:r] if self.orthonormal else x / np.linalg.norm(x, axis=-1, keepdims=True)
        values = SIGNS[self.signs](rng, r, d)[:, :, None] * np.eye(d)  # [r, d, d]
        return np.repeat(centers, d, axis=0), values.reshape(r * d, d)

    def draw_signs(self, rng: np.random.Generator) -> Signs:
        """Draws the signs alone ``[clusters, d]``: those that `sample` gives its values from the same `rng`.

        `caches.head_rng(seed, head)` is the one that `make_cache` draws that head from.

        Cost: O(d^2), where a cache has clusters * d^2 numbers.
        """
        self._normals(rng)  # those of the centres come first
        return SIGNS[self.signs](rng, self.count, self.d)

    def _normals(self, rng: np.random.Generator) -> Vectors:
        """Draws what the centres are made of."""
        return rng.standard_normal((self.d if self.orthonormal else self.count, self.d))
