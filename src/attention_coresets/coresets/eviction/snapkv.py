"""SnapKV: the tokens that the last queries attend to, pooled over neighbours, and the window of the last tokens."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, attention_weights
from attention_coresets.checks import positive
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.eviction.scores import (
    check_queries,
    check_request,
    in_order,
    last,
    pooled,
    position_rank,
    top_scores,
)
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class SnapKV:
    """Attention of an observation window (Li et al., arXiv 2404.14469).

    Softmax weights of the last `window` queries over the tokens that each sees, their mean over these queries, a mean
    over `pool` neighbouring places among the tokens before the last `window` ones (0 beyond the ends), the mean over
    the group; the last `window` tokens are kept, and where `size` is smaller, the latest `size` of them. Defaults are
    kvpress's. Cost O(group window n d).
    """

    window: int = 64
    pool: int = 5
    model: ClassVar[str] = "unweighted"
    model_units: ClassVar[bool] = True
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True
    agreement: ClassVar[Agreement] = Agreement.TOKENS

    def __post_init__(self) -> None:
        positive(window=self.window, pool=self.pool)
        if self.pool % 2 == 0:
            raise ValueError(f"pool must be odd, got {self.pool}")

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
        queries = check_queries(queries, cache, "snapkv")
        rank = position_rank(positions, cache)
        window = min(self.window, size)
        observed = attention_weights(queries[..., -self.window :, :], cache.keys, rank).mean(
            dim=(-3, -2)
        )  # [*heads, n]
        places = max(0, cache.n - self.window)
        scores = in_order(observed, rank)
        if places > 0:
            scores[..., :places] = pooled(scores[..., :places], self.pool)
        return top_scores(scores.gather(-1, rank).masked_fill(last(rank, window), torch.inf), size)
