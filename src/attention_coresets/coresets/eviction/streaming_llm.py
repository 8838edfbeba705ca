"""StreamingLLM: the first tokens of the text and the most recent ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.eviction.scores import check_request, first, position_rank, top_scores
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class StreamingLLM:
    """The first `sinks` tokens and the size - sinks most recent ones (Xiao et al., arXiv 2309.17453). Cost O(n log n).

    Positions are the text's; the paper also renumbers the kept tokens before it rotates them, which is no matter of
    choosing them.
    """

    sinks: int = 4
    model: ClassVar[str] = "unweighted"
    model_units: ClassVar[bool] = True
    needs_queries: ClassVar[bool] = False
    needs_positions: ClassVar[bool] = True
    agreement: ClassVar[Agreement] = Agreement.TOKENS

    def __post_init__(self) -> None:
        if self.sinks < 0:
            raise ValueError(f"sinks must be at least 0, got {self.sinks}")

    def __call__(
        self,
        cache: Cache,
        size: int,
        rho: float,
        generator: Generators,
        queries: Tensor | None = None,
        positions: Int[Tensor, "*heads n"] | None = None,
    ) -> Coreset:
        """Exactly `size` tokens a head; only the positions (default: the order of the tokens) play a part."""
        check_request(cache, size, rho, generator, self.sinks)
        rank = position_rank(positions, cache)
        recency = rank.to(torch.float64)
        return top_scores(recency.masked_fill(first(rank, self.sinks), torch.inf), size)
