"""The best subset of a tiny cache among all of its size: every one is screened, and the few that are left are climbed.

The error of a subset at one query is a lower bound of its worst-case error. So the least, over all subsets, of the
largest error at a bank of queries is a lower bound of the best subset's worst-case error, proven up to rounding. The
bank grows by the worst queries of the subsets that look best, until the bound meets what one of them attains.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.ascent import ascend, climb
from attention_coresets.attention import Cache, Coreset
from attention_coresets.hardness.pool import first_queries, indices_of

LARGEST_N = 20  # 184,756 subsets of 10
_TOGETHER = 2**17  # subsets x queries x values evaluated together
_SCREENINGS = 50
_FIRST = 64  # random queries that every bank begins with
_SCREEN = 2  # queries after which subsets that are beaten are dropped
_CLIMBS = 6  # of a subset, each from a query of the bank where it errs most


@dataclass(frozen=True)
class BestSubset:
    """The best subset found and the two ends of what the least worst-case error can be.

    Parameters
    ----------
    indices : Int[Tensor, "k m"]
        The best subsets found, best first.
    errors : Float[Tensor, "k"]
        Their worst-case errors, as far as climbing found them. The first is the value of the optimum.
    queries : Float[Tensor, "k b d"]
        Queries where each of them errs most.
    proven : float
        No subset of this size has a smaller worst-case error (up to rounding).
    bank : Float[Tensor, "q d"]
        The queries that show it.
    """

    indices: Int[Tensor, "k m"]
    errors: Float[Tensor, "k"]
    queries: Float[Tensor, "k b d"]
    proven: float
    bank: Float[Tensor, "q d"]


def best_of_all(
    cache: Cache, log_weights: Float[Tensor, "n"], size: int, rho: float, *, tolerance: float = 1e-3
) -> BestSubset:
    """Finds the subset of `size` tokens with the least worst-case error over |q| <= rho, over all subsets.

    A kept token i weighs exp(log_weights_i). `screen_all` finds the subset; an ascent from starts of its own
    (`adversary.ascent.ascend`) then looks for a query where it errs more than was known. Where there is one the
    screening begins anew with that query in the bank.

    Cost: that of `screen_all`, two or three times.

    Parameters
    ----------
    cache : Cache
        One head, of at most 20 tokens.
    log_weights : Float[Tensor, "n"]
    size : int
    rho : float
    tolerance : float
        Relative distance of the two ends, and of what either way to the worst query finds.

    Raises
    ------
    ValueError
        For more than 20 tokens, or a size that leaves none or all of them.
    RuntimeError
        Where 50 screenings leave a query unseen.
    """
    bank: Tensor | None = None
    for _ in range(_SCREENINGS):
        found = screen_all(cache, log_weights, size, rho, bank=bank, tolerance=tolerance)
        best = found.indices[0]
        worst = ascend(cache, Coreset(best, log_weights[best]), rho)
        if float(worst.error) <= (1 + tolerance) * float(found.errors[0]):
            return found
        bank = torch.cat([worst.query.unsqueeze(0), found.bank])
    raise RuntimeError(f"{_SCREENINGS} screenings have not found the best subset; allow a larger tolerance")


@torch.no_grad()
def screen_all(
    cache: Cache,
    log_weights: Float[Tensor, "n"],
    size: int,
    rho: float,
    *,
    bank: Float[Tensor, "q d"] | None = None,
    guesses: Int[Tensor, "g m"] | None = None,
    rounds: int = 60,
    top: int = 16,
    steps: int = 20,
    tolerance: float = 1e-3,
) -> BestSubset:
    """Finds a subset of `size` tokens with the least error at a bank of queries that grows, over all subsets.

    Arguments that `best_of_all` has, and errors, are as there. Ends once proven >= (1 - tolerance) errors[0], or after
    `rounds` rounds: each climbs from the worst queries of the `top` subsets that err least at the bank, and adds where
    they arrive. What is proven holds however early it ends.

    Cost: 2 n (dv + 1) S flops a query of the bank, S = binomial(n, size), less and less as subsets are dropped.

    Parameters
    ----------
    bank : Float[Tensor, "q d"], optional
        Queries to begin with beside random ones.
    guesses : Int[Tensor, "g m"], optional
        Subsets that may be good: the better the best of them, the fewer subsets are evaluated at every query.
    rounds, top, steps : int
        Rounds, subsets a round, steps of a climb.
    """
    if not 0 < size < cache.n <= LARGEST_N:
        raise ValueError(f"all subsets are tried for 0 < size < n <= {LARGEST_N}, got size {size} of n = {cache.n}")
    screen = _Screen(cache, log_weights, size, rho)
    first = first_queries(cache.keys, rho, _FIRST)
    first = first if bank is None else torch.cat([bank, first])
    if guesses is not None:
        kept = torch.zeros(len(guesses), cache.n, dtype=torch.float64).scatter_(-1, guesses, 1.0)
        screen.climb(kept, first, steps)
        first = torch.cat([screen.arrived, first])
    screen.ask(first)
    for _ in range(rounds):
        if screen.proven >= (1 - tolerance) * screen.upper:
            break
        screen.climb(screen.take(top), screen.bank, steps)
        screen.ask(screen.arrived)
    return screen.found()


class _Screen:
    """Every subset that may still be the best, with the largest error that it is known to have."""

    def __init__(self, cache: Cache, log_weights: Tensor, size: int, rho: float):
        self.cache, self.log_weights, self.rho = cache, log_weights, rho
        self.kept = _subsets(cache.n, size)  # [S, n], float64
        self.low = torch.zeros(len(self.kept), dtype=torch.float64)
        self.bank = self.arrived = torch.zeros(0, cache.d, dtype=torch.float64)
        self.upper, self.climbed = torch.inf, []

    @property
    def proven(self) -> float:
        """A lower bound on every subset's worst-case error; those dropped err by at least `upper`."""
        return min(self.upper, float(self.low.min())) if len(self.low) else self.upper

    def take(self, top: int) -> Float[Tensor, "t n"]:
        """Removes the `top` subsets that look best and returns them: once climbed they are settled."""
        best = self.low.topk(min(top, len(self.low)), largest=False).indices
        kept, rest = self.kept[best], torch.ones_like(self.low, dtype=torch.bool).index_fill_(0, best, False)
        self.kept, self.low = self.kept[rest], self.low[rest]
        return kept

    def climb(self, kept: Float[Tensor, "t n"], queries: Float[Tensor, "q d"], steps: int) -> None:
        """Climbs from the worst `queries` of each subset; where each ends highest joins `arrived`."""
        known = subset_errors(self.cache, self.log_weights, kept, queries)  # [t, q]
        first = queries[known.topk(min(_CLIMBS, known.shape[-1])).indices]
        reached, errors = climb_subsets(self.cache, self.log_weights, kept, self.rho, first, steps)
        self.climbed.append((kept, reached, errors))
        self.upper = min(self.upper, float(errors.amax(-1).min()))
        self.arrived = reached.gather(1, errors.argmax(-1)[:, None, None].expand(-1, 1, self.cache.d)).squeeze(1)

    def found(self) -> BestSubset:
        """The subsets climbed, best first."""
        kept, queries, errors = (torch.cat(part) for part in zip(*self.climbed, strict=True))
        order = errors.amax(-1).argsort()
        return BestSubset(indices_of(kept[order] > 0), errors.amax(-1)[order], queries[order], self.proven, self.bank)

    def ask(self, queries: Float[Tensor, "q d"]) -> None:
        """Raises each subset's error by new queries, and drops the subsets that err by at least `upper`."""
        self.bank = torch.cat([self.bank, queries])
        for some in queries.split(_SCREEN):
            width = max(1, _TOGETHER // (len(some) * (self.cache.values.shape[-1] + 1)))
            parts = [subset_errors(self.cache, self.log_weights, kept, some) for kept in self.kept.split(width)]
            self.low = torch.maximum(self.low, torch.cat([part.amax(-1) for part in parts]))
            alive = self.low < self.upper
            self.kept, self.low = self.kept[alive], self.low[alive]


def subset_errors(
    cache: Cache, log_weights: Float[Tensor, "n"], kept: Float[Tensor, "s n"], queries: Float[Tensor, "q d"]
) -> Float[Tensor, "s q"]:
    """The error of each subset (1 where a token is kept, 0 elsewhere) at each query.

    With y_i = e^{<q, k_i>} and W_i the weights it is |sum_kept W_i y_i (v_i - Attn(q))| / sum_kept W_i y_i.
    """
    logits = queries @ cache.keys.mT  # [q, n]
    exact = logits.softmax(-1) @ cache.values  # [q, dv]
    weighted = (logits + log_weights).softmax(-1)  # [q, n]
    away = weighted.unsqueeze(-1) * (cache.values - exact.unsqueeze(1))  # [q, n, dv]
    sums = kept @ away.transpose(0, 1).flatten(1)  # [s, q dv]
    return sums.unflatten(-1, exact.shape).norm(dim=-1) / (kept @ weighted.mT)


def climb_subsets(
    cache: Cache,
    log_weights: Float[Tensor, "n"],
    kept: Tensor,
    rho: float,
    queries: Float[Tensor, "s b d"],
    steps: int,
) -> tuple[Float[Tensor, "s b d"], Float[Tensor, "s b"]]:
    """Climbs for every subset from its own queries (`adversary.climb`): queries reached, and the errors there."""
    indices = indices_of(kept > 0)
    heads = Cache(cache.keys.expand(len(kept), -1, -1), cache.values.expand(len(kept), -1, -1))
    return climb(heads, Coreset(indices, log_weights[indices]), rho, queries, steps)


@lru_cache(maxsize=4)
def _subsets(n: int, size: int) -> Float[Tensor, "s n"]:
    """All subsets of `size` of n tokens, 1.0 where a token is kept."""
    chosen = np.array(list(combinations(range(n), size)))
    kept = np.zeros((len(chosen), n))
    np.put_along_axis(kept, chosen, 1.0, axis=1)
    return torch.from_numpy(kept)
