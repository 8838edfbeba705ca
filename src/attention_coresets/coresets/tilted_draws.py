"""Draws from p*: independent sampling at the tilt's marginals, exact size."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.recursion import balanced_coreset, no_vectors
from attention_coresets.coresets.systematic import systematic
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class TiltedDraws:
    """Systematic sampling after a random permutation with marginals pi = min(1, c p*), log-weights -log pi.

    O~(d e^{rho sigma} / epsilon^2) tokens. Cost: the tilt and O(n log n).
    """

    weighted: ClassVar[bool] = True  # takes a WeightedCache
    model: ClassVar[str] = "tilted"
    agreement: ClassVar[Agreement] = Agreement.TOKENS

    def __call__(self, cache: Cache, size: int, rho: float, generator: Generators) -> Coreset:
        """A coreset of exactly `size` tokens a head, for queries of norm at most rho."""
        return balanced_coreset(
            cache,
            size,
            rho,
            generator,
            rule=_signs,
            model="tilted",
            scale="auto",
            recursion="one_walk",
            vectors=no_vectors,
        )


def _signs(gram: Tensor | None, x: Tensor, uniforms: Tensor) -> Tensor:
    return systematic((x + 1) / 2, uniforms[:, 0, 0], uniforms[:, 1].argsort(dim=-1))
