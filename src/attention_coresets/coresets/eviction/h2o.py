"""H2O: the tokens that queries attended to most in total, and the most recent ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, attention_weights, seen
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.eviction.scores import (
    check_queries,
    check_request,
    last,
    position_rank,
    top_scores,
)
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class H2O:
    """Heavy hitters (Zhang et al., arXiv 2306.14048): score_i = mean of softmax_i(q) over the queries that see token i,
    and over the group.

    `recent` is the share of the budget (rounded down) that goes to the latest tokens whatever their score: half in the
    paper, 0 in kvpress's observed attention, whose mean over the queries that see a token this is. The paper evicts as
    it decodes; this is the choice made at once, from the queries given. Cost O(group b n d).
    """

    recent: float = 0.5
    model: ClassVar[str] = "unweighted"
    model_units: ClassVar[bool] = True
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True
    agreement: ClassVar[Agreement] = Agreement.TOKENS

    def __post_init__(self) -> None:
        if not 0 <= self.recent <= 1:
            raise ValueError(f"recent must lie between 0 and 1, got {self.recent}")

    def __call__(
        self,
        cache: Cache,
        size: int,
        rho: float,
        generator: Generators,
        queries: Float[Tensor, "*heads group b d"] | None = None,
        positions: Int[Tensor, "*heads n"] | None = None,
    ) -> Coreset:
        """Exactly `size` tokens a head. Raises ValueError without queries."""
        check_request(cache, size, rho, generator)
        queries, rank = check_queries(queries, cache, "h2o"), position_rank(positions, cache)
        weights = attention_weights(queries, cache.keys, rank).mean(dim=-3).sum(dim=-2)  # [*heads, n]
        scores = weights / seen(rank, queries.shape[-2]).sum(dim=-2)
        return top_scores(scores.masked_fill(last(rank, int(self.recent * size)), torch.inf), size)
