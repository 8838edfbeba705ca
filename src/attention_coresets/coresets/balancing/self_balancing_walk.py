"""The self-balancing walk: a coin biased against the discrepancy so far."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attention_coresets.checks import positive
from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.walks.pairs import Features, Rule, pair_signs


@dataclass(frozen=True)
class SelfBalancingWalk(Balancing):
    """Keeps one of each pair of tokens by a coin that is biased towards less discrepancy.

    Let f be the feature of a pair's first token less that of its second, w the discrepancy so far, and "fair" the
    probability that keeps the mean (1/2 from marginals of 1/2). Features are scaled so that the longest f of the walk's
    first round has norm 1. The first token is kept with probability

        fair - <f, w> / 2c, clipped to [0, 1].

    c: None is the theoretical 30 log(n / delta) with delta = 0.01, n the tokens of the walk, which hardly differs from
        a fair coin. A small c comes close to greedy signs.
    model, scale, recursion, refinement: as in `Balancing`.

    Cost: O(n^2) a stage.

    Source: Alweiss, Liu and Sawhney 2021, on pairs; the walk in BalanceKV.
    """

    c: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.c is not None:
            positive(c=self.c)

    def signs(self, vectors: Features, x: Tensor, uniforms: Tensor) -> Tensor:
        c = 30 * math.log(x.shape[-1] / 0.01) if self.c is None else self.c
        return pair_signs(vectors, x, uniforms[:, 0], _SelfBalancing(c))


class _SelfBalancing(Rule):
    def __init__(self, c: float) -> None:
        self.c = c
        self.compiled = ("self_balancing", c)
        self.longest: Tensor | None = None

    def start(self, norm2: Tensor, fair: Tensor) -> tuple[Tensor, Tensor]:
        if self.longest is None:
            self.longest = norm2.amax(dim=-1, keepdim=True).clamp_min(1e-300)
        return torch.zeros_like(fair), (0.5 / (self.c * self.longest)).expand_as(norm2)
