"""Draws keys and values independent and uniform on the sphere: the benign control, sigma and R near 1."""

from dataclasses import dataclass

import numpy as np

from attention_coresets.caches.directions import Vectors, sphere
from attention_coresets.checks import positive


@dataclass(frozen=True)
class Sphere:
    """n unit keys and n unit values in R^d, all independent and uniform."""

    n: int = 4096
    d: int = 16

    def __post_init__(self) -> None:
        positive(n=self.n, d=self.d)

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Draws keys ``[n, d]`` and values ``[n, d]``."""
        return sphere(rng, self.n, self.d), sphere(rng, self.n, self.d)
