"""Draws from p*: independent sampling at the tilt's marginals, exact size."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.base import Cost
from attention_coresets.coresets.draws.systematic import systematic


@dataclass(frozen=True)
class TiltedDraws(Balancing):
    """Draws the tokens that matter to some query of the ball, each with the weight that makes sums unbiased.

    Token i has the marginal pi_i = min(1, c p*_i), with p* the law of the tilt (theory.py) and c such that the
    marginals sum to `size`, and log-weight -log pi_i. Tokens are drawn by systematic sampling after a random
    permutation: one round of the tilted model whose signs look at no vectors.

    For error epsilon it takes O~(d e^{rho sigma} / epsilon^2) tokens.

    Cost: that of the tilt, and O(n log n).
    """

    model: ClassVar[str] = "tilted"
    scale: ClassVar[str] = "auto"
    recursion: ClassVar[str] = "one_walk"
    refinement: ClassVar[str] = "none"

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Estimates the tilt alone."""
        return Cost(4 * n * d, 40 * n * d**2)

    def signs(self, vectors: None, x: Tensor, uniforms: Tensor) -> Tensor:
        return systematic((x + 1) / 2, uniforms[:, 0, 0], uniforms[:, 1].argsort(dim=-1))

    def vectors(self, *_: object, **__: object) -> None:
        """Makes nothing: draws look at no vectors."""
