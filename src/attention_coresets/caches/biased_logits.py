"""Draws a weighted cache: keys and values on the sphere, and a bias added to each token's logit."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attention_coresets.caches.directions import Vectors, sphere
from attention_coresets.checks import positive


@dataclass(frozen=True)
class BiasedLogits:
    """Keys and values as in `sphere`; token i has the logit <q, k_i> + b_i, with b_i normal of deviation `bias`.

    That is a `WeightedCache`, which only constructions with `takes_weights` take. The bias is the same for every query,
    so the tilt lemma holds with e^{b_i} as base weights (docs/theory.md).
    """

    weighted: ClassVar[bool] = True
    n: int = 4096
    d: int = 16
    bias: float = 1.0

    def __post_init__(self) -> None:
        positive(n=self.n, d=self.d, bias=self.bias)

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors, Vectors]:
        """Draws keys ``[n, d]``, values ``[n, d]`` and log-weights ``[n]``."""
        return sphere(rng, self.n, self.d), sphere(rng, self.n, self.d), self.bias * rng.standard_normal(self.n)
