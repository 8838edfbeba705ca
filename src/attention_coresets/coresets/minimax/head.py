"""The settings of the minimax refinement, and one head at work: its bank of queries, and the best coreset so far."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attention_coresets.adversary.ascent import climb
from attention_coresets.adversary.starts import starts
from attention_coresets.attention import Cache, Coreset, WeightedCache, base_weights
from attention_coresets.coresets.minimax.query_bank import Bank, bank_errors, bank_of, random_queries

_SAME = 1e-12  # of the largest value: values that differ by less are equal


@dataclass(frozen=True)
class Minimax:
    """How the refinement is done. The defaults are the construction; each flag leaves out one step, for the ablation.

    rounds: how often the refinement ascends, adds what it found to the bank of queries, and improves.
    random: random queries that the bank begins with.
    restarts: climbs from fresh starts in each round; half as many more start from the bank's worst queries.
    steps: steps of a climb.
    bank: queries that the bank holds after a round: those just found, and the worst of the others.
    ascents: False leaves the random queries alone in the bank.
    exchange: False keeps the tokens. Of the free model only.
    weights: False returns what the exchange gives, and no ascent judges it. Of the free model only.
    portfolio: True looks for tokens to begin with in many places. Not of the free model.

    Raises ValueError for a count below 1.
    """

    rounds: int = 8
    random: int = 2048
    restarts: int = 192
    steps: int = 12
    bank: int = 2048
    ascents: bool = True
    exchange: bool = True
    weights: bool = True
    portfolio: bool = False

    def __post_init__(self) -> None:
        for name in ("rounds", "random", "restarts", "steps", "bank"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Head:
    """One head (an axis of length 1) with its bank and generator: keys and values centred, values at most 1 in norm."""

    def __init__(self, cache: Cache, rho: float, generator: torch.Generator, settings: Minimax) -> None:
        keys, values = (x - x.mean(dim=-2, keepdim=True) for x in (cache.keys, cache.values))
        size = values.norm(dim=-1).max()
        self.equal = bool(size <= _SAME * cache.values.abs().max())  # then every coreset is exact
        values, base = values / size.clamp_min(1e-300), base_weights(cache)
        self.cache = Cache(keys, values) if base is None else WeightedCache(keys, values, base - base.max())
        # climbs only have to find queries and to rank coresets, not to report errors
        self.fast = self.cache.to(torch.float32)
        self.rho, self.settings = rho, settings
        self.generator = generator
        queries = random_queries([self.generator], settings.random, cache.d, rho).to(keys.device)
        self.bank = bank_of(self.cache, queries)
        self.best = (math.inf, torch.empty(0), torch.empty(0))  # error found, tokens, log-weights

    def ascend(self, tokens: Tensor, log_weights: Tensor) -> None:
        """Climbs from fresh starts and the bank's worst, notes the coreset if it is best, keeps the worst queries."""
        s, core = self.settings, Coreset(tokens, log_weights.to(torch.float32))
        fresh = starts(self.fast, core, self.rho, s.restarts, self.generator)
        # the bank's worst queries may be near a maximum of this coreset already
        order = bank_errors(self.cache, self.bank, tokens, log_weights)[0].argsort(descending=True, stable=True)
        worst = self.bank.queries[:, order[: s.restarts // 2]].to(torch.float32)
        queries, errors = climb(self.fast, core, self.rho, torch.cat([fresh, worst], dim=-2), s.steps)
        if float(errors.max()) < self.best[0]:
            self.best = (float(errors.max()), tokens, log_weights)
        found = bank_of(self.cache, queries.to(torch.float64))
        order = order[: max(0, s.bank - queries.shape[-2])]
        self.bank = Bank(*(torch.cat([x, y[:, order]], dim=-2) for x, y in zip(found, self.bank, strict=True)))
