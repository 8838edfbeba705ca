"""SnapKV: the tokens that the last queries attend to, pooled over neighbours, and the window of the last tokens."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import attention_weights
from attention_coresets.checks import positive
from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction.base import Scorer, in_order, last, pooled


@dataclass(frozen=True)
class SnapKV(Scorer):
    """Keeps the tokens that the last `window` queries attend to, with their neighbours, and the last `window` tokens.

    The score of a token is its softmax weight, over the tokens that each query sees, averaged over the window's queries
    and over the group. It is then averaged over `pool` neighbouring places among the tokens before the window, with 0
    beyond the ends. Where `size` is below `window`, the latest `size` tokens are kept.

    window: last queries that vote, and last tokens that are always kept.
    pool: places, an odd number.

    Defaults are kvpress's.

    Cost: O(group window n d) a head.

    Source: Li et al., arXiv 2404.14469.
    """

    window: int = 64
    pool: int = 5
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive(window=self.window, pool=self.pool)
        if self.pool % 2 == 0:
            raise ValueError(f"pool must be odd, got {self.pool}")

    def scores(self, request: Request) -> Tensor:
        rank, places = request.rank, max(0, request.cache.n - self.window)
        window = request.asked[..., -self.window :, :]
        observed = attention_weights(window, request.cache.keys, rank).mean(dim=(-3, -2))  # [*heads, n]
        scores = in_order(observed, rank)
        if places > 0:
            scores[..., :places] = pooled(scores[..., :places], self.pool)
        recent = last(rank, min(self.window, request.size))
        return scores.gather(-1, rank).masked_fill(recent, torch.inf)
