"""Where the ascent begins: queries aimed at tokens, away from them, at random, on the sphere of radius rho and inside
it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, attention_error

RADII = (1.0, 0.6, 0.3)  # in units of rho: two groups often balance well inside the ball
_AIMED = 96  # tokens aimed at, of those dropped and of those kept
_RANDOM = 128


def starts(
    cache: Cache, coreset: Coreset, rho: float, count: int, generator: torch.Generator
) -> Float[Tensor, "H count d"]:
    """`count` starts a head for a flat batch of heads: the better half by their error, the rest at random from the
    pool.

    The pool holds +-rho (k_i - mean) and +-rho k_i, normalised, for tokens dropped and kept, and random directions,
    each at every radius of RADII. Of one direction's radii only the best competes, so that the better half is not one
    query thrice.
    """
    directions = torch.cat([_aimed(cache, coreset, generator), _random(cache, generator)], dim=-2)  # [H, p, d]
    radii = rho * torch.tensor(RADII, dtype=directions.dtype, device=directions.device)
    pool = radii[:, None] * directions.unsqueeze(-2)  # [H, p, radii, d]
    errors = attention_error(pool.flatten(-3, -2), cache, coreset).unflatten(-1, pool.shape[-3:-1])
    best, radius = errors.max(dim=-1)  # [H, p]
    chosen = best.topk(min(count - count // 2, best.shape[-1]), dim=-1).indices
    rest = torch.randint(best.shape[-1], (len(best), count - chosen.shape[-1]), generator=generator).to(best.device)
    anywhere = torch.randint(len(RADII), rest.shape, generator=generator).to(best.device)
    direction = torch.cat([chosen, rest], dim=-1)
    radius = torch.cat([radius.gather(-1, chosen), anywhere], dim=-1)
    return pool[torch.arange(len(pool), device=pool.device).unsqueeze(-1), direction, radius]


def _aimed(cache: Cache, coreset: Coreset, generator: torch.Generator) -> Tensor:
    kept = torch.zeros(cache.keys.shape[:-1], device=cache.keys.device).scatter_(-1, coreset.indices, 1.0)
    lottery = torch.rand(cache.n, generator=generator).to(kept)
    count = min(_AIMED, cache.n)
    order = torch.cat([(lottery - kept).topk(count).indices, (lottery + kept).topk(count).indices], dim=-1)
    keys, _ = cache.take(order)
    aimed = torch.cat([keys, keys - cache.keys.mean(dim=-2, keepdim=True)], dim=-2)
    return _unit(torch.cat([aimed, -aimed], dim=-2))


def _random(cache: Cache, generator: torch.Generator) -> Tensor:
    x = torch.randn(len(cache.keys), _RANDOM, cache.d, generator=generator, dtype=torch.float64)
    return _unit(x).to(cache.keys)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-30)
