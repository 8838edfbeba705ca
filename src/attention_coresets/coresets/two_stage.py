"""Thins a long cache in buckets, then chooses among what is left with its weights."""

from dataclasses import dataclass
from functools import cached_property

from attention_coresets.attention import Coreset, WeightedCache
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.arms import ARMS
from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.balancing.gram_schmidt_walk import GramSchmidtWalk
from attention_coresets.coresets.balancing.kernel_halving import KernelHalving
from attention_coresets.coresets.balancing.refinement import ROUND_SWAPS
from attention_coresets.coresets.base import Construction, Cost, Request
from attention_coresets.coresets.kernel.herding import Herding
from attention_coresets.coresets.randomness import draw, seeded
from attention_coresets.registry import check_name

_FIRST: dict[str, Balancing] = {
    "gram_schmidt_walk": GramSchmidtWalk(recursion="buckets"),
    "kernel_halving": KernelHalving(recursion="buckets"),
    "kernel_halving_swaps": KernelHalving(recursion="buckets", refinement=ROUND_SWAPS),
}
_LAST = {"gram_schmidt_walk": GramSchmidtWalk, "kernel_halving": KernelHalving, "herding": Herding}


@dataclass(frozen=True)
class TwoStage(Construction):
    """Halves the cache in buckets of 512 tokens down to `keep` times the size asked, then lets a slower rule choose.

    The first stage is a balancing rule in the tilted model with `recursion="buckets"`: its log-weights -log pi say for
    how many tokens each of those left stands. The second works on these as on a WeightedCache, at a cost that no longer
    depends on n. A cache of at most `keep` times the size goes to the second stage at once.

    first: "gram_schmidt_walk", "kernel_halving", or "kernel_halving_swaps": kernel halving with swaps after each round.
    last: label of a tilted or free arm (arms.py) that takes weights: of herding, a walk or kernel halving.
    keep: tokens that the first stage leaves for each one asked.

    Cost: O(512 n (d + dv)), or O(512^2 n) for walks, then that of the second stage on keep * size tokens.

    Source: ours; after the stages of Compress++ (Shetty, Dwivedi and Mackey, arXiv 2111.07941).
    """

    takes_weights = True
    first: str = "kernel_halving_swaps"
    last: str = "herding_tilted"
    keep: int = 16

    def __post_init__(self) -> None:
        check_name(self.first, _FIRST, "first")
        check_name(self.last, _labels(), "last")
        if self.keep < 2:
            raise ValueError(f"keep must be at least 2 tokens for each one asked, got {self.keep}")

    @property
    def model(self) -> str:  # type: ignore[override]
        """Returns the second stage's."""
        return self.second.model

    @property
    def agreement(self) -> Agreement:  # type: ignore[override]
        """Returns that of the stage whose runs may differ more."""
        return max(self.thinning.agreement, self.second.agreement, key=list(Agreement).index)

    @cached_property
    def second(self) -> Construction:
        """Returns what chooses among the tokens that the first stage leaves."""
        arm = ARMS[self.last]
        return _LAST[arm.construction](**arm.parameters)

    @cached_property
    def thinning(self) -> Balancing:
        """Returns the first stage."""
        return _FIRST[self.first]

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Adds the flops of the two stages; they hold what the larger one holds."""
        left = min(n, self.keep * size)
        costs = [self.second.cost(left, size, d)]
        if left < n:
            costs.append(self.thinning.cost(n, left, d))
        return Cost(max(cost.numbers for cost in costs), sum(cost.flops for cost in costs))

    def choose(self, request: Request) -> Coreset:
        cache, rho = request.cache, request.rho
        if self.keep * request.size >= cache.n:
            return self.second(cache, request.size, rho, request.generator)
        one, other = draw(request.generator, request.heads, 2).unbind(-1)  # a stage's numbers, whatever the batch
        thin = self.thinning(cache, self.keep * request.size, rho, seeded(one))
        assert thin.log_weights is not None, "the tilted model has weights"
        left = WeightedCache(*cache.take(thin.indices), thin.log_weights)
        chosen = self.second(left, request.size, rho, seeded(other))
        return Coreset(thin.indices.gather(-1, chosen.indices), chosen.log_weights)


def _labels() -> list[str]:
    weighted = (arm for arm in ARMS.values() if arm.parameters.get("model") != "unweighted")
    return [arm.label for arm in weighted if arm.construction in _LAST]
