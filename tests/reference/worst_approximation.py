"""The worst query found for any approximation of attention, by gradient ascent through automatic differentiation."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, attend
from attention_coresets.coresets.base import check_plain
from attention_coresets.theory import check_rho

Approximation = Callable[[Float[Tensor, "*heads b d"]], Float[Tensor, "*heads b dv"]]
RADII = (1.0, 0.6, 0.3)  # of the starts, in units of rho
_TOKENS = 256  # aimed at, and away from
_RANDOM = 256  # random directions


class WorstFound(NamedTuple):
    """A lower bound on sup over |q| <= rho of |Attn(q) - approximation(q)| ``[*heads]`` and its query
    ``[*heads, d]``."""

    error: Float[Tensor, "*heads"]
    query: Float[Tensor, "*heads d"]


def worst_of(
    cache: Cache,
    approximate: Approximation,
    rho: float,
    *,
    restarts: int = 64,
    steps: int = 150,
    generator: torch.Generator | None = None,
) -> WorstFound:
    """Maximise |Attn(q) - approximate(q)| over |q| <= rho, every head at once, float64.

    `approximate` takes and returns float64 and is differentiated by autograd. Starts: of queries along and against
    centred keys and at random, each at three radii, the `restarts` of largest error. A step goes along the normalised
    gradient, is projected onto the ball and taken where it gains; its length then grows, and shrinks after a loss.
    Cost: 2 steps restarts evaluations of both. ValueError for rho, restarts or steps that are not positive, or an
    approximation that returns NaN.
    """
    check_rho(rho)
    check_plain(cache)
    if min(restarts, steps) < 1:
        raise ValueError(f"restarts and steps must be at least 1, got {restarts} and {steps}")
    cache = cache.to(torch.float64)
    pool = _starts(cache, rho, torch.Generator().manual_seed(0) if generator is None else generator)
    best = _error(cache, approximate, pool).topk(min(restarts, pool.shape[-2]), dim=-1).indices
    query = pool.gather(-2, best.unsqueeze(-1).expand(*best.shape, cache.d))
    length = torch.full_like(query[..., :1], 0.25 * rho)
    error, gradient = _error_and_gradient(cache, approximate, query)
    for _ in range(steps):
        trial = _project(query + length * gradient, rho)
        new, slope = _error_and_gradient(cache, approximate, trial)
        better = (new > error).unsqueeze(-1)
        query, gradient = torch.where(better, trial, query), torch.where(better, slope, gradient)
        error = torch.maximum(error, new)
        length = torch.where(better, (1.6 * length).clamp_max(4 * rho), 0.4 * length)
    top = error.max(dim=-1)
    at = top.indices[..., None, None].expand(*cache.heads, 1, cache.d)
    return WorstFound(top.values, query.gather(-2, at).squeeze(-2))


def _starts(cache: Cache, rho: float, generator: torch.Generator) -> Tensor:
    """Queries ``[*heads, p, d]``; all heads share the random numbers."""
    tokens = torch.randperm(cache.n, generator=generator)[:_TOKENS].to(cache.keys.device)
    aimed = cache.keys[..., tokens, :] - cache.keys.mean(dim=-2, keepdim=True)
    anywhere = torch.randn(_RANDOM, cache.d, generator=generator, dtype=torch.float64).to(cache.keys)
    directions = torch.cat([aimed, -aimed, anywhere.expand(*cache.heads, -1, -1)], dim=-2)
    directions = directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    return torch.cat([rho * radius * directions for radius in RADII], dim=-2)


def _error_and_gradient(cache: Cache, approximate: Approximation, query: Tensor) -> tuple[Tensor, Tensor]:
    """The error and its normalised gradient."""
    with torch.enable_grad():
        query = query.detach().requires_grad_()
        error = _error(cache, approximate, query)
        (gradient,) = torch.autograd.grad(error.sum(), query)
    return error.detach(), gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-30)


def _error(cache: Cache, approximate: Approximation, query: Tensor) -> Tensor:
    difference = attend(query, cache.keys, cache.values) - approximate(query)
    if bool(difference.isnan().any()):
        raise ValueError("the approximation returned NaN for a query of the ball")
    return (difference.square().sum(dim=-1) + 1e-300).sqrt()  # an exact approximation still has a gradient


def _project(query: Tensor, rho: float) -> Tensor:
    return query * (rho / query.norm(dim=-1, keepdim=True).clamp_min(rho))
