"""The settings of the minimax refinement, and heads at work: their banks of queries, and the best coresets so far."""

from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.ascent import climb
from attention_coresets.adversary.starts import starts
from attention_coresets.attention import Cache, Coreset, WeightedCache, base_weights
from attention_coresets.coresets.minimax.in_step import lower_of
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


class Best(NamedTuple):
    """The coreset of least error that an ascent judged, of each head."""

    error: Float[Tensor, "H"]
    tokens: Int[Tensor, "H m"]
    log_weights: Float[Tensor, "H m"]


class Heads:
    """Heads in step, each with its bank and generator: keys and values centred, values at most 1 in norm."""

    def __init__(self, cache: Cache, rho: float, generators: list[torch.Generator], settings: Minimax) -> None:
        keys, values = (x - x.mean(dim=-2, keepdim=True) for x in (cache.keys, cache.values))
        size, base = values.norm(dim=-1).amax(-1), base_weights(cache)
        self.equal = size <= _SAME * cache.values.abs().amax((-2, -1))  # then every coreset is exact
        unit = size.clamp_min(1e-300).masked_fill(self.equal, torch.inf)
        values = values / unit[:, None, None]
        plain = Cache(keys, values)
        self.cache = plain if base is None else WeightedCache(keys, values, base - base.amax(-1, keepdim=True))
        # climbs only have to find queries and to rank coresets, not to report errors
        self.fast = self.cache.to(torch.float32)
        self.rho, self.settings = rho, settings
        self.generators = generators
        queries = random_queries(self.generators, settings.random, cache.d, rho).to(keys.device)
        self.bank = bank_of(self.cache, queries)
        self.best: Best | None = None

    def only(self, which: list[int]) -> "Heads":
        """Returns some of the heads, with what is known of them; both draw from the same generators."""
        some = copy(self)
        some.equal, some.cache, some.fast = self.equal[which], self.cache[which], self.fast[which]
        some.generators = [self.generators[h] for h in which]
        some.bank = Bank(*(x[which] for x in self.bank))
        some.best = None if self.best is None else Best(*(x[which] for x in self.best))
        return some

    def ascend(self, tokens: Tensor, log_weights: Tensor) -> Best:
        """Climbs from fresh starts and the bank's worst, keeps the worst queries, returns the best coreset so far."""
        s, core = self.settings, Coreset(tokens, log_weights.to(torch.float32))
        fresh = starts(self.fast, core, self.rho, s.restarts, self.generators)
        # the bank's worst queries may be near a maximum of this coreset already
        order = bank_errors(self.cache, self.bank, tokens, log_weights).argsort(dim=-1, descending=True, stable=True)
        worst = along(self.bank.queries, order[:, : s.restarts // 2]).to(torch.float32)
        queries, errors = climb(self.fast, core, self.rho, torch.cat([fresh, worst], dim=-2), s.steps)
        now = Best(errors.amax(-1).to(torch.float64), tokens, log_weights)
        self.best = now if self.best is None else lower_of(self.best, now)
        found = bank_of(self.cache, queries.to(torch.float64))
        order = order[:, : max(0, s.bank - queries.shape[-2])]
        self.bank = Bank(*(torch.cat([x, along(y, order)], dim=-2) for x, y in zip(found, self.bank, strict=True)))
        return self.best


def along(x: Float[Tensor, "H b d"], order: Int[Tensor, "H k"]) -> Float[Tensor, "H k d"]:
    """Returns queries, or the like, in an order of each head's own."""
    return x.gather(-2, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
