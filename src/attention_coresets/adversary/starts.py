"""Chooses where the ascent begins: at tokens, away from them, at random; on the sphere and inside it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.gradient import errors
from attention_coresets.adversary.sides import Sides, two_sides
from attention_coresets.attention import Cache, Coreset
from attention_coresets.inputs import Generators

RADII = (1.0, 0.6, 0.3)  # in units of rho: two groups often balance well inside the ball
_SCREENED = 4096  # tokens whose own query is tried, dropped ones first
_WORST = 64  # of them aimed at
_AIMED = 64  # tokens aimed at by lottery, of those dropped and of those kept
_RANDOM = 128
_GRID = 4096


def starts(cache: Cache, coreset: Coreset, rho: float, count: int, generator: Generators) -> Float[Tensor, "H count d"]:
    """Chooses `count` starts a head from a pool: the better half by their error, the rest at random.

    The pool has directions +-k_i and +-(k_i - mean) of the tokens that hurt most when pointed at, and of others,
    dropped and kept, drawn by lottery; and random directions. Each comes at every radius of RADII, of which only the
    best competes, so that the better half is not one query thrice. All heads share the random numbers of one generator,
    or each has a generator of its own, so that a head starts alike whatever its batch. With d = 1 there are two
    directions, and the pool is a fine grid of the whole ball.
    """
    sides = two_sides(cache, coreset, rho)
    if cache.d == 1:
        return _best_along(_line(cache, rho), sides, count)
    aimed = _aimed(cache, coreset, sides, rho, generator)
    directions = torch.cat([aimed, _random(cache, generator)], dim=-2)  # [H, p, d]
    radii = rho * torch.tensor(RADII, dtype=directions.dtype, device=directions.device)
    pool = radii[:, None] * directions.unsqueeze(-2)  # [H, p, radii, d]
    found = errors(pool.flatten(-3, -2), sides).unflatten(-1, pool.shape[-3:-1])
    best, radius = found.max(dim=-1)  # [H, p]
    chosen = best.topk(min(count - count // 2, best.shape[-1]), dim=-1).indices
    more = (count - chosen.shape[-1],)
    rest, anywhere = (
        _drawn(generator, lambda g, below=below: torch.randint(below, more, generator=g)).to(best.device)
        for below in (best.shape[-1], len(RADII))
    )
    rest, anywhere = (x.expand(len(best), -1) for x in (rest, anywhere))
    direction = torch.cat([chosen, rest], dim=-1)
    radius = torch.cat([radius.gather(-1, chosen), anywhere], dim=-1)
    return pool[torch.arange(len(pool), device=pool.device).unsqueeze(-1), direction, radius]


def _drawn(generator: Generators, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    """Draws on the CPU what all heads share ``[1, ...]``, or what each draws with its own generator ``[H, ...]``."""
    each = [generator] if isinstance(generator, torch.Generator) else generator
    return torch.stack([draw(g) for g in each])


def _best_along(grid: Tensor, sides: Sides, count: int) -> Tensor:
    """Returns of each of `count` stretches of a grid ``[H, p, 1]`` the query of largest error."""
    stretch = -(-grid.shape[-2] // count)
    found = torch.nn.functional.pad(errors(grid, sides), (0, stretch * count - grid.shape[-2]), value=-torch.inf)
    best = found.unflatten(-1, (count, stretch)).argmax(-1) + stretch * torch.arange(count, device=grid.device)
    return grid.gather(-2, (best % grid.shape[-2]).unsqueeze(-1))


def _line(cache: Cache, rho: float) -> Tensor:
    """Returns queries ``[H, p, 1]`` of a ball in one dimension, half of them at equal steps, half at equal ratios."""
    even, ratios = torch.arange(1, _GRID + 1) / _GRID, torch.logspace(-6, 0, _GRID)
    one_side = rho * torch.cat([even, ratios])
    both = torch.cat([one_side, -one_side]).to(cache.keys)
    return both[:, None].expand(len(cache.keys), -1, -1)


def _aimed(cache: Cache, coreset: Coreset, sides: Sides, rho: float, generator: Generators) -> Tensor:
    """Returns unit directions along and against keys and centred keys of the tokens aimed at ``[H, p, d]``."""
    kept = torch.zeros_like(cache.keys[..., 0], dtype=torch.float32).scatter_(-1, coreset.indices, 1.0)
    lottery = _drawn(generator, lambda g: torch.rand(cache.n, dtype=torch.float32, generator=g)).to(kept)
    # lottery - kept ranks every dropped token before every kept one, each group at random
    worst = _screen(cache, sides, rho, (lottery - kept).topk(min(_SCREENED, cache.n)).indices)
    count = min(_AIMED, cache.n)
    order = [worst, *((lottery + sign * kept).topk(count).indices for sign in (-1, 1))]
    keys, _ = cache.take(torch.cat(order, dim=-1))
    aimed = torch.cat([keys, keys - cache.keys.mean(dim=-2, keepdim=True)], dim=-2)
    return _unit(torch.cat([aimed, -aimed], dim=-2))


def _screen(cache: Cache, sides: Sides, rho: float, tokens: Tensor) -> Tensor:
    """Of `tokens` ``[H, s]`` keeps those that hurt most when a query of norm rho points at them from the mean key.

    One dropped outlier can carry the whole supremum, and a lottery misses it.
    """
    directions = _unit(cache.take(tokens)[0] - cache.keys.mean(dim=-2, keepdim=True))
    found = errors(rho * directions, sides)
    return tokens.gather(-1, found.topk(min(_WORST, found.shape[-1])).indices)


def _random(cache: Cache, generator: Generators) -> Tensor:
    """Returns random unit directions ``[H, p, d]``."""
    x = _drawn(generator, lambda g: torch.randn(_RANDOM, cache.d, generator=g, dtype=torch.float64))
    return _unit(x).to(cache.keys).expand(len(cache.keys), -1, -1)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-30)
