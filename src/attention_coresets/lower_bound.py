"""Bounds from below the error of any coreset of signed clusters (proofs in docs/lower_bound.md)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, base_weights
from attention_coresets.theory import check_rho

FLOORS = ("floor_i", "floor_ii", "floor_iv", "floor_v")  # the bounds' columns in result tables
_ROUNDING = 1e-14
_LARGEST_GAP = 690.0  # e^-gap stays a normal number


@dataclass(frozen=True)
class Bounds:
    """Lower bounds on the worst-case error of a coreset of signed clusters, ``[*heads]``, 0 where one says nothing.

    i, ii and iv use the coreset's weights; iv counts the kept tokens too and is never below ii. v holds for all weights
    >= 0 and depends on the number of kept tokens alone.
    """

    i: Float[Tensor, "*heads"]
    ii: Float[Tensor, "*heads"]
    iv: Float[Tensor, "*heads"]
    v: Float[Tensor, "*heads"]


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a signed-clusters cache belong: r clusters of d tokens.

    Token t has the key centers[cluster_t] and the value signs[cluster_t, coordinate_t] * e_{coordinate_t}.
    """

    centers: Float[Tensor, "*heads r k"]
    signs: Float[Tensor, "*heads r d"]
    cluster: Int[Tensor, "*heads n"]
    coordinate: Int[Tensor, "*heads n"]


@torch.no_grad()
def signed_clusters_bounds(cache: Cache, coreset: Coreset, rho: float) -> Bounds:
    """Computes the bounds (i), (ii), (iv), (v) of docs/lower_bound.md on sup over |q| <= rho of the error, float64.

    Each bounds the largest error at the queries rho (c_j - mean) / |c_j - mean|, with c_j the r centres and their mean;
    (v) at the best radius up to rho. The cache must be a signed-clusters cache with orthonormal centres, its tokens in
    any order. Log-weights may be any. Where the gap rho sqrt(r / (r - 1)) between logits exceeds 690, the bounds are
    those of a gap of 690, which hold there too.

    Cost: O(n (d + log n)) a head.

    Raises ValueError for rho <= 0, a WeightedCache, a cache that is not of this kind, or centres that are not
    orthonormal, as those of more than d clusters.
    """
    rho = check_rho(rho)
    if base_weights(cache) is not None:
        raise ValueError("the bounds are proven for a Cache, whose tokens count once each; got a WeightedCache")
    cache.check_indices(coreset.indices)
    layout = signed_clusters_layout(cache)
    check_orthonormal(layout.centers)
    weights, dropped = _cluster_weights(layout, coreset)  # [*heads, r, d], [*heads, r]
    r, d = layout.signs.shape[-2:]
    shrink, gain = _scaled_gain(r, rho)
    omega = weights.sum(dim=-1)  # [*heads, r]
    total = omega.sum(dim=-1, keepdim=True)
    z = shrink * total + gain * omega
    bias = (layout.signs.mT @ omega.unsqueeze(-1)).norm(dim=(-2, -1))  # |S^T omega|
    gamma = gain / (r * shrink + gain)
    level = gamma / d  # A: every coordinate of the attention at the query of cluster j
    i = (dropped.sqrt() * z - shrink * gamma * bias.unsqueeze(-1)) / (z + shrink * total)
    left_over = (dropped * z.square()).sum(-1) - shrink * gain**2 * bias.square() / (r * shrink + 2 * gain)
    kept = d - dropped
    on_kept = (kept * (z - gain * omega / (level * kept.clamp_min(1))).square()).sum(-1)
    on_kept = (on_kept - _ROUNDING * d * z.square().sum(-1)).clamp_min(0)  # zero for the whole cache, whose error is 0
    ii, iv = (level * x.clamp_min(0).sqrt() / z.norm(dim=-1) for x in (left_over, left_over + on_kept))
    v = torch.full_like(ii, any_weights_floor(d, r, coreset.size, rho))
    return Bounds(level * i.amax(-1).clamp_min(0), ii, iv, v)


def equal_weights_floor(d: int, clusters: int, size: int, rho: float) -> float:
    """Returns A sqrt(d (n - m) / m), below which no coreset with equal cluster weights and m = `size` tokens errs.

    It is bound (iv) of docs/lower_bound.md: n = clusters * d and A = gamma / d, with gamma = a / (clusters + a) and a =
    exp(rho sqrt(clusters / (clusters - 1))) - 1. Subsets without weights have it where they keep equally many tokens of
    each cluster; then it is attained at every query of the proof once their signs balance. 0 at m = n.

    Raises ValueError unless 1 <= size <= n and clusters >= 2. With clusters > d it is a unit and no floor.
    """
    return _gamma(clusters, rho) * math.sqrt(_dropped_over_kept(d, clusters, size) / d)


def any_weights_floor(d: int, clusters: int, size: int, rho: float) -> float:
    """Returns bound (v) of docs/lower_bound.md, below which no coreset of at most m = `size` tokens errs, whatever its
    weights >= 0.

    With x = (n - m) / m and kappa = 2 g + g^2 x it is the largest value of g sqrt(x / d (1 - 2 kappa) / (1 - kappa))
    over g <= gamma with kappa < 1/2; gamma is that of `equal_weights_floor`, and g that of a smaller radius. It is
    positive for every m < n, 0 at m = n, and falls with m.

    Raises ValueError unless 1 <= size <= n and clusters >= 2. Proven for clusters <= d.
    """
    x = _dropped_over_kept(d, clusters, size)
    g = min(_gamma(clusters, rho), _best_gamma(x))
    kappa = 2 * g + g * g * x
    return g * math.sqrt(x / d * (1 - 2 * kappa) / (1 - kappa))


