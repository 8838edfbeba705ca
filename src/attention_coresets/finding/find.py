"""Finds the smallest coreset of a cache of which every head's certificate, or found error, is at most epsilon."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary import worst_query
from attention_coresets.attention import Cache, Coreset
from attention_coresets.checks import positive
from attention_coresets.coresets.base import check_plain, check_size, everything
from attention_coresets.devices import one_line_of_memory
from attention_coresets.finding.heads import CANDIDATES, CERTIFICATE, EVERYTHING, MOST_REFINED, REFINED, Heads, Tried
from attention_coresets.finding.sizes import RESOLUTION, smallest_size
from attention_coresets.registry import check_name
from attention_coresets.theory import check_rho


@dataclass(frozen=True)
class Found:
    """A coreset, and what is known of it.

    Parameters
    ----------
    coreset : Coreset
        Of one size for all heads; log-weights are float32.
    construction : str
        An arm of coresets/arms.py, that arm "+ certificate" where the rounds of kernel/certified.py follow, or "all
        tokens".
    certificate : Float[Tensor, "*heads"]
        Proven: no query of the ball errs by more. 0 where all tokens are kept.
    error : Float[Tensor, "*heads"]
        Found: some query of the ball errs by this much. Another may err by more.
    tried : tuple[Tried, ...]
        All that was tried, in order.
    """

    coreset: Coreset
    construction: str
    certificate: Float[Tensor, "*heads"]
    error: Float[Tensor, "*heads"]
    tried: tuple[Tried, ...]

    @property
    def size(self) -> int:
        """Returns the number of tokens of each head."""
        return self.coreset.size


def find_coreset(
    cache: Cache,
    rho: float,
    epsilon: float | None = None,
    *,
    size: int | None = None,
    by: str = CERTIFICATE,
    seed: int = 0,
    report: Callable[[Tried], None] | None = None,
) -> Found:
    """Finds the smallest coreset of which every head's certificate is at most epsilon, for all queries |q| <= rho.

    The certificate is proven (docs/certificates.md). That no smaller coreset has one is not: good constructions
    (`CANDIDATES`) are tried one after the other, each at larger or smaller sizes until one meets epsilon and one does
    not, and then between the two, to 3 % of the size. Certificates and errors are not monotone in the size, so that a
    smaller size may have been passed over. Where no other size meets epsilon, the coreset is the whole cache.

    During the search ceilings share sums over the cache. The certificate of what is returned is computed anew, by
    `worst_query(..., certify=True)`, of the very bits returned.

    Cost: on 4 heads of 4096 tokens in R^64 a minute on two cores, by certificate. By error each try takes an ascent,
    and the last candidate minutes. Memory: for each head n J (dv + 1) float64 numbers, J about 20, at most 2 GB
    together, and some n x n matrices for one head.

    Parameters
    ----------
    cache : Cache
        Without weights; any number of heads.
    rho : float
        The largest norm of a query that the coreset is to answer.
    epsilon : float, optional
        In the unit of the values.
    size : int, optional
        In place of epsilon: the size, at which the candidate of least certificate, or error, is returned.
    by : str
        "certificate", or "error": that which ascent finds, which proves nothing.
    seed : int
        Of all random numbers.
    report : Callable, optional
        Called with all that is tried, as it comes.

    Returns
    -------
    Found

    Raises
    ------
    ValueError
        For rho or epsilon that is not positive, a size below 1, both epsilon and size or neither, another `by`, or a
        WeightedCache.
    """
    rho = check_rho(rho)
    check_name(by, tuple(CANDIDATES), "by")
    check_plain(cache)
    if (epsilon is None) == (size is None):
        raise ValueError("find_coreset takes either epsilon or size; give one of them")
    with one_line_of_memory(f"find_coreset on {cache.heads.numel()} heads of {cache.n} tokens", cache.keys.device):
        search = _Search(cache, rho, by, seed, report)
        if epsilon is not None:
            positive(epsilon=epsilon)
            search.all_sizes(epsilon)
        elif size is not None and check_size(size) < cache.n:
            search.one_size(size)
        return search.result(torch.inf if epsilon is None else epsilon)


class _Search:
    """What has been tried, and the coresets that met what was asked."""

    def __init__(self, cache: Cache, rho: float, by: str, seed: int, report: Callable[[Tried], None] | None) -> None:
        self.cache, self.rho, self.by, self.report = cache, rho, by, report
        self.heads = Heads(cache.flat(), rho, by, seed)
        self.tried: list[Tried] = []
        self.met: dict[Tried, Coreset] = {}

    def all_sizes(self, epsilon: float) -> None:
        """Tries every candidate, the first at all sizes and each later one at those below the best so far."""
        best, first = self.cache.n, max(1, self.cache.n // 8)
        for name in CANDIDATES[self.by]:
            if best > 1 and (name != REFINED or best <= MOST_REFINED):
                best = smallest_size(lambda size, name=name: self.value(name, size, epsilon), epsilon, first, best)
            first = max(1, best - max(1, best // RESOLUTION))

    def one_size(self, size: int) -> None:
        """Tries every candidate at a size."""
        for name in CANDIDATES[self.by]:
            if name != REFINED or size <= MOST_REFINED:
                self.value(name, size, torch.inf)

    def value(self, name: str, size: int, epsilon: float) -> float:
        """Tries a candidate at a size, and keeps what it came to."""
        tried, made = self.heads.tried(name, size, epsilon)
        self.tried.append(tried)
        if tried.value <= epsilon:
            parts = zip(*((one.indices, one.log_weights) for one in made), strict=True)
            self.met[tried] = Coreset(*(torch.stack(part).reshape(*self.cache.heads, size) for part in parts))
        if self.report:
            self.report(tried)
        return tried.value

    def result(self, epsilon: float) -> Found:
        """Returns the smallest coreset that meets epsilon anew, the one of least value among these."""
        for tried, coreset in sorted(self.met.items(), key=lambda item: (item[0].size, item[0].value)):
            worst = worst_query(self.cache, coreset, self.rho, certify=True)
            assert worst.certificate is not None, "asked for"
            if bool(((worst.certificate if self.by == CERTIFICATE else worst.error) <= epsilon).all()):
                return Found(coreset, tried.construction, worst.certificate, worst.error, tuple(self.tried))
        exact = torch.zeros(self.cache.heads, dtype=torch.float64, device=self.cache.keys.device)
        whole = everything(self.cache)
        whole = Coreset(whole.indices, torch.zeros_like(whole.indices, dtype=torch.float32))
        return Found(whole, EVERYTHING, exact, exact, tuple(self.tried))
