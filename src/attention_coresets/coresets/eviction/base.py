"""Defines the type of an eviction heuristic: scores for tokens, of which the largest are kept.

Under grouped queries the scores of a KV head's query heads are averaged. So the budget is kept by KV head: exactly
`size` tokens in each.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool1d

from attention_coresets.attention import Coreset
from attention_coresets.coresets.base import Construction, Request


@dataclass(frozen=True)
class Scorer(Construction):
    """Keeps the tokens of largest score, without weights, and the first `sinks` whatever their score.

    A heuristic gives `scores`. Keys, values and queries are those of the model as it computes them.
    """

    model: ClassVar[str] = "unweighted"
    model_units: ClassVar[bool] = True
    evicts: ClassVar[bool] = True

    @abstractmethod
    def scores(self, request: Request) -> Float[Tensor, "*heads n"]:
        """Scores each token; of equal ones the earlier token of the cache is kept."""

    def choose(self, request: Request) -> Coreset:
        scores = self.scores(request)
        if self.sinks:
            scores = scores.masked_fill(request.rank < self.sinks, torch.inf)
        return top_scores(scores, request.size)


def top_scores(scores: Float[Tensor, "*heads n"], size: int) -> Coreset:
    """Keeps the `size` tokens of largest score in each head (all if there are fewer), of equal ones the earlier."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    return Coreset(order[..., :size].sort(dim=-1).values)


def last(rank: Int[Tensor, "*heads n"], count: int) -> Bool[Tensor, "*heads n"]:
    """Tells which tokens are in the last `count` places."""
    return rank >= rank.shape[-1] - count


def in_order(x: Float[Tensor, "*rows n"], rank: Int[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
    """Puts the token of rank r at place r; the inverse is ``x.gather(-1, rank)``."""
    return torch.empty_like(x).scatter_(-1, rank, x)


def pooled(x: Float[Tensor, "*rows n"], width: int) -> Float[Tensor, "*rows n"]:
    """Averages over the `width` (odd) places around each; places beyond the ends count as 0."""
    flat = avg_pool1d(x.reshape(-1, 1, x.shape[-1]), width, stride=1, padding=width // 2)
    return flat.reshape(x.shape)