def _best_gamma(x: float) -> float:
    """The g of the largest g^2 (1 - 2 kappa) / (1 - kappa): the root of 2 kappa^2 - 4 kappa + 1 + g, which falls."""
    low, high = 0.0, 0.5 / (1 + math.sqrt(1 + x / 2))  # kappa = 0 and 1/2
    for _ in range(60):
        g = (low + high) / 2
        kappa = 2 * g + g * g * x
        low, high = (g, high) if 2 * kappa * kappa - 4 * kappa + 1 + g > 0 else (low, g)
    return low


def _scaled_gain(clusters: int, rho: float) -> tuple[float, float]:
    """1 and a = e^gap - 1 in units of e^gap, so that nothing overflows; gap = rho sqrt(r / (r - 1))."""
    gap = min(rho * math.sqrt(clusters / (clusters - 1)), _LARGEST_GAP)
    return math.exp(-gap), -math.expm1(-gap)


def _gamma(clusters: int, rho: float) -> float:
    if clusters < 2:
        raise ValueError(f"clusters must be at least 2, got {clusters}")
    shrink, gain = _scaled_gain(clusters, rho)
    return gain / (clusters * shrink + gain)


def _dropped_over_kept(d: int, clusters: int, size: int) -> float:
    n = clusters * d
    if not 1 <= size <= n:
        raise ValueError(f"size must lie in 1..{n}, the number of tokens, got {size}")
    return (n - size) / size


def signed_clusters_layout(cache: Cache) -> Layout:
    """Reads clusters, coordinates and signs of a signed-clusters cache off its keys and values.

    Raises ValueError, which says what is wrong, for another cache.
    """
    keys, values = (x.reshape(-1, *x.shape[-2:]) for x in (cache.keys, cache.values))
    heads = [_head_layout(k, v) for k, v in zip(keys, values, strict=True)]
    if len({head[0].shape for head in heads}) > 1:
        raise _refused("its heads differ in their number of clusters")
    centers, signs, cluster, coordinate = (
        torch.stack(part).reshape(*cache.heads, *part[0].shape) for part in zip(*heads, strict=True)
    )
    return Layout(centers, signs, cluster, coordinate)


def _head_layout(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns centers [r, k], signs [r, d], cluster [n] and coordinate [n] of one head."""
    d = values.shape[-1]
    centers, cluster = torch.unique(keys, dim=0, return_inverse=True)
    coordinate = values.abs().argmax(dim=-1)
    if not bool((values.abs() == torch.nn.functional.one_hot(coordinate, d)).all()):
        raise _refused("a value is not +e_l or -e_l")
    counts = torch.bincount(cluster * d + coordinate, minlength=len(centers) * d)
    if not bool((counts == 1).all()):
        raise _refused("a key does not carry each e_l once")
    signs = values.new_zeros(len(centers), d, dtype=torch.float64)
    signs[cluster, coordinate] = values.sum(dim=-1).to(torch.float64)
    if bool((signs.sum(dim=0) != 0).any()):
        raise _refused("the signs of an e_l do not sum to 0 over the clusters")
    return centers.to(torch.float64), signs, cluster, coordinate


def _refused(reason: str) -> ValueError:
    return ValueError(f"this is no signed-clusters cache: {reason}; make one with make_cache('signed_clusters')")


def check_orthonormal(centers: Float[Tensor, "*heads r k"]) -> None:
    """Raises ValueError unless the centres are orthonormal to the rounding of float32."""
    r, k = centers.shape[-2:]
    if r > k:
        raise ValueError(f"{r} centres in {k} dimensions are not orthonormal: take clusters <= d, no bound is proven")
    off = float((centers @ centers.mT - torch.eye(r, dtype=centers.dtype, device=centers.device)).abs().max())
    if off > 1e-5:
        raise ValueError(f"the centres are not orthonormal (products off by {off:.1e}): no bound is proven for them")


def _cluster_weights(layout: Layout, coreset: Coreset) -> tuple[Tensor, Tensor]:
    """Returns the weights ``[*heads, r, d]`` and the number of tokens dropped from each cluster ``[*heads, r]``.

    A weight is 0 where its token is dropped; the largest is 1.
    """
    r, d = layout.signs.shape[-2:]
    place = (layout.cluster * d + layout.coordinate).gather(-1, coreset.indices)  # [*heads, m]
    kept = torch.ones_like(place, dtype=torch.float64)
    log_weights = torch.zeros_like(kept) if coreset.log_weights is None else coreset.log_weights.to(torch.float64)
    weights = (log_weights - log_weights.amax(dim=-1, keepdim=True)).exp()
    empty = kept.new_zeros(*place.shape[:-1], r * d)
    weights, kept = (empty.scatter(-1, place, x).unflatten(-1, (r, d)) for x in (weights, kept))
    return weights, d - kept.sum(dim=-1)
