"""Steps of a cache uphill on what a pool of coresets leaves it: keys and values stay on their unit spheres."""

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.hardness.pool import Pool, pool_errors
from attention_coresets.hardness.rate import Rate, Spread, weighting_near


def raised(
    cache: Cache, pool: Pool, rate: Rate, spread: Spread, length: float, softness: float
) -> tuple[Cache, Spread]:
    """Takes one gradient step on `log_constant`, and returns the cache and the spread of its keys.

    The key that moves furthest moves by `length`, and so does the value that does.
    """
    keys, values = (x.detach().requires_grad_(True) for x in (cache.keys, cache.values))
    objective, spread = log_constant(keys, values, pool, rate, spread, softness)
    slopes = torch.autograd.grad(objective.sum(), (keys, values))
    moved = [_moved(x.detach(), slope, length) for x, slope in zip((keys, values), slopes, strict=True)]
    return Cache(*moved), spread


def log_constant(
    keys: Float[Tensor, "H n d"],
    values: Float[Tensor, "H n dv"],
    pool: Pool,
    rate: Rate,
    spread: Spread,
    softness: float,
) -> tuple[Float[Tensor, "H"], Spread]:
    """Computes log(m err / (sqrt(d) e^x)), differentiable in keys and values, and the spread of the keys.

    log err is the soft minimum -t log sum_p err_p^(-1/t) over the pool, t = `softness`, and err_p the largest error of
    coreset p at its queries. Infinite softness stands for the mean of log err_p. x is the exponent of the rate.
    """
    weights, spread = weighting_near(keys, rate, spread)
    # an error of exactly 0 has no derivative, and no coreset of a cache that is hard has one
    errors = pool_errors(keys, values, weights.log_weights, pool).amax(-1).clamp_min(1e-12).log()
    least = errors.mean(-1) if softness == torch.inf else -softness * torch.logsumexp(-errors / softness, dim=-1)
    return least - weights.exponent - rate.log_unit(keys.shape[-1]), spread


def _moved(x: Tensor, slope: Tensor, length: float) -> Tensor:
    along = slope - (slope * x).sum(-1, keepdim=True) * x
    furthest = along.norm(dim=-1).amax(-1)[:, None, None].clamp_min(1e-300)
    return on_sphere(x + length * along / furthest)


def on_sphere(x: Float[Tensor, "*heads n d"]) -> Float[Tensor, "*heads n d"]:
    """Returns the vectors at length 1."""
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-300)
