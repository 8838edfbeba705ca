"""Makes one head of a cache and its coreset ready for branch and bound."""

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, base_weights

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Problem:
    """One head in float64, moved so that no error changes: keys and values of mean 0, the largest log-weight 0.

    The axes of the boxes are the keys' principal axes: query of the cache = rotation @ query of a box. base holds the
    log-weights of a WeightedCache, the largest 0.

    features ``[n, (1 + d + d^2)(dv + 1)]`` are (1, k, k k^T) times (v, 1); their mean under P gives every moment
    needed. hull bounds the error anywhere, and rounding what float64 may lose in any bound.
    """

    keys: Float[Tensor, "n d"]
    values: Float[Tensor, "n dv"]
    kept: Int[Tensor, "m"]
    log_weights: Float[Tensor, "m"]
    rho: float
    rotation: Float[Tensor, "d d"]
    features: Float[Tensor, "n f"]
    hull: float
    rounding: float
    base: Float[Tensor, "n"] | None = None

    @classmethod
    def of(cls, cache: Cache, coreset: Coreset, rho: float) -> "Problem":
        """Makes the problem of one head, of any floating dtype."""
        keys, values = (x.to(torch.float64) for x in (cache.keys, cache.values))
        key_size, value_size = (float(x.norm(dim=-1).max()) for x in (keys, values))
        keys, values = keys - keys.mean(dim=0), values - values.mean(dim=0)
        rotation = torch.linalg.eigh(keys.mT @ keys).eigenvectors
        keys = keys @ rotation
        weights = coreset.log_weights
        weights = torch.zeros_like(keys[coreset.indices, 0]) if weights is None else weights.to(torch.float64)
        radius, base = float(values.norm(dim=-1).max()), base_weights(cache)
        base = None if base is None else base.to(torch.float64) - base.max()
        logits = rho * key_size - (0.0 if base is None else float(base.min()))  # the largest
        return cls(
            keys,
            values,
            coreset.indices,
            weights - weights.max(),
            rho,
            rotation,
            _features(keys, values),
            hull=2 * radius + 16 * EPS * value_size,
            rounding=EPS * (radius * (2 * cache.n + 256 * (1 + logits)) + 16 * value_size),
            base=base,
        )

    @cached_property
    def cube(self) -> tuple[Tensor, Tensor]:
        """Returns which ends each corner of a box has ``[2^d, d]``, and the corners that each edge joins ``[e, 2]``."""
        d, device = self.keys.shape[1], self.keys.device
        ends = list(itertools.product((False, True), repeat=d))
        edges = [(i, i | bit) for i in range(2**d) for bit in (1 << k for k in range(d)) if not i & bit]
        return torch.tensor(ends, device=device), torch.tensor(edges, device=device)


def _features(keys: Tensor, values: Tensor) -> Tensor:
    """Returns (1, k, k k^T) times (v, 1) of each token, flat."""
    ones = torch.ones_like(keys[:, :1])
    powers = torch.cat([ones, keys, (keys.unsqueeze(-1) * keys.unsqueeze(-2)).flatten(1)], dim=-1)
    return (powers.unsqueeze(-1) * torch.cat([values, ones], dim=-1).unsqueeze(-2)).flatten(1)
