"""Makes coresets of one head after the other by the constructions that are tried, and judges them."""

from dataclasses import dataclass

import torch

from attention_coresets.adversary import values_certificate, worst_query
from attention_coresets.adversary.difference import differences
from attention_coresets.adversary.subsets import SubsetCeilings
from attention_coresets.attention import Cache, Coreset, calm
from attention_coresets.coresets import make_coreset
from attention_coresets.coresets.arms import ARMS
from attention_coresets.coresets.kernel.certified import head_of, lowered

CERTIFICATE, ERROR = "certificate", "error"
EVERYTHING = "all tokens"
REFINED = "herding_tilted + certificate"  # the tokens of herding, then the rounds of kernel/certified.py
# labels of coresets/arms.py, in the order they are tried in: each has to beat the size found so far
CANDIDATES = {
    CERTIFICATE: ("herding_tilted", REFINED, "walk_tilted", "walk_free_kernel_swaps"),
    ERROR: ("herding_tilted", REFINED, "walk_tilted", "walk_free_kernel_swaps", "minimax_free"),
}
MOST_REFINED = 1024  # tokens: what a round of exchanges costs grows with the square of the size
_MOST_NUMBERS = 2**28  # of sums over the cache that are kept: 2 GB


@dataclass(frozen=True)
class Tried:
    """A construction at a size, and the largest certificate, or error, of its heads.

    Heads are looked at hardest first, and none after one above epsilon: such a value is that of the first that fails.
    """

    construction: str
    size: int
    value: float


class Heads:
    """The heads of a flat cache, and what judging their coresets shares."""

    def __init__(self, cache: Cache, rho: float, by: str, seed: int) -> None:
        self.cache, unit = calm(cache, torch.float64)
        self.units = unit.flatten().tolist()
        self.rho, self.by, self.seed = rho, by, seed
        self.last = [0.0] * len(self.units)  # what each head came to when it was last looked at
        self._known: dict[int, SubsetCeilings] = {}

    def tried(self, name: str, size: int, epsilon: float) -> tuple[Tried, list[Coreset]]:
        """Tries a construction at a size: on all heads, or up to the first above epsilon."""
        made: dict[int, Coreset] = {}
        for h in sorted(range(len(self.last)), key=lambda h: -self.last[h]):
            made[h] = self._make(name, h, size)
            self.last[h] = self._value(h, made[h])
            if self.last[h] > epsilon:
                break
        return Tried(name, size, max(self.last[h] for h in made)), [made[h] for h in sorted(made)]

    def _make(self, name: str, h: int, size: int) -> Coreset:
        """Returns the coreset of one head, with log-weights in float32, which are what is judged."""
        arm = ARMS["herding_tilted" if name == REFINED else name]
        coreset = make_coreset(arm.construction, **arm.parameters)(self.cache[h], size, self.rho, self.seed + h)
        if name == REFINED:
            coreset = Coreset(*lowered(self._ceilings(h, coreset), coreset))
        assert coreset.log_weights is not None, "no candidate is of the unweighted model"
        return Coreset(coreset.indices, coreset.log_weights.to(torch.float32))

    def _value(self, h: int, coreset: Coreset) -> float:
        if self.by == ERROR:
            found = worst_query(self.cache[h], coreset, self.rho).error
        else:
            assert coreset.log_weights is not None, "made so"
            kernel = self._ceilings(h, coreset).ceiling(coreset.indices, coreset.log_weights.to(torch.float64))
            found = min(kernel, float(values_certificate(self.cache[h], coreset, self.rho)))
        return float(found) * self.units[h]

    def _ceilings(self, h: int, coreset: Coreset) -> SubsetCeilings:
        """Returns the ceilings about the head's best law, chosen by the first coreset that is looked at."""
        if h not in self._known:
            assert coreset.log_weights is not None, "made so"
            start = (coreset.indices, coreset.log_weights.to(torch.float64))
            laws = [SubsetCeilings(head_of(law, 0), self.rho) for law in differences(self.cache[h], coreset, self.rho)]
            best = min(laws, key=lambda law: law.ceiling(*start))
            if (len(self._known) + 1) * best.panels.numel() > _MOST_NUMBERS and self._known:
                del self._known[next(iter(self._known))]
            self._known[h] = best
        return self._known[h]
