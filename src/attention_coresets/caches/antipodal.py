"""Draws the antipodal pair: where unweighted subsets need e^{2 rho} tokens (docs/lower_bound.md)."""

import math
from dataclasses import dataclass

import numpy as np

from attention_coresets.caches.directions import Vectors, sphere
from attention_coresets.checks import one_of, positive


@dataclass(frozen=True)
class Antipodal:
    """round(n / (1 + e^{2 rho})) keys at +u and the rest at -u, so that q = rho u balances the two groups.

    With values = "keys", v_i = k_i: the instance of the proof. With "sphere", values are uniform. Raises ValueError for
    a rho so large that no key would be left at +u.
    """

    n: int = 4096
    d: int = 16
    rho: float = 2.0
    values: str = "sphere"

    def __post_init__(self) -> None:
        positive(n=self.n, d=self.d, rho=self.rho)
        one_of("values", self.values, ("sphere", "keys"))
        if self.minority == 0:
            limit = 0.5 * math.log(2 * self.n - 1)
            raise ValueError(
                f"rho = {self.rho} leaves no key at +u with n = {self.n}; take rho <= {limit:.2f} or a larger n"
            )

    @property
    def minority(self) -> int:
        """Returns the number of keys at +u."""
        return round(self.n / (1 + math.exp(min(2 * self.rho, 700.0))))

    def sample(self, rng: np.random.Generator) -> tuple[Vectors, Vectors]:
        """Draws keys ``[n, d]`` and values ``[n, d]``."""
        sign = np.where(np.arange(self.n) < self.minority, 1.0, -1.0)
        keys = sign[:, None] * sphere(rng, 1, self.d)
        return keys, keys.copy() if self.values == "keys" else sphere(rng, self.n, self.d)
