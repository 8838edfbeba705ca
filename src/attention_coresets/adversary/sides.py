"""Makes a cache and its coreset ready for very many queries."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, WeightedCache, base_weights, topped

_NEAR = 40.0  # e^{+-40} times any sum of values is far from the ends of float32


@dataclass(frozen=True)
class Side:
    """The cache or its coreset: k_i ``[H, n, d]``, (v_i, 1) ``[H, n, dv + 1]``, log-weights ``[H, 1, n]`` of at most 0.

    far: a query of the ball may have logits whose exponentials leave the range of floats.
    """

    keys: Float[Tensor, "H n d"]
    values: Float[Tensor, "H n dv_1"]
    log_weights: Float[Tensor, "H 1 n"] | None
    far: bool

    def __getitem__(self, heads: slice) -> "Side":
        weights = None if self.log_weights is None else self.log_weights[heads]
        return Side(self.keys[heads], self.values[heads], weights, self.far)

    def weights(self, query: Float[Tensor, "H b d"], out: Float[Tensor, "H b n"]) -> Float[Tensor, "H b n"]:
        """Writes e^{<q,k_i> + log-weight_i} into `out`; for far sides, over the largest of the row.

        A row's sum is at most n e^40. It is at least e^-40, for the largest log-weight is 0.
        """
        torch.bmm(query, self.keys.mT, out=out)
        if self.log_weights is not None:
            out.add_(self.log_weights)
        if self.far:
            out.sub_(out.amax(-1, keepdim=True))
        return out.exp_()


Sides = tuple[Side, Side]


def two_sides(cache: Cache, coreset: Coreset, rho: float) -> Sides:
    """Returns the sides of a flat batch of heads, in the dtype of the cache, for queries |q| <= rho."""
    keys, base = centred(cache).keys, base_weights(cache)
    values = torch.cat([cache.values, torch.ones_like(keys[..., :1])], dim=-1)
    far = rho * float(keys.norm(dim=-1).max()) > _NEAR
    kept_keys, kept_values = Cache(keys, values).take(coreset.indices)
    ours, theirs = (None if w is None else topped(w).to(keys).unsqueeze(-2) for w in (base, coreset.log_weights))
    return Side(keys, values, ours, far), Side(kept_keys, kept_values, theirs, far)


def centred(cache: Cache) -> Cache:
    """Returns the cache with keys of mean 0 and log-weights of largest 0.

    A common shift changes no attention, and about their mean float32 logits are small.
    """
    keys, base = cache.keys - cache.keys.mean(dim=-2, keepdim=True), base_weights(cache)
    return Cache(keys, cache.values) if base is None else WeightedCache(keys, cache.values, topped(base))
