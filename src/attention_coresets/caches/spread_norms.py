"""Draws keys and values off the sphere: uniform directions, norms spread lognormally."""

from dataclasses import dataclass

import numpy as np

from attention_coresets.caches.directions import Vectors, sphere
from attention_coresets.checks import positive


@dataclass(frozen=True)
class SpreadNorms:
    """Directions as in `sphere`; norms e^{spread g} with g standard normal, drawn apart for each key and each value.

    Keys keep these norms, whose median is 1, so that some keys are far longer than the rest. Values are divided by the
    largest norm among them: errors are in units of the largest value, as on the sphere.
    """

    n: int = 4096
    d: int = 16
    spread: float = 0.3

    def __post_init__(self) -> None:
        positive(n=self.n, d=self.d, spread=self.spread)

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Draws keys ``[n, d]`` and values ``[n, d]``."""
        keys, values = self._drawn(rng), self._drawn(rng)
        return keys, values / np.linalg.norm(values, axis=-1).max()

    def _drawn(self, rng: np.random.Generator) -> Vectors:
        return sphere(rng, self.n, self.d) * np.exp(self.spread * rng.standard_normal((self.n, 1)))
