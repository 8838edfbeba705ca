"""The worst case of a coreset: the query that the ascent finds, and ceilings that no query exceeds."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.ascent import ascend
from attention_coresets.adversary.certificate import CERTIFICATES
from attention_coresets.adversary.enclosure import MAX_DIMENSION, Enclosure, branch_and_bound
from attention_coresets.attention import Cache, Coreset
from attention_coresets.bodies import QueryBody

_NODES = 100_000  # of branch and bound, a head: some ten seconds at d = 4 and n = 512


@dataclass(frozen=True)
class WorstQuery:
    """A lower bound on sup over |q| <= rho of the error, the query that shows it, and upper bounds if asked for.

    error ``[*heads]``, float64, evaluated at query ``[*heads, d]``; reached ``[*heads]``: how many of the `restarts`
    climbs ended within 1 % of the best. ceilings: certificate's name -> ``[*heads]``, each an upper bound on the
    supremum, None unless asked for; enclosure: what branch and bound found and proved, None beyond d = 4.
    """

    error: Float[Tensor, "*heads"]
    query: Float[Tensor, "*heads d"]
    reached: Int[Tensor, "*heads"]
    restarts: int
    ceilings: dict[str, Tensor] | None = None
    enclosure: Enclosure | None = None

    @property
    def certificate(self) -> Float[Tensor, "*heads"] | None:
        """The least ceiling of each head, None unless asked for."""
        return None if self.ceilings is None else torch.stack(list(self.ceilings.values())).amin(0)

    @property
    def certified_by(self) -> tuple[str, ...] | None:
        """The name of the least ceiling, head by head (flattened), None unless asked for."""
        if self.ceilings is None:
            return None
        least = torch.stack(list(self.ceilings.values())).argmin(0).flatten().tolist()
        return tuple(list(self.ceilings)[i] for i in least)


def worst_query(
    cache: Cache,
    coreset: Coreset,
    rho: float,
    *,
    body: QueryBody | None = None,
    restarts: int = 64,
    steps: int = 60,
    polish: int = 80,
    generator: torch.Generator | None = None,
    certify: bool = False,
    gap: float = 1e-4,
) -> WorstQuery:
    """Maximise |Attn(q) - Attn_coreset(q)| over the ball |q| <= rho by gradient ascent (`ascend`); every head at once.

    `body`: over its queries center + axes u, |u| <= rho, instead; the query found is one of these, the ceilings hold
    for all of them, and branch and bound applies where the body has at most 4 axes. A WeightedCache's attention has its
    log-weights, and so have a coreset's of it.

    `certify` adds every certificate that applies: kernel, taylor, values (certificate.py), and up to d = 4 branch and
    bound to `gap` or 100,000 boxes a head. Cost: that of `ascend`, and of each certificate. Raises ValueError for rho,
    counts or gap that are not positive.
    """
    if body is not None:
        view, core = body.view(cache), body.inside(coreset, cache)
        options = {"restarts": restarts, "steps": steps, "polish": polish, "generator": generator}
        return _outside(worst_query(view, core, rho, **options, certify=certify, gap=gap), body)
    found = ascend(cache, coreset, rho, restarts=restarts, steps=steps, polish=polish, generator=generator)
    if not certify:
        return WorstQuery(*found, restarts)
    ceilings = {name: certificate(cache, coreset, rho) for name, certificate in CERTIFICATES.items()}
    if cache.d > MAX_DIMENSION:
        return WorstQuery(*found, restarts, ceilings)
    enclosure = branch_and_bound(cache, coreset, rho, gap=gap, nodes=_NODES)
    return WorstQuery(*found, restarts, ceilings | {"branch_and_bound": enclosure.upper}, enclosure)


def _outside(worst: WorstQuery, body: QueryBody) -> WorstQuery:
    """What was found in the view of a body, with queries of the cache."""

    def query(u: Tensor) -> Tensor:
        return body.queries(u.unsqueeze(-2)).squeeze(-2)

    enclosure = worst.enclosure
    enclosure = None if enclosure is None else replace(enclosure, query=query(enclosure.query))
    return replace(worst, query=query(worst.query), enclosure=enclosure)
