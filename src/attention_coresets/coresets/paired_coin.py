"""One of each consecutive pair by a fair coin: balanced sampling without looking at the discrepancy."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.agreement import Agreement, of_refinement
from attention_coresets.coresets.buckets import BUCKETED
from attention_coresets.coresets.pairs import Rule, pair_signs
from attention_coresets.coresets.parameters import check_axes
from attention_coresets.coresets.recursion import balanced_coreset, no_vectors
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class PairedCoin:
    """Pivotal sampling over consecutive pairs (pairs.py) at the model's marginals. Cost O(n log n)."""

    weighted: ClassVar[bool] = True  # takes a WeightedCache
    model: str = "tilted"
    recursion: str = "halving"
    refinement: str = "none"

    def __post_init__(self) -> None:
        check_axes(self.model, recursion=self.recursion, refinement=self.refinement)
        if self.recursion in BUCKETED:
            raise ValueError(
                "a coin does not see which tokens share its bucket: "
                f"recursion {self.recursion!r} chooses as halving does; use halving"
            )

    @property
    def agreement(self) -> Agreement:
        """How far two runs may differ by rounding."""
        return of_refinement(self.model, self.refinement)

    def __call__(self, cache: Cache, size: int, rho: float, generator: Generators) -> Coreset:
        """A coreset of exactly `size` tokens a head, for queries of norm at most rho."""
        return balanced_coreset(
            cache,
            size,
            rho,
            generator,
            rule=_signs,
            model=self.model,
            scale="auto",
            recursion=self.recursion,
            refinement=self.refinement,
            vectors=no_vectors,
        )


class _Coin(Rule):
    needs_gram, compiled = False, ("coin", 0.0)

    def chance(self, alpha: Tensor, norm2: Tensor, fair: Tensor) -> Tensor:
        return fair


def _signs(gram: Tensor | None, x: Tensor, uniforms: Tensor) -> Tensor:
    return pair_signs(gram, x, uniforms[:, 0], _Coin())
