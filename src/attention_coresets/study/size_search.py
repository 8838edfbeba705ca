"""Search for the size a coreset needs: geometric bisection that evaluates few sizes and returns an interval."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from attention_coresets.adversary import worst_query
from attention_coresets.attention import Cache, Coreset

Construct = Callable[..., Coreset]


@dataclass(frozen=True)
class SizeSearch:
    """The size needed lies in ``(lo, hi]``. Status as in `stats.sizes`: "interval", "left" (the smallest size asked
    already suffices, lo = 0) or "right" (the largest does not, hi = inf); "budget" where the evaluations ran out while
    hi / lo was still above the ratio. `evaluations` holds (size, share of replicates within epsilon), in order."""

    lo: float
    hi: float
    status: str
    evaluations: tuple[tuple[int, float], ...]


def search_size(
    evaluate: Callable[[int], Float[np.ndarray, "replicates"]],
    n: int,
    epsilon: float,
    delta: float = 0.5,
    *,
    ratio: float = 1.1,
    smallest: int = 1,
    largest: int | None = None,
    confirm: int = 1,
    max_evaluations: int = 60,
) -> SizeSearch:
    """The smallest size in [smallest, largest] with P(err <= epsilon) >= 1 - delta, up to a factor `ratio`.

    `evaluate(size)` returns the errors of all replicates; it is asked at most once a size, and never at size n, where
    the error is zero. Both ends count from above as in `stats.sizes`: lo is the largest size that was seen to fail.
    Error curves are not monotone, so the `confirm` steps of `ratio` above hi are asked too, and a failure there moves
    the search up; what lies between the sizes asked is not known. About log2(log(n) / log(ratio)) + confirm
    evaluations. Raises ValueError on bad limits or NaN errors.
    """
    top = n if largest is None else largest
    _check(n, epsilon, delta, ratio, smallest, top, max_evaluations)
    shares: dict[int, float] = {n: 1.0} if top == n else {}
    evaluations: list[tuple[int, float]] = []
    while (size := _next_size(shares, 1 - delta, ratio, smallest, top, confirm)) is not None:
        if len(evaluations) == max_evaluations:
            return _result(shares, 1 - delta, top, "budget", evaluations)
        errors = np.asarray(evaluate(size), dtype=float)
        if np.isnan(errors).any():
            raise ValueError(f"the errors at size {size} hold NaN")
        shares[size] = float((errors <= epsilon).mean())
        evaluations.append((size, shares[size]))
    return _result(shares, 1 - delta, top, "interval", evaluations)


def minimal_size(
    cache: Cache,
    construct: Construct,
    rho: float,
    epsilon: float,
    *,
    delta: float = 0.5,
    seeds: Iterable[int] = range(5),
    ratio: float = 1.1,
    smallest: int = 1,
    largest: int | None = None,
    max_evaluations: int = 60,
    **adversary: int,
) -> SizeSearch:
    """How many tokens `construct` needs for a worst-case error epsilon on `cache`, over seeds and heads as replicates.

    `construct` is a construction of `make_coreset`; `adversary` goes to `worst_query` (restarts, steps, polish). The
    same seed draws the same coreset and starts whatever the order of the search. Cost: one construction and one
    worst-case search a seed and size asked.
    """
    chosen = tuple(seeds)
    if not chosen:
        raise ValueError("minimal_size needs at least one seed")

    def evaluate(size: int) -> np.ndarray:
        return np.concatenate([_worst_errors(cache, construct, size, rho, seed, adversary) for seed in chosen])

    limits = {"ratio": ratio, "smallest": smallest, "largest": largest, "max_evaluations": max_evaluations}
    return search_size(evaluate, cache.n, epsilon, delta, **limits)


def _worst_errors(cache: Cache, construct: Construct, size: int, rho: float, seed: int, adversary: dict) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    coreset = construct(cache, size, rho, generator)
    worst = worst_query(cache, coreset, rho, generator=generator, **adversary)
    return worst.error.reshape(-1).double().cpu().numpy()


def _bracket(shares: dict[int, float], wanted: float) -> tuple[int, int | None]:
    """The largest size seen to fail (0: none) and the smallest above it seen to pass."""
    lo = max((m for m, share in shares.items() if share < wanted - 1e-9), default=0)
    return lo, min((m for m in shares if m > lo), default=None)


def _next_size(
    shares: dict[int, float], wanted: float, ratio: float, smallest: int, top: int, confirm: int
) -> int | None:
    """Ends first, then the geometric middle of the bracket, then the sizes that confirm its upper end."""
    if top not in shares:
        return top
    lo, hi = _bracket(shares, wanted)
    if hi is None:
        return None
    if lo == 0 and smallest not in shares:
        return smallest
    if lo > 0 and hi > lo + 1 and hi > lo * ratio * (1 + 1e-12):
        return min(max(round((lo * hi) ** 0.5), lo + 1), hi - 1)
    above = (max(round(hi * ratio**k), hi + k) for k in range(1, confirm + 1))
    return next((m for m in above if m < top and m not in shares), None)


def _result(shares: dict[int, float], wanted: float, top: int, status: str, evaluations: list) -> SizeSearch:
    lo, hi = _bracket(shares, wanted)
    if status == "interval":
        status = "right" if lo == top else "left" if lo == 0 else status
    return SizeSearch(float(lo), float("inf") if hi is None else float(hi), status, tuple(evaluations))


def _check(
    n: int, epsilon: float, delta: float, ratio: float, smallest: int, largest: int, max_evaluations: int
) -> None:
    if not 1 <= smallest <= largest <= n:
        raise ValueError(f"sizes need 1 <= smallest <= largest <= n, got {smallest}, {largest}, {n}")
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be in [0, 1), got {delta}")
    if not ratio > 1 or max_evaluations < 1:
        raise ValueError(f"need ratio > 1 and max_evaluations >= 1, got {ratio} and {max_evaluations}")
