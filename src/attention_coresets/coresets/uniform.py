"""Uniform sampling without replacement: the baseline every construction must beat."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.size import check_plain, check_sinks, check_size, everything
from attention_coresets.coresets.uniforms import Generators, draw
from attention_coresets.theory import check_rho


@dataclass(frozen=True)
class Uniform:
    """`size` tokens uniformly at random, unweighted.

    sinks = s keeps the first s tokens always (a language model's attention sinks, where the cache is in order of
    position) and gives each other token kept the log-weight log((n - s) / (size - s)). Cost O(n log n).
    """

    agreement: ClassVar[Agreement] = Agreement.TOKENS
    sinks: int = 0

    def __post_init__(self) -> None:
        if self.sinks < 0:
            raise ValueError(f"sinks must be at least 0, got {self.sinks}")

    @property
    def model(self) -> str:
        """The coreset model: kept sinks make the others carry weights."""
        return "free" if self.sinks else "unweighted"

    def __call__(self, cache: Cache, size: int, rho: float, generator: Generators) -> Coreset:
        """A coreset of exactly `size` tokens a head; rho plays no part."""
        check_rho(rho)
        check_size(size)
        check_plain(cache)
        if size >= cache.n:
            return everything(cache)
        check_sinks(self.sinks, size)
        rank = draw(generator, cache.heads.numel(), cache.n)
        rank[:, : self.sinks] = -1.0
        chosen = rank.argsort(dim=-1)[:, :size].sort(dim=-1).values.reshape(*cache.heads, size).to(cache.keys.device)
        if self.sinks == 0:
            return Coreset(chosen)
        rest = math.log((cache.n - self.sinks) / (size - self.sinks))
        log_weights = torch.full_like(chosen, rest, dtype=cache.keys.dtype)
        return Coreset(chosen, log_weights.masked_fill_(chosen < self.sinks, 0.0))
