"""Coresets that answer a cache, each with queries where it errs most: their errors, and queries moved uphill."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.adversary.ascent import climb
from attention_coresets.attention import Cache, Coreset


@dataclass(frozen=True)
class Pool:
    """P coresets of each of H caches, all of one size, and b queries for each.

    Parameters
    ----------
    kept : Bool[Tensor, "H P n"]
    queries : Float[Tensor, "H P b d"]
    """

    kept: Bool[Tensor, "H P n"]
    queries: Float[Tensor, "H P b d"]

    def joined(self, younger: "Pool", most: int) -> "Pool":
        """Returns the pool with younger coresets; of more than `most` the youngest."""
        kept, queries = (
            torch.cat([old, new], dim=1)[:, -most:]
            for old, new in ((self.kept, younger.kept), (self.queries, younger.queries))
        )
        return Pool(kept, queries)

    def climbed(self, cache: Cache, log_weights: Float[Tensor, "H n"], rho: float, steps: int) -> "Pool":
        """Returns the pool with its queries `steps` steps further up (`adversary.ascent.climb`) on this cache."""
        heads, many, _ = self.kept.shape
        indices = indices_of(self.kept)
        caches = Cache(*(x.unsqueeze(1).expand(-1, many, -1, -1) for x in (cache.keys, cache.values)))
        weights = log_weights.unsqueeze(1).expand(heads, many, -1).gather(-1, indices)
        queries, _ = climb(caches, Coreset(indices, weights), rho, self.queries, steps)
        return replace(self, queries=queries)

    def errors(self, cache: Cache, log_weights: Float[Tensor, "H n"]) -> Float[Tensor, "H P b"]:
        """Returns `pool_errors` on this cache."""
        return pool_errors(cache.keys, cache.values, log_weights, self)

    def worst(self, cache: Cache, log_weights: Float[Tensor, "H n"], count: int) -> "Pool":
        """Returns the pool with the `count` queries of each coreset where it errs most."""
        errors = self.errors(cache, log_weights)
        best = errors.topk(count, dim=-1).indices.unsqueeze(-1).expand(-1, -1, -1, cache.d)
        return replace(self, queries=self.queries.gather(2, best))


def pool_errors(
    keys: Float[Tensor, "H n d"], values: Float[Tensor, "H n dv"], log_weights: Float[Tensor, "H n"], pool: Pool
) -> Float[Tensor, "H P b"]:
    """Computes the error of each coreset at each of its queries: differentiable in keys, values and log-weights.

    A kept token i has log-weight log_weights_i. Cost: 2 H P b n (d + dv) flops.
    """
    logits = torch.einsum("hpbd,hnd->hpbn", pool.queries, keys)
    dropped = ~pool.kept.unsqueeze(2)
    weighted = (logits + log_weights[:, None, None]).masked_fill(dropped, -torch.inf).softmax(-1)
    return torch.einsum("hpbn,hnv->hpbv", weighted - logits.softmax(-1), values).norm(dim=-1)


def indices_of(kept: Bool[Tensor, "*sets n"]) -> Tensor:
    """Returns the kept tokens, in order: ``[*sets, m]``, as many in every set."""
    size = int(kept.flatten(0, -2)[0].sum())
    order = kept.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices
    return order[..., :size].contiguous()


def first_queries(keys: Float[Tensor, "*heads n d"], rho: float, count: int) -> Float[Tensor, "*heads q d"]:
    """Returns queries of norm rho to begin with: `count` random ones, and along and against each centred key."""
    generator = torch.Generator().manual_seed(0)
    anywhere = torch.randn(count, keys.shape[-1], generator=generator, dtype=keys.dtype)
    centred = keys - keys.mean(dim=-2, keepdim=True)
    directions = torch.cat([anywhere.expand(*keys.shape[:-2], -1, -1), centred, -centred], dim=-2)
    return rho * directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-300)
