"""H2O: the tokens that queries attended to most in total, and the most recent ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import attention_weights, seen
from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction.base import Scorer, last


@dataclass(frozen=True)
class H2O(Scorer):
    """Keeps heavy hitters, the tokens that queries attended to most, and the most recent ones.

    score_i = mean of softmax_i(q) over the queries q that see token i, and over the group. The paper evicts as it
    decodes; this is the choice made at once, from the queries given.

    recent: share of the budget, rounded down, that goes to the latest tokens whatever their score. The paper has half.
        kvpress's observed attention has 0, and the same mean.

    Cost: O(group b n d) a head.

    Source: Zhang et al., arXiv 2306.14048.
    """

    recent: float = 0.5
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.recent <= 1:
            raise ValueError(f"recent must lie between 0 and 1, got {self.recent}")

    def scores(self, request: Request) -> Tensor:
        queries, rank = request.asked, request.rank
        weights = attention_weights(queries, request.cache.keys, rank).mean(dim=-3).sum(dim=-2)  # [*heads, n]
        scores = weights / seen(rank, queries.shape[-2]).sum(dim=-2)
        return scores.masked_fill(last(rank, int(self.recent * request.size)), torch.inf)
