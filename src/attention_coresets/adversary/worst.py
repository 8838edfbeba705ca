"""Finds the worst case of a coreset: the query that the ascent finds, and ceilings that no query exceeds."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.ascent import ascend
from attention_coresets.adversary.certificate import CERTIFICATES
from attention_coresets.adversary.enclosure import MAX_DIMENSION, Enclosure, branch_and_bound
from attention_coresets.attention import Cache, Coreset, calm
from attention_coresets.bodies import QueryBody
from attention_coresets.devices import one_line_of_memory, warn_if_slow
from attention_coresets.inputs import exact_unit
from attention_coresets.masked import moved_to_the_mean
from attention_coresets.theory import LARGEST_RHO

_ROUNDING = 8 * torch.finfo(torch.float64).eps
_NODES = 100_000  # of branch and bound, a head: some ten seconds at d = 4 and n = 512


@dataclass(frozen=True)
class WorstQuery:
    """A lower bound on sup over |q| <= rho of the error, the query that shows it, and upper bounds if asked for.

    Parameters
    ----------
    error : Float[Tensor, "*heads"]
        The error at `query`, float64, in the unit of the values.
    query : Float[Tensor, "*heads d"]
    climbed : Float[Tensor, "*heads"]
        The largest error that a climb found: less than `error` where branch and bound came upon a better query.
    reached : Int[Tensor, "*heads"]
        How many climbs ended within 1 % of the best of them.
    restarts : int
        How many climbs there were.
    ceilings : dict[str, Tensor], optional
        Certificate's name -> ``[*heads]``, each an upper bound on the supremum. None unless asked for.
    enclosure : Enclosure, optional
        What branch and bound found and proved. None unless asked for, and beyond d = 4.
    """

    error: Float[Tensor, "*heads"]
    query: Float[Tensor, "*heads d"]
    climbed: Float[Tensor, "*heads"]
    reached: Int[Tensor, "*heads"]
    restarts: int
    ceilings: dict[str, Tensor] | None = None
    enclosure: Enclosure | None = None

    @property
    def certificate(self) -> Float[Tensor, "*heads"] | None:
        """Returns the least ceiling of each head, None unless asked for."""
        return None if self.ceilings is None else torch.stack(list(self.ceilings.values())).amin(0)

    @property
    def certified_by(self) -> tuple[str, ...] | None:
        """Returns the name of the least ceiling, head by head (flattened), None unless asked for."""
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
    generator: torch.Generator | int | None = None,
    certify: bool = False,
    gap: float = 1e-4,
    racing: bool = False,
) -> WorstQuery:
    """Maximises |Attn(q) - Attn_coreset(q)| over the ball |q| <= rho by gradient ascent, every head at once.

    Attention over a `WeightedCache`, or over a coreset of it, uses its log-weights. The error found is a lower bound on
    the supremum; `certify` adds upper bounds, which are proven in docs/certificates.md.

    Cost: that of `ascend`, and of each certificate.

    Parameters
    ----------
    cache : Cache
    coreset : Coreset
    rho : float
        Radius of the ball.
    body : QueryBody, optional
        Search its queries center + axes u, |u| <= rho, instead of the ball. The query found is one of these, and the
        ceilings hold for all of them.
    restarts : int
        Climbs a head.
    steps : int
        Steps of a climb in float32.
    polish : int
        Steps of the best eighth of the climbs in float64.
    generator : torch.Generator or int, optional
        Draws the random starts. An int is a seed. None: seed 0.
    certify : bool
        Add every certificate that applies: kernel, taylor, values and, up to d = 4 (or 4 axes of the body), branch and
        bound.
    gap : float
        What branch and bound aims at, in the unit of the values; it stops at 100,000 boxes a head.
    racing : bool
        Give up climbs that fall behind, so that there may be twice as many in half the time. See `ascend`.

    Returns
    -------
    WorstQuery

    Raises
    ------
    ValueError
        For rho, counts or gap that are not positive, or a coreset or body that does not fit the cache.
    """
    effort = {"restarts": restarts, "steps": steps, "polish": polish, "generator": generator, "racing": racing}
    if body is not None:
        view, core = body.view(cache), body.inside(coreset, cache)
        return _outside(worst_query(view, core, rho, **effort, certify=certify, gap=gap), body)
    warn_if_slow(cache.keys.device)
    with one_line_of_memory(f"worst_query on {cache.heads.numel()} heads of {cache.n} tokens", cache.keys.device):
        return _found(cache, coreset, rho, certify, gap, **effort)


def _found(cache: Cache, coreset: Coreset, rho: float, certify: bool, gap: float, **effort: Any) -> WorstQuery:
    cache = moved_to_the_mean(cache, coreset, rho)
    (cache, unit), key_unit = calm(cache), _key_unit(cache.keys, rho)
    cache, rho = replace(cache, keys=cache.keys / key_unit), rho * key_unit
    climbed, query, reached = ascend(cache, coreset, rho, **effort)
    found = WorstQuery(climbed, query, climbed, reached, effort["restarts"])
    if certify:
        found = _certified(found, cache, coreset, rho, gap / float(unit.max()))
    return _in_units(found, unit, key_unit)


def _key_unit(keys: Tensor, rho: float) -> float:
    """Returns the power of 2 to divide all keys by, and multiply rho by, as `exact_unit` does for values: mostly 1.

    1 too where keys are equal but for rounding, or where rho could not be multiplied.
    """
    keys = keys.detach().to(torch.float64)
    apart = keys - keys.mean(dim=-2, keepdim=True)
    unit, equal = float(exact_unit(apart.reshape(-1, 1))), float(apart.abs().max()) <= 1e-12 * float(keys.abs().max())
    return 1.0 if equal or not 1 / LARGEST_RHO <= rho * unit <= LARGEST_RHO else unit


def _certified(found: WorstQuery, cache: Cache, coreset: Coreset, rho: float, gap: float) -> WorstQuery:
    # what is proven is of numbers, and an error of zero is computed as one of rounding
    rounding = _ROUNDING * cache.values.to(torch.float64).norm(dim=-1).amax(-1)
    ceilings = {name: certificate(cache, coreset, rho) + rounding for name, certificate in CERTIFICATES.items()}
    if cache.d > MAX_DIMENSION:
        return replace(found, ceilings=ceilings)
    enclosure = branch_and_bound(cache, coreset, rho, gap=gap, nodes=_NODES)
    ceilings |= {"branch_and_bound": enclosure.upper}
    missed = enclosure.lower > found.error  # the climbs have passed by a narrow hill
    error = torch.where(missed, enclosure.lower, found.error)
    query = torch.where(missed[..., None], enclosure.query.to(found.query), found.query)
    return replace(found, error=error, query=query, ceilings=ceilings, enclosure=enclosure)


def _in_units(worst: WorstQuery, unit: Float[Tensor, "*heads 1 1"], key_unit: float) -> WorstQuery:
    """Turns what was found of values over `unit`, and keys over `key_unit`, into the same of values and keys."""
    unit, enclosure = unit[..., 0, 0].to(torch.float64), worst.enclosure
    if enclosure is not None:
        lower, upper = enclosure.lower * unit, enclosure.upper * unit
        enclosure = replace(enclosure, lower=lower, upper=upper, query=enclosure.query / key_unit)
    ceilings = None if worst.ceilings is None else {name: x * unit for name, x in worst.ceilings.items()}
    errors = {"error": worst.error * unit, "climbed": worst.climbed * unit}
    return replace(worst, **errors, query=worst.query / key_unit, ceilings=ceilings, enclosure=enclosure)


def _outside(worst: WorstQuery, body: QueryBody) -> WorstQuery:
    """Turns what was found in the view of a body into the same with queries of the cache."""

    def query(u: Tensor) -> Tensor:
        return body.queries(u.unsqueeze(-2)).squeeze(-2)

    enclosure = worst.enclosure
    enclosure = None if enclosure is None else replace(enclosure, query=query(enclosure.query))
    return replace(worst, query=query(worst.query), enclosure=enclosure)
