"""Draws from p*: independent sampling at the tilt's marginals, exact size."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.draws.systematic import systematic


@dataclass(frozen=True)
class TiltedDraws(Balancing):
    """Systematic sampling after a random permutation with marginals pi = min(1, c p*), log-weights -log pi.

    O~(d e^{rho sigma} / epsilon^2) tokens: one round of the tilted model whose signs look at no vectors.
    Cost: the tilt and O(n log n).
    """

    model: ClassVar[str] = "tilted"
    scale: ClassVar[str] = "auto"
    recursion: ClassVar[str] = "one_walk"
    refinement: ClassVar[str] = "none"

    def signs(self, vectors: None, x: Tensor, uniforms: Tensor) -> Tensor:
        return systematic((x + 1) / 2, uniforms[:, 0, 0], uniforms[:, 1].argsort(dim=-1))

    def vectors(self, *_: object, **__: object) -> None:
        """Nothing: draws look at no vectors."""
