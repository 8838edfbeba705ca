"""The best possible coreset of a tiny cache, proven: the optimum that constructions are held against.

A mixed-integer program proposes a subset that meets all demands of the queries so far. The adversary answers with
queries where that subset errs too much, and these become demands. It ends when branch and bound certifies a subset, or
HiGHS proves that none is left.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from attention_coresets.attention import Cache, Coreset
from attention_coresets.checks import positive, unit_interval
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.balancing.gram_schmidt_walk import GramSchmidtWalk
from attention_coresets.coresets.balancing.greedy import Greedy
from attention_coresets.coresets.base import MODELS, Construction, Request, check_plain, check_size, everything
from attention_coresets.coresets.exact.demands import Demands
from attention_coresets.coresets.exact.subset_search import Certified, SubsetSearch
from attention_coresets.coresets.kernel.law import capped_marginals, law
from attention_coresets.inputs import least_float32
from attention_coresets.registry import check_name
from attention_coresets.theory import check_rho

LARGEST_N, LARGEST_D = 32, 4
_BANK = 256  # random queries that every search begins with
_STARTS = 8  # random subsets that swaps improve before the first proof


@dataclass(frozen=True)
class Optimum(Construction):
    """Keeps the `size` tokens with the least worst-case error over |q| <= rho, and proves it, head by head.

    No subset has an error that is smaller by more than max(tolerance * error, 1e-5 * radius of the values). The error
    itself is bounded by branch and bound alone. That nothing is better rests on HiGHS, within its own tolerances
    (`choose` in programs.py).

    model: weights of a subset. "unweighted": all 1. "tilted": log-weights -log pi, pi = min(1, c p*) summing to `size`,
        as in tilted constructions of one walk. "free": the best non-negative ones for each subset.
    tolerance: share of the error that counts as nothing.
    seconds: for each head.

    Cost: exponential in n. Needs scipy.

    Raises ValueError for more than 32 tokens or d > 4, and RuntimeError where a head is not proven within `seconds`: it
    never returns an unproven optimum.
    """

    agreement: ClassVar[Agreement] = Agreement.TIES
    model: str = "tilted"
    tolerance: float = 1e-2
    seconds: float = 600.0

    def __post_init__(self) -> None:
        _check(self.model, self.tolerance, self.seconds)

    def choose(self, request: Request) -> Coreset:
        cache, size, rho = request.cache, request.size, request.rho
        keys, values = (x.reshape(-1, *x.shape[-2:]) for x in (cache.keys, cache.values))
        found = [
            best_subset(Cache(k, v), size, rho, model=self.model, tolerance=self.tolerance, seconds=self.seconds)
            for k, v in zip(keys, values, strict=True)
        ]
        indices = torch.stack([c.coreset.indices for c in found]).reshape(*cache.heads, size)
        weights = [c.coreset.log_weights for c in found if c.coreset.log_weights is not None]
        return Coreset(indices, torch.stack(weights).reshape(indices.shape) if weights else None)


def best_subset(
    cache: Cache, size: int, rho: float, *, model: str = "tilted", tolerance: float = 1e-2, seconds: float = 600.0
) -> Certified:
    """Finds the coreset of `Optimum` for one head, with the interval that holds its error.

    No subset of this size has error <= upper - max(tolerance * upper, 1e-5 * radius of the values). Parameters, cost
    and errors are those of `Optimum`.
    """
    _check(model, tolerance, seconds)
    check_size(size)
    problem = _Problem(cache, rho, model)
    if size >= cache.n:
        return Certified(everything(cache), 0.0, 0.0)
    return problem.certified(problem.search(size, tolerance, seconds).best(problem.starts(size)))


def smallest_coreset(
    cache: Cache, rho: float, epsilon: float, *, model: str = "tilted", tolerance: float = 1e-2, seconds: float = 600.0
) -> Certified:
    """Finds the fewest tokens of one head with worst-case error at most epsilon, excluding sizes 1, 2, ... in turn.

    No subset of fewer tokens has error <= epsilon, so the size of the coreset returned is a proven lower bound. It is
    the least size where upper <= epsilon. In any case upper <= epsilon + max(tolerance * epsilon, 1e-5 * radius of the
    values) / 2.

    `seconds` are for each size. Models and errors are those of `Optimum`; ValueError also for epsilon <= 0.
    """
    _check(model, tolerance, seconds)
    positive(epsilon=epsilon)
    problem = _Problem(cache, rho, model)
    for size in range(1, cache.n):
        found = problem.search(size, tolerance, seconds).within(epsilon / problem.radius)
        if found is not None:
            return problem.certified(found)
    return Certified(everything(cache), 0.0, 0.0)


def _check(model: str, tolerance: float, seconds: float) -> None:
    check_name(model, MODELS, "model")
    unit_interval(tolerance=tolerance)
    positive(seconds=seconds)


class _Problem:
    """One head with its values centred and scaled to radius 1, and the demands that all its searches share."""

    def __init__(self, cache: Cache, rho: float, model: str):
        rho = check_rho(rho)
        check_plain(cache)
        if cache.heads:
            raise ValueError(f"the optimum is found one head at a time, got heads {tuple(cache.heads)}")
        if cache.n > LARGEST_N or cache.d > LARGEST_D:
            raise ValueError(
                f"the optimum is for n <= {LARGEST_N} tokens and d <= {LARGEST_D}, got n = {cache.n}, d = {cache.d}"
            )
        self.origin, self.model = cache.keys, model
        keys, values = (x.detach().cpu().to(torch.float64).numpy() for x in (cache.keys, cache.values))
        keys, values = keys - keys.mean(axis=0), values - values.mean(axis=0)
        self.radius = float(np.linalg.norm(values, axis=1).max()) or 1.0
        self.demands = Demands(keys, values / self.radius, rho)
        self.demands.add_queries(_first_bank(keys, rho))
        for token in np.eye(cache.n):
            self.demands.ask(token, np.inf, 1)

    def search(self, size: int, tolerance: float, seconds: float) -> SubsetSearch:
        """Begins a search: weights are 1, or the tilted model's 1 / pi at this size, the unit of free ones too."""
        keys = torch.from_numpy(self.demands.keys)
        log_pi = torch.zeros_like(keys[:, 0])
        if self.model != "unweighted":
            p = law(keys[None], self.demands.rho, "tilted", "auto").log_p
            log_pi = capped_marginals(p, size)[0].clamp_min(1e-300).log()
        return SubsetSearch(self.demands, size, (-log_pi).exp().numpy(), self.model, tolerance, seconds)

    def starts(self, size: int) -> list[np.ndarray]:
        """Returns subsets to begin with: the walk's, greedy's and random ones."""
        generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
        cache = Cache(torch.from_numpy(self.demands.keys), torch.from_numpy(self.demands.values))
        model = "unweighted" if self.model == "unweighted" else "tilted"
        built = [c(cache, size, self.demands.rho, generator) for c in (GramSchmidtWalk(model), Greedy(model))]
        return [c.indices.numpy() for c in built] + [rng.permutation(cache.n)[:size] for _ in range(_STARTS)]

    def certified(self, found: Certified) -> Certified:
        """Returns `found` in the cache's own scale, dtype and device."""
        weights = found.coreset.log_weights
        if weights is not None:
            weights = weights.to(self.origin.device, least_float32(self.origin.dtype))
        coreset = Coreset(found.coreset.indices.to(self.origin.device), weights)
        return Certified(coreset, found.lower * self.radius, found.upper * self.radius)


def _first_bank(keys: np.ndarray, rho: float) -> np.ndarray:
    """Returns queries along and against every key, and random ones in the ball."""
    rng = np.random.default_rng(0)
    directions = np.concatenate([rng.standard_normal((_BANK, keys.shape[1])), keys, -keys])
    radii = np.append(rng.random(_BANK) ** (1 / keys.shape[1]), np.ones(2 * len(keys)))
    return directions * (rho * radii / np.linalg.norm(directions, axis=1).clip(1e-300))[:, None]
