"""Uniform sampling without replacement: the baseline every construction must beat."""

import math
from dataclasses import dataclass

import torch

from attention_coresets.attention import Coreset
from attention_coresets.checks import not_negative
from attention_coresets.coresets.base import Construction, Request
from attention_coresets.coresets.randomness import draw


@dataclass(frozen=True)
class Uniform(Construction):
    """Draws `size` tokens uniformly at random, unweighted.

    sinks: the text's first so many tokens, a language model's attention sinks, are always kept. Each other token kept
        then has log-weight log((n - sinks) / (size - sinks)).

    Cost: O(n log n).
    """

    sinks: int = 0

    def __post_init__(self) -> None:
        not_negative(sinks=self.sinks)

    @property
    def model(self) -> str:
        """Returns the coreset model: kept sinks make the others carry weights."""
        return "free" if self.sinks else "unweighted"

    def choose(self, request: Request) -> Coreset:
        cache, size = request.cache, request.size
        rank = draw(request.generator, request.heads, cache.n)
        sinks = (request.rank < self.sinks).reshape(rank.shape)
        rank[sinks.cpu()] = -1.0
        chosen = rank.argsort(dim=-1)[:, :size].sort(dim=-1).values.reshape(*cache.heads, size).to(cache.keys.device)
        if self.sinks == 0:
            return Coreset(chosen)
        rest = math.log((cache.n - self.sinks) / (size - self.sinks))
        log_weights = torch.full_like(chosen, rest, dtype=torch.float64)
        return Coreset(chosen, log_weights.masked_fill_(sinks.view(*cache.heads, -1).gather(-1, chosen), 0.0))
