"""Caches to study: one family a file, parameters and a seed in, a batch of heads out.

The family `model`, heads of a language model, is registered by attention_coresets.models.
"""

import dataclasses
from typing import Any

import numpy as np
import torch

from attention_coresets.attention import Cache, WeightedCache
from attention_coresets.caches.antipodal import Antipodal
from attention_coresets.caches.biased_logits import BiasedLogits
from attention_coresets.caches.cap_outliers import CapOutliers
from attention_coresets.caches.clusters import Clusters
from attention_coresets.caches.equal_keys import EqualKeys
from attention_coresets.caches.low_rank import LowRank
from attention_coresets.caches.product import Product
from attention_coresets.caches.ragged_clusters import RaggedClusters
from attention_coresets.caches.signed_clusters import SignedClusters
from attention_coresets.caches.sphere import Sphere
from attention_coresets.caches.spread_norms import SpreadNorms
from attention_coresets.checks import whole
from attention_coresets.inputs import FLOATS
from attention_coresets.registry import add, build, check_dataclass

CACHES: dict[str, type] = {
    "sphere": Sphere,
    "clusters": Clusters,
    "low_rank": LowRank,
    "cap_outliers": CapOutliers,
    "antipodal": Antipodal,
    "signed_clusters": SignedClusters,
    "equal_keys": EqualKeys,
    "product": Product,
    "ragged_clusters": RaggedClusters,
    "spread_norms": SpreadNorms,
    "biased_logits": BiasedLogits,
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
    `model` family can keep their order). A family whose tokens have log-weights gives a WeightedCache. Raises
    ValueError for an unknown family or parameter, naming the nearest, and for values that a family refuses.
    """
    family = build(CACHES, "cache", name, parameters)
    seed, heads = whole("seed", seed), None if heads is None else whole("heads", heads)
    if heads is not None and heads < 1:
        raise ValueError(f"heads must be at least 1, got {heads}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {', '.join(map(str, FLOATS))}, got {dtype}")
    drawn = [_one_head(family, seed, head) for head in range(heads or 1)]
    parts = [torch.stack(part) for part in zip(*drawn, strict=True)]
    cache = Cache(*parts) if len(parts) == 2 else WeightedCache(*parts)
    cache = cache.to(device=device, dtype=dtype)
    return cache if heads is not None else cache[0]


def register_cache(name: str, family: type) -> None:
    """Add a family of caches of one's own to CACHES, so that `make_cache` and the sweeps know it by `name`.

    Parameters
    ----------
    name : str
        Letters, digits and underscores; not that of another family.
    family : type
        The class: a frozen dataclass of its parameters, `n` and `d` among them, with a method
        ``sample(rng) -> (keys [n, d], values [n, dv])``, NumPy float64 arrays drawn from ``rng`` alone. A field `rho`
        is the radius that a sweep asks at, unless it says otherwise; a field `shuffle` that is False keeps the
        family's own order of tokens, which else are shuffled. A class attribute `weighted` that is True says that
        `sample` gives log-weights ``[n]`` as a third array.

    Raises
    ------
    ValueError
        Where the name is taken or the class is no such type.
    """
    check_dataclass(family)
    known = {field.name for field in dataclasses.fields(family)}
    if missing := {"n", "d"} - known:
        raise ValueError(f"{family.__name__} has no field {' and no field '.join(sorted(missing))}")
    if not callable(getattr(family, "sample", None)):
        raise ValueError(f"{family.__name__} has no method sample(rng)")
    add(CACHES, "cache", name, family)


def check_family(family: Any) -> None:
    """Try a family at its parameters; ValueError, in one line, where it breaks its type."""
    names = ("keys", "values", "log_weights") if is_weighted(type(family)) else ("keys", "values")
    try:
        drawn = family.sample(np.random.default_rng([0, 0]))
    except Exception as error:
        raise ValueError(f"sample fails: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if len(drawn) != len(names):
        raise ValueError(f"sample must give {', '.join(names)}, got {len(drawn)} arrays")
    for what, x in zip(names, drawn, strict=True):
        axes = 1 if what == "log_weights" else 2
        if not isinstance(x, np.ndarray) or x.dtype != np.float64 or x.ndim != axes or len(x) != family.n:
            got = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
            raise ValueError(f"{what} must be a float64 array [n = {family.n}{', ...' * (axes - 1)}], got {got}")
        if not np.isfinite(x).all():
            raise ValueError(f"{what} hold NaN or Inf")
    if drawn[0].shape[1] != family.d:
        raise ValueError(f"keys must have d = {family.d} columns, got {drawn[0].shape[1]}")
    again = family.sample(np.random.default_rng([0, 0]))
    if not all(np.array_equal(x, y) for x, y in zip(drawn, again, strict=True)):
        raise ValueError("drew other tokens from the same rng; take random numbers from rng alone")


def head_rng(seed: int, head: int = 0) -> np.random.Generator:
    """The generator that `make_cache` hands to the family for this head."""
    return np.random.default_rng([seed, head])


def is_weighted(family: type) -> bool:
    """Whether the tokens of this family have log-weights, so that `make_cache` gives a WeightedCache."""
    return getattr(family, "weighted", False)


def _one_head(family, seed: int, head: int) -> list[torch.Tensor]:
    drawn = family.sample(head_rng(seed, head))
    order = token_order(family, len(drawn[0]), seed, head)
    return [torch.from_numpy(part[order].copy()) for part in drawn]


def token_order(family, n: int, seed: int, head: int = 0) -> np.ndarray:
    """Which token of the family's own order stands at each place of `make_cache`'s: for a model, its position."""
    order = np.arange(n)
    if dataclasses.asdict(family).get("shuffle", True):
        np.random.default_rng([seed, head, _ORDER_STREAM]).shuffle(order)
    return order
