"""Draws unit keys in a random subspace of low dimension, values uniform on the whole sphere."""

from dataclasses import dataclass

import numpy as np

from attention_coresets.caches.directions import Vectors, sphere
from attention_coresets.checks import positive


@dataclass(frozen=True)
class LowRank:
    """n keys uniform on the unit sphere of a random `rank`-dimensional subspace of R^d, values uniform in R^d."""

    n: int = 4096
    d: int = 16
    rank: int = 4

    def __post_init__(self) -> None:
        positive(n=self.n, d=self.d, rank=self.rank)
        if self.rank > self.d:
            raise ValueError(f"rank must be at most d = {self.d}, got {self.rank}")

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Draws keys ``[n, d]`` and values ``[n, d]``."""
        basis = np.linalg.qr(rng.standard_normal((self.d, self.rank)))[0]  # [d, rank]
        return sphere(rng, self.n, self.rank) @ basis.T, sphere(rng, self.n, self.d)
