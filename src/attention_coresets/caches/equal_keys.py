"""Draws equal keys: attention is the mean of the values whatever the query, so rho plays no part."""

from dataclasses import dataclass

import numpy as np

from attention_coresets.caches.directions import Vectors, sphere
from attention_coresets.checks import positive


@dataclass(frozen=True)
class EqualKeys:
    """n copies of one random unit key, values uniform: mean estimation."""

    n: int = 4096
    d: int = 16

    def __post_init__(self) -> None:
        positive(n=self.n, d=self.d)

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Draws keys ``[n, d]`` and values ``[n, d]``."""
        return np.repeat(sphere(rng, 1, self.d), self.n, axis=0), sphere(rng, self.n, self.d)
