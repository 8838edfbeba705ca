"""Draws most keys in a cap, a few uniform on the sphere: R between 1 and 2 while sigma stays below 1."""

from dataclasses import dataclass

import numpy as np

from attention_coresets.caches.directions import Vectors, sphere, von_mises_fisher
from attention_coresets.checks import positive, unit_interval


@dataclass(frozen=True)
class CapOutliers:
    """round(outliers * n) uniform keys (at least one), the rest von Mises-Fisher around one random direction.

    Values are uniform. The concentration is given for each dimension: it grows with d, so that the cap keeps its width.
    """

    n: int = 4096
    d: int = 16
    outliers: float = 0.07
    concentration_per_dim: float = 4.0

    def __post_init__(self) -> None:
        positive(n=self.n, d=self.d, concentration_per_dim=self.concentration_per_dim)
        unit_interval(outliers=self.outliers)
        if self.d < 2:
            raise ValueError(f"d must be at least 2 for cap_outliers, got {self.d}")

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Draws keys ``[n, d]`` and values ``[n, d]``."""
        far = max(1, round(self.outliers * self.n))
        axis = np.repeat(sphere(rng, 1, self.d), self.n - far, axis=0)
        cap = von_mises_fisher(rng, axis, self.concentration_per_dim * self.d)
        return np.concatenate([cap, sphere(rng, far, self.d)]), sphere(rng, self.n, self.d)
