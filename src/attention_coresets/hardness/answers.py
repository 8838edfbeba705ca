"""Who answers a cache with coresets: its best subsets, or the draws of a construction."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.randomness import seed_of
from attention_coresets.hardness.all_subsets import BestSubset, screen_all
from attention_coresets.hardness.pool import Pool, first_queries
from attention_coresets.hardness.rate import Rate

_QUERIES = 4  # of each coreset


class Answered(NamedTuple):
    """The coresets of a round, and the error ``[H]`` that they leave each cache."""

    pool: Pool
    error: Float[Tensor, "H"]


class Answers(ABC):
    """Coresets for the caches of a search, round by round.

    `softness` is that of `moves.log_constant`, and `memory` how many coresets of earlier rounds still count.
    """

    softness: float
    memory: int

    @abstractmethod
    def answer(self, cache: Cache, log_weights: Float[Tensor, "H n"]) -> Answered:
        """Answers every head; a kept token i has log-weight log_weights_i."""


class BestSubsets(Answers):
    """Answers with the best subsets of each cache, among all of them; what one round finds helps the next.

    The error is the lower bound of the best subset's that the round's screening proves.
    """

    softness, memory = 0.03, 128

    def __init__(self, rate: Rate, top: int = 8, steps: int = 8):
        self.rate, self.top, self.steps = rate, top, steps
        self.before: list[BestSubset] | None = None

    def answer(self, cache: Cache, log_weights: Float[Tensor, "H n"]) -> Answered:
        before = self.before or [None] * len(cache.keys)
        each = enumerate(zip(log_weights, before, strict=True))
        self.before = [self._best(cache[head], weights, old) for head, (weights, old) in each]
        many = min(self.top, *(len(found.indices) for found in self.before))
        indices = torch.stack([found.indices[:many] for found in self.before])
        queries = torch.stack([found.queries[:many, :_QUERIES] for found in self.before])
        proven = torch.tensor([found.proven for found in self.before], dtype=torch.float64)
        return Answered(Pool(_mask(indices, cache.n), queries), proven)

    def _best(self, cache: Cache, log_weights: Tensor, old: BestSubset | None) -> BestSubset:
        return screen_all(
            cache,
            log_weights,
            self.rate.size,
            self.rate.rho,
            bank=None if old is None else old.queries[: self.top].flatten(0, 1),
            guesses=None if old is None else old.indices[: self.top],
            rounds=2,
            top=self.top,
            steps=self.steps,
        )


class Draws(Answers):
    """Answers with draws of a construction from the cache, new ones each round. The error is their mean.

    `construct(cache, size, rho, generator)` keeps tokens with the weights of the rate's model.
    """

    softness, memory = torch.inf, 24

    def __init__(self, construct: Callable[..., Coreset], rate: Rate, seed: int, draws: int = 24, steps: int = 8):
        self.construct, self.rate, self.seed, self.draws, self.steps = construct, rate, seed, draws, steps
        self.round = 0

    def answer(self, cache: Cache, log_weights: Float[Tensor, "H n"]) -> Answered:
        heads = len(cache.keys)
        self.round += 1
        seeds = [seed_of(self.seed, self.round, h, k) for h in range(heads) for k in range(self.draws)]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        many = Cache(*(x.repeat_interleave(self.draws, dim=0) for x in (cache.keys, cache.values)))
        drawn = self.construct(many, self.rate.size, self.rate.rho, generators)
        indices = drawn.indices.unflatten(0, (heads, self.draws))
        first = first_queries(cache.keys, self.rate.rho, 32).unsqueeze(1).expand(-1, self.draws, -1, -1)
        pool = Pool(_mask(indices, cache.n), first).worst(cache, log_weights, _QUERIES)
        pool = pool.climbed(cache, log_weights, self.rate.rho, self.steps)
        return Answered(pool, pool.errors(cache, log_weights).amax(-1).mean(-1))


def _mask(indices: Int[Tensor, "H P m"], n: int) -> Tensor:
    return torch.zeros(*indices.shape[:-1], n, dtype=torch.bool).scatter_(-1, indices, True)
