"""Caches to study: one family a file, parameters and a seed in, a batch of heads out."""

import numpy as np
import torch

from attention_coresets.attention import Cache
from attention_coresets.caches.antipodal import Antipodal
from attention_coresets.caches.cap_outliers import CapOutliers
from attention_coresets.caches.clusters import Clusters
from attention_coresets.caches.equal_keys import EqualKeys
from attention_coresets.caches.low_rank import LowRank
from attention_coresets.caches.model import Model
from attention_coresets.caches.product import Product
from attention_coresets.caches.signed_clusters import SignedClusters
from attention_coresets.caches.sphere import Sphere
from attention_coresets.registry import build

CACHES: dict[str, type] = {
    "sphere": Sphere,
    "clusters": Clusters,
    "low_rank": LowRank,
    "cap_outliers": CapOutliers,
    "antipodal": Antipodal,
    "signed_clusters": SignedClusters,
    "equal_keys": EqualKeys,
    "product": Product,
    "model": Model,
}

_ORDER_STREAM = 1  # spawn key of the stream that shuffles tokens; head data uses 0


def make_cache(
    name: str,
    *,
    seed: int = 0,
    heads: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    **parameters,
) -> Cache:
    """A cache of a registered family: ``make_cache("sphere", n=4096, d=16, seed=0)``, shapes ``[n, d]``.

    heads=H gives H independent caches, shapes ``[H, n, d]``; head h is the same whatever H. Tokens are shuffled (the
    `model` family can keep their order). Raises ValueError for an unknown family or parameter, naming the nearest, and
    for values that a family refuses.
    """
    family = build(CACHES, "cache", name, parameters)
    if heads is not None and heads < 1:
        raise ValueError(f"heads must be at least 1, got {heads}")
    drawn = [_one_head(family, seed, head) for head in range(heads or 1)]
    keys, values = (torch.stack([head[part] for head in drawn]).to(device=device, dtype=dtype) for part in (0, 1))
    return Cache(keys, values) if heads is not None else Cache(keys[0], values[0])


def _one_head(family, seed: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = family.sample(np.random.default_rng([seed, head]))
    order = token_order(family, len(keys), seed, head)
    return torch.from_numpy(keys[order].copy()), torch.from_numpy(values[order].copy())


def token_order(family, n: int, seed: int, head: int = 0) -> np.ndarray:
    """Which token of the family's own order stands at each place of `make_cache`'s: for a model, its position."""
    order = np.arange(n)
    if getattr(family, "shuffle", True):
        np.random.default_rng([seed, head, _ORDER_STREAM]).shuffle(order)
    return order
