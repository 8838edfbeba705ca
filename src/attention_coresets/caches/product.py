"""Draws a product instance: a few near-orthogonal keys, each carrying many independent values."""

from dataclasses import dataclass

import numpy as np

from attention_coresets.caches.directions import Vectors, sphere
from attention_coresets.checks import positive


@dataclass(frozen=True)
class Product:
    """`distinct` random unit keys, each repeated n / distinct times, with uniform values.

    Up to d keys are orthonormal. With distinct about e^rho every key is attended by some query of norm rho, and each
    needs the mean of its own values.
    """

    n: int = 4096
    d: int = 16
    distinct: int = 8

    def __post_init__(self) -> None:
        positive(n=self.n, d=self.d, distinct=self.distinct)
        if self.distinct > self.n:
            raise ValueError(f"distinct must be at most n = {self.n}, got {self.distinct}")

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Draws keys ``[n, d]`` and values ``[n, d]``."""
        few = self.distinct <= self.d
        keys = np.linalg.qr(rng.standard_normal((self.d, self.d)))[0] if few else sphere(rng, self.distinct, self.d)
        return keys[np.arange(self.n) % self.distinct], sphere(rng, self.n, self.d)
