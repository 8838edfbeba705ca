"""Finds masked tokens, whose log-weights are so small that no query sees them, and works without them."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, WeightedCache

_NOTHING = 1e4  # nats: e^-10000 is 0 in every dtype


def masked_tokens(cache: Cache, rho: float) -> Bool[Tensor, "*heads n"] | None:
    """Tells which tokens no query |q| <= rho gives a share above e^-10000; None where no token is such.

    With b the log-weights and k their weighted mean key, Jensen's inequality bounds the share of token i by
    exp(b_i - log sum e^b + rho |k_i - k|).
    """
    if not isinstance(cache, WeightedCache):
        return None
    keys, base = cache.keys.to(torch.float64), cache.log_weights.to(torch.float64)
    reach = rho * (keys - _mean(keys, base)).norm(dim=-1)
    masked = base - base.logsumexp(dim=-1, keepdim=True) + reach < -_NOTHING
    return masked if bool(masked.any()) else None


def without_masked(
    cache: WeightedCache, masked: Bool[Tensor, "*heads n"], size: int, choose: Callable[[int, Tensor], Coreset]
) -> Coreset:
    """Picks `size` tokens of each head: choose(head, live) among its live ones, `live` ``[l]`` their places.

    Where no more than `size` are live, all are kept with their own weights, and the first masked ones with theirs.
    """
    parts = []
    for head, (mask, base) in enumerate(zip(masked.reshape(-1, cache.n), cache.flat().log_weights, strict=True)):
        order = mask.to(torch.uint8).sort(stable=True).indices  # live tokens first
        live = order[: cache.n - int(mask.sum())]
        if len(live) > size:
            parts.append(_placed(choose(head, live), live))
        else:
            kept = order[:size].sort().values
            parts.append(Coreset(kept, base[kept]))
    indices = torch.stack([part.indices for part in parts])
    zeros = torch.zeros(size, dtype=torch.float64, device=indices.device)
    weights = torch.stack([zeros if part.log_weights is None else part.log_weights.to(zeros) for part in parts])
    return Coreset(indices.reshape(*cache.heads, size), weights.reshape(*cache.heads, size))


def moved_to_the_mean(cache: Cache, coreset: Coreset, rho: float) -> Cache:
    """Returns a cache of the same errors whose masked tokens have the mean key and value of all, and weight e^-10000.

    Ceilings are of all keys and values, and far ones that no query sees would make them useless. A token that its
    coreset does not mask stays where it is.
    """
    masked = masked_tokens(cache, rho)
    if masked is None or not isinstance(cache, WeightedCache):
        return cache
    kept = torch.zeros_like(coreset.indices) if coreset.log_weights is None else coreset.log_weights
    also = masked_tokens(WeightedCache(*cache.take(coreset.indices), kept.to(torch.float64)), rho)
    unseen = torch.zeros_like(coreset.indices, dtype=torch.bool) if also is None else also
    masked = masked.scatter(-1, coreset.indices, unseen & masked.gather(-1, coreset.indices))
    base, place = cache.log_weights, masked.unsqueeze(-1)
    keys, values = (
        torch.where(place, _mean(x.to(torch.float64), base.to(torch.float64)).to(x.dtype), x)
        for x in (cache.keys, cache.values)
    )
    return WeightedCache(keys, values, torch.where(masked, base.amax(dim=-1, keepdim=True) - _NOTHING, base))


def _mean(x: Float[Tensor, "*heads n d"], log_weights: Float[Tensor, "*heads n"]) -> Float[Tensor, "*heads 1 d"]:
    return log_weights.softmax(dim=-1).unsqueeze(-2) @ x


def _placed(coreset: Coreset, live: Int[Tensor, "l"]) -> Coreset:
    return Coreset(live[coreset.indices], coreset.log_weights)
