"""The worst query found: projected gradient ascent on the distance between attention over the cache and its coreset."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.starts import starts
from attention_coresets.attention import Cache, Coreset
from attention_coresets.theory import check_rho

_MAX_LOGITS = 2**25  # restarts x tokens x heads climbing together
_MOST_TURN = 3.0  # of the last direction kept in the next
_ON_SPHERE = 1e-6
_SAME = 0.99  # a restart that ends at this share of the best error has reached it


class Ascent(NamedTuple):
    """error ``[*heads]``, float64, at query ``[*heads, d]``; reached ``[*heads]``: climbs within 1 % of it."""

    error: Float[Tensor, "*heads"]
    query: Float[Tensor, "*heads d"]
    reached: Int[Tensor, "*heads"]


def ascend(
    cache: Cache,
    coreset: Coreset,
    rho: float,
    *,
    restarts: int = 64,
    steps: int = 60,
    polish: int = 80,
    generator: torch.Generator | None = None,
) -> Ascent:
    """Maximise |Attn(q) - Attn_coreset(q)| over the ball |q| <= rho from many starts (starts.py), every head at once.

    `restarts` climbs of `steps` steps in float32, then the best eighth for `polish` steps in float64. A step moves
    along a conjugate direction (Polak-Ribiere) of the gradients Cov_P(k,v) D - Cov_P'(k,v) D, D the difference of the
    two attentions, and is projected onto the ball; its length grows after a gain and shrinks after a loss, and a loss
    is not taken. Plain gradients reach the same hills and crawl along their ridges where logits are large.
    `generator` (default: seed 0) draws the random starts. Cost, in flops a head: (n + m)(d + dv) times
    4 steps restarts to climb and 2 (2700 + min(n, 4096)) to choose the starts; 4 polish restarts / 8 more in float64.
    Raises ValueError for rho or counts that are not positive.
    """
    check_rho(rho)
    cache.check_indices(coreset.indices)
    if min(restarts, steps, polish) < 1:
        raise ValueError(f"restarts, steps and polish must be at least 1, got {restarts}, {steps}, {polish}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    seed = int(torch.randint(2**62, (), generator=generator))  # one for every chunk: starts do not depend on the batch
    flat, core = _flat(cache, coreset)
    heads = len(flat.keys)
    chunk = max(1, _MAX_LOGITS // (restarts * cache.n))
    parts = [
        _climb_heads(flat[a : a + chunk], core[a : a + chunk], rho, restarts, steps, polish, seed)
        for a in range(0, heads, chunk)
    ]
    error, query, reached = (torch.cat(part) for part in zip(*parts, strict=True))
    return Ascent(error.reshape(cache.heads), query.reshape(*cache.heads, cache.d), reached.reshape(cache.heads))


def climb(
    cache: Cache, coreset: Coreset, rho: float, queries: Float[Tensor, "*heads b d"], steps: int
) -> tuple[Float[Tensor, "*heads b d"], Float[Tensor, "*heads b"]]:
    """Each query of `queries`, brought into the ball |q| <= rho, after `steps` steps up the error, and its error there.

    The steps of `ascend`, in the dtype of the cache, from given queries: a warm start for whoever changes the coreset
    a little and asks again. No error is below that of the query it came from; steps = 0 only evaluates. Cost 4 (steps +
    1) b (n + m)(d + dv) flops a head. Raises ValueError for a rho that is not positive, negative steps, or queries that
    do not fit the cache.
    """
    check_rho(rho)
    cache.check_indices(coreset.indices)
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    if queries.shape[:-2] != cache.heads or queries.shape[-1] != cache.d:
        raise ValueError(
            f"queries {tuple(queries.shape)} must have shape {(*cache.heads, 'b', cache.d)} for this cache"
        )
    flat, core = _flat(cache, coreset)
    first = queries.to(flat.keys).reshape(len(flat.keys), -1, cache.d)
    rows = max(1, _MAX_LOGITS // (first.shape[1] * cache.n))  # heads at once
    parts = [
        _climb(_project(first[a : a + rows], rho), _sides(_shifted(flat[a : a + rows]), core[a : a + rows]), rho, steps)
        for a in range(0, len(first), rows)
    ]
    query, error = (torch.cat(part) for part in zip(*parts, strict=True))
    return query.reshape(queries.shape), error.reshape(queries.shape[:-1])


def _flat(cache: Cache, coreset: Coreset) -> tuple[Cache, Coreset]:
    """The same with one axis of heads."""
    weights = coreset.log_weights
    weights = None if weights is None else weights.reshape(-1, coreset.size)
    flat = Cache(*(x.reshape(-1, *x.shape[-2:]) for x in (cache.keys, cache.values)))
    return flat, Coreset(coreset.indices.reshape(-1, coreset.size), weights)


def _shifted(cache: Cache) -> Cache:
    """Keys of mean 0: a common shift changes no attention and keeps float32 logits small."""
    return Cache(cache.keys - cache.keys.mean(dim=-2, keepdim=True), cache.values)


def _climb_heads(
    cache: Cache, coreset: Coreset, rho: float, restarts: int, steps: int, polish: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    shifted = _shifted(cache)
    fast = shifted.to(torch.float32)
    weights = coreset.log_weights
    fast_core = Coreset(coreset.indices, None if weights is None else weights.to(torch.float32))
    first = starts(fast, fast_core, rho, restarts, torch.Generator().manual_seed(seed))
    query, error = _climb(first, _sides(fast, fast_core), rho, steps)
    best = error.topk(max(1, restarts // 8), dim=-1).indices
    query = query.gather(-2, best.unsqueeze(-1).expand(-1, -1, cache.d))
    query = _project(query.to(torch.float64), rho)  # float32 may end a rounding outside the ball
    polished, final = _climb(query, _sides(shifted.to(torch.float64), coreset), rho, polish)
    top = final.max(dim=-1)
    ends = error.to(torch.float64).scatter(-1, best, final)
    reached = (ends >= _SAME * top.values.unsqueeze(-1)).sum(-1)
    return top.values, polished[torch.arange(len(polished)), top.indices], reached


Side = tuple[Tensor, Tensor, Tensor | None]


def _sides(cache: Cache, coreset: Coreset) -> tuple[Side, Side]:
    """The cache and its coreset, log-weights in the dtype of the cache."""
    weights = None if coreset.log_weights is None else coreset.log_weights.to(cache.keys.dtype).unsqueeze(-2)
    return (cache.keys, cache.values, None), (*cache.take(coreset.indices), weights)


def _climb(query: Tensor, sides: tuple[Side, Side], rho: float, steps: int) -> tuple[Tensor, Tensor]:
    """The best queries and errors of each climb: query ``[H, b, d]``, error ``[H, b]``."""
    length = torch.full_like(query[..., :1], 0.25 * rho)
    error, gradient = _error_and_gradient(query, sides)
    gradient = _along_ball(query, gradient, rho)
    direction = gradient
    for _ in range(steps):
        trial = _project(query + length * _normalised(direction), rho)
        trial_error, trial_gradient = _error_and_gradient(trial, sides)
        trial_gradient = _along_ball(trial, trial_gradient, rho)
        better = (trial_error > error).unsqueeze(-1)
        turn = (trial_gradient * (trial_gradient - gradient)).sum(-1, keepdim=True)
        turn = (turn / gradient.square().sum(-1, keepdim=True).clamp_min(1e-30)).clamp(0, _MOST_TURN)
        # a loss starts anew from the gradient
        direction = torch.where(better, trial_gradient + turn * direction, gradient)
        query, gradient = torch.where(better, trial, query), torch.where(better, trial_gradient, gradient)
        error = torch.maximum(error, trial_error)
        length = torch.where(better, (1.6 * length).clamp_max(4 * rho), 0.4 * length)
    return query, error


def _along_ball(query: Tensor, gradient: Tensor, rho: float) -> Tensor:
    """The gradient without its outward part where the query is on the sphere."""
    square, outward = query.square().sum(-1, keepdim=True), (query * gradient).sum(-1, keepdim=True)
    pressed = (square >= rho**2 * (1 - _ON_SPHERE)) & (outward > 0)
    return torch.where(pressed, gradient - outward / square.clamp_min(1e-30) * query, gradient)


def _error_and_gradient(query: Tensor, sides: tuple[Side, Side]) -> tuple[Tensor, Tensor]:
    """|D| ``[H, b]`` and the gradient of |D|^2 / 2 ``[H, b, d]``."""
    weights, outputs = [], []
    for keys, values, log_weights in sides:
        logits = query @ keys.mT  # [H, b, n]
        p = (logits if log_weights is None else logits.add_(log_weights)).softmax(dim=-1)
        weights.append(p)
        outputs.append(p @ values)
    difference = outputs[0] - outputs[1]  # [H, b, dv]
    gradient = torch.zeros_like(query)
    for sign, p, out, (keys, values, _) in zip((1, -1), weights, outputs, sides, strict=True):
        along = (difference @ values.mT).sub_((difference * out).sum(-1, keepdim=True))  # <v_i - Attn, D>
        gradient = gradient + sign * (along.mul_(p) @ keys)
    return difference.norm(dim=-1), gradient


def _normalised(gradient: Tensor) -> Tensor:
    return gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-30)


def _project(query: Tensor, rho: float) -> Tensor:
    return query * (rho / query.norm(dim=-1, keepdim=True).clamp_min(rho))
