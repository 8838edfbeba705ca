"""Keeps one of each consecutive pair by a coin: balanced sampling without looking at the discrepancy."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.balancing.buckets import BUCKETED
from attention_coresets.coresets.base import Cost
from attention_coresets.coresets.walks.pairs import Rule, pair_signs


@dataclass(frozen=True)
class PairedCoin(Balancing):
    """Keeps one of each pair of consecutive tokens by a coin: what balancing signs must beat.

    It is pivotal sampling over consecutive pairs (walks/pairs.py) at the model's marginals. The coin is fair where
    these are 1/2, and otherwise keeps the mean.

    Parameters are those of `Balancing`, without `scale`. A recursion in buckets is refused: a coin does not see them.

    Cost: O(n log n).

    Source: Deville and Tille 1998.
    """

    scale: ClassVar[str] = "auto"  # a coin looks at no kernel

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recursion in BUCKETED:
            raise ValueError(
                "a coin does not see which tokens share its bucket: "
                f"recursion {self.recursion!r} chooses as halving does; use halving"
            )

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Estimates the tilt alone."""
        return Cost(4 * n * d, 40 * n * d**2)

    def signs(self, vectors: None, x: Tensor, uniforms: Tensor) -> Tensor:
        return pair_signs(vectors, x, uniforms[:, 0], _Coin())

    def vectors(self, *_: object, **__: object) -> None:
        """Makes nothing: a coin looks at no vectors."""


class _Coin(Rule):
    needs_gram, compiled = False, ("coin", 0.0)
