"""The self-balancing walk: a coin biased against the discrepancy so far."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.checks import positive
from attention_coresets.coresets.agreement import Agreement, of_refinement
from attention_coresets.coresets.pairs import Features, Rule, pair_signs
from attention_coresets.coresets.parameters import check_axes
from attention_coresets.coresets.recursion import balanced_coreset, gram_factors
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class SelfBalancingWalk:
    """Alweiss, Liu and Sawhney 2021 (the walk in BalanceKV), on pairs: up with probability fair - <f, w> / 2c, clipped.

    f is scaled so that the longest pair difference of the first round has norm 1. c = None is the theoretical
    30 log(n / delta), delta = 0.01, which hardly differs from a fair coin; small c comes close to greedy signs.
    Other parameters as GramSchmidtWalk's. Cost O(n^2) a stage.
    """

    weighted: ClassVar[bool] = True  # takes a WeightedCache
    model: str = "tilted"
    scale: str = "auto"
    recursion: str = "halving"
    refinement: str = "none"
    c: float | None = None

    def __post_init__(self) -> None:
        check_axes(self.model, self.scale, self.recursion, self.refinement)
        if self.c is not None:
            positive(c=self.c)

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
            rule=self._signs,
            model=self.model,
            scale=self.scale,
            recursion=self.recursion,
            refinement=self.refinement,
            vectors=gram_factors,
        )

    def _signs(self, gram: Features, x: Tensor, uniforms: Tensor) -> Tensor:
        c = 30 * math.log(x.shape[-1] / 0.01) if self.c is None else self.c
        return pair_signs(gram, x, uniforms[:, 0], _SelfBalancing(c))


class _SelfBalancing(Rule):
    def __init__(self, c: float) -> None:
        self.c = c
        self.compiled = ("self_balancing", c)
        self.longest: Tensor | None = None

    def start(self, norm2: Tensor) -> None:
        if self.longest is None:
            self.longest = norm2.amax(dim=-1).clamp_min(1e-300)

    def chance(self, alpha: Tensor, norm2: Tensor, fair: Tensor) -> Tensor:
        assert self.longest is not None, "start() comes before the first choice"
        return (fair - alpha / (2 * self.c * self.longest)).clamp(0, 1)
