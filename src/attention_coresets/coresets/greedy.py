"""Greedy signs: each pair goes to the end of less discrepancy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.agreement import Agreement, of_refinement
from attention_coresets.coresets.pairs import Features, Rule, pair_signs
from attention_coresets.coresets.parameters import check_axes
from attention_coresets.coresets.recursion import balanced_coreset, gram_factors
from attention_coresets.coresets.uniforms import Generators

_TIE, _ROUNDING = 1e-9, 1e-14  # a gain this small is none: rounding, which the batch changes, must not decide


@dataclass(frozen=True)
class Greedy:
    """Karnin and Liberty's deterministic rule (2019) on pairs: sign -<f, discrepancy>; a fair coin only at a tie.

    Parameters as GramSchmidtWalk's. From marginals other than 1/2 it does not keep the mean. Cost O(n^2) a stage.
    """

    weighted: ClassVar[bool] = True  # takes a WeightedCache
    model: str = "tilted"
    scale: str = "auto"
    recursion: str = "halving"
    refinement: str = "none"

    def __post_init__(self) -> None:
        check_axes(self.model, self.scale, self.recursion, self.refinement)

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
            scale=self.scale,
            recursion=self.recursion,
            refinement=self.refinement,
            vectors=gram_factors,
        )


class _GreedySign(Rule):
    compiled = ("greedy", 0.0)

    def chance(self, alpha: Tensor, norm2: Tensor, fair: Tensor) -> Tensor:
        # in half-lengths the ends are 2(1 - fair) up and 2 fair down: the difference of their squared discrepancies / 4
        gain = alpha + (1 - 2 * fair) * norm2
        return torch.where(gain.abs() <= _TIE * norm2 + _ROUNDING, fair, (gain < 0).to(fair.dtype))


def _signs(gram: Features, x: Tensor, uniforms: Tensor) -> Tensor:
    return pair_signs(gram, x, uniforms[:, 0], _GreedySign())
