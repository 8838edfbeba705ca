"""What the eviction heuristics share: checks, order of position, attention of queries, and the tokens of top score.

An eviction heuristic keeps the tokens of largest score with no weights. Under grouped queries the scores of a KV head's
query heads are averaged, so that the budget is kept by KV head: exactly `size` tokens in each.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool1d

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.size import check_plain, check_sinks, check_size
from attention_coresets.coresets.uniforms import Generators, draw
from attention_coresets.theory import check_rho


def check_request(cache: Cache, size: int, rho: float, generator: Generators, sinks: int = 0) -> None:
    """ValueError for a size, rho or number of generators that no construction takes; nothing is drawn.

    `sinks`: tokens that are always kept, below a size that is less than everything.
    """
    check_rho(rho)
    check_size(size)
    check_plain(cache)
    draw(generator, cache.heads.numel(), 0)
    if size < cache.n:
        check_sinks(sinks, size)


def top_scores(scores: Float[Tensor, "*heads n"], size: int) -> Coreset:
    """The `size` tokens of largest score in each head (all where there are fewer), of equal ones the earlier token."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    return Coreset(order[..., :size].sort(dim=-1).values)


def check_queries(queries: Tensor | None, cache: Cache, name: str) -> Float[Tensor, "*heads group b d"]:
    """The queries, in the cache's dtype and device; ValueError where there are none or they do not fit the cache."""
    if queries is None:
        raise ValueError(f"{name} scores tokens by the attention of queries; pass queries [*heads, group, b, d]")
    if queries.shape[:-3] != cache.heads or queries.shape[-1] != cache.d or 0 in queries.shape:
        wanted = (*cache.heads, "group", "b", cache.d)
        raise ValueError(f"queries {tuple(queries.shape)} must have shape {wanted} for this cache")
    if not bool(queries.isfinite().all()):
        raise ValueError("queries hold NaN or Inf")
    return queries.to(cache.keys)


def position_rank(positions: Tensor | None, cache: Cache) -> Int[Tensor, "*heads n"]:
    """Each token's place in the text among those of its cache, 0 the first; without positions, the tokens' own order.

    ValueError unless there is one position for each token, no two alike.
    """
    order = torch.arange(cache.n, device=cache.keys.device).expand(*cache.heads, -1)
    if positions is None:
        return order
    if positions.shape != order.shape:
        raise ValueError(f"positions {tuple(positions.shape)} must have shape {tuple(order.shape)} for this cache")
    ordered, by_position = positions.to(order.device).sort(dim=-1)
    if not bool((ordered.diff(dim=-1) > 0).all()):
        raise ValueError("positions must be distinct in each head")
    return torch.empty_like(by_position).scatter_(-1, by_position, order)


def first(rank: Int[Tensor, "*heads n"], count: int) -> Bool[Tensor, "*heads n"]:
    """The tokens of the first `count` places."""
    return rank < count


def last(rank: Int[Tensor, "*heads n"], count: int) -> Bool[Tensor, "*heads n"]:
    """The tokens of the last `count` places."""
    return rank >= rank.shape[-1] - count


def in_order(x: Float[Tensor, "*rows n"], rank: Int[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
    """x with the token of rank r at place r; its inverse is ``x.gather(-1, rank)``."""
    return torch.empty_like(x).scatter_(-1, rank, x)


def pooled(x: Float[Tensor, "*rows n"], width: int) -> Float[Tensor, "*rows n"]:
    """Mean over the `width` (odd) places around each, places beyond the ends counted as 0."""
    flat = avg_pool1d(x.reshape(-1, 1, x.shape[-1]), width, stride=1, padding=width // 2)
    return flat.reshape(x.shape)
