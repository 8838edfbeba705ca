"""Defines a cache, a coreset of it, attention over either, and the error between the two."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.inputs import (
    FLOATS,
    Array,
    check_finite,
    check_key_size,
    exact_unit,
    least_float32,
    promoted,
    tensor,
    whole_numbers,
)


@dataclass(frozen=True)
class Cache:
    """Keys and values of n tokens, for any number of heads.

    Parameters
    ----------
    keys : Float[Tensor, "*heads n d"]
        float64, float32, bfloat16 or float16, on any device, in any strides; NumPy arrays are copied to tensors.
        Whatever is computed of 16 bits is computed and kept in at least 32. Keys may have any norm; constructions take
        entries of up to 1e15.
    values : Float[Tensor, "*heads n dv"]
        In the dtype and on the device of the keys.

    Raises
    ------
    ValueError
        On shapes that do not match, no tokens, another dtype, NaN or Inf; the message names what is wrong.
    """

    keys: Float[Tensor, "*heads n d"]
    values: Float[Tensor, "*heads n dv"]

    def __post_init__(self) -> None:
        for name in ("keys", "values"):
            object.__setattr__(self, name, tensor(name, getattr(self, name)))
        if self.keys.dim() < 2:
            raise ValueError(f"keys must have shape [*heads, n, d], got {tuple(self.keys.shape)}: one row a token")
        if self.keys.shape[:-1] != self.values.shape[:-1]:
            raise ValueError(
                f"keys {tuple(self.keys.shape)} and values {tuple(self.values.shape)} must agree but for the last axis"
            )
        if 0 in self.keys.shape or 0 in self.values.shape:
            raise ValueError(f"a cache needs at least one token and dimension, got keys {tuple(self.keys.shape)}")
        if self.keys.dtype != self.values.dtype or self.keys.dtype not in FLOATS:
            raise ValueError(f"keys and values need one floating dtype, got {self.keys.dtype} and {self.values.dtype}")
        if self.keys.device != self.values.device:
            raise ValueError(f"keys are on {self.keys.device}, values on {self.values.device}; move one with .to")
        for name, x in (("keys", self.keys), ("values", self.values)):
            if not bool(x.isfinite().all()):
                raise ValueError(f"{name} hold NaN or Inf; clean the cache before building a coreset")

    @property
    def heads(self) -> torch.Size:
        return self.keys.shape[:-2]

    @property
    def n(self) -> int:
        return self.keys.shape[-2]

    @property
    def d(self) -> int:
        return self.keys.shape[-1]

    def __getitem__(self, head) -> "Cache":
        """Returns the cache of one head, or of a slice of the leading axes."""
        return Cache(self.keys[head], self.values[head])

    def to(self, *args, **kwargs) -> "Cache":
        """Returns the same cache on another device or in another dtype, as ``Tensor.to``."""
        return Cache(self.keys.to(*args, **kwargs), self.values.to(*args, **kwargs))

    def flat(self) -> "Cache":
        """Returns the same cache with one axis of heads."""
        return Cache(*(x.reshape(-1, *x.shape[-2:]) for x in (self.keys, self.values)))

    def take(
        self, indices: Int[Tensor, "*heads m"]
    ) -> tuple[Float[Tensor, "*heads m d"], Float[Tensor, "*heads m dv"]]:
        """Returns keys and values of the tokens at `indices`, head by head; ValueError as `check_indices`."""
        self.check_indices(indices)
        return _gather(self.keys, indices), _gather(self.values, indices)

    def check_indices(self, indices: Int[Tensor, "..."]) -> None:
        """Raises ValueError unless `indices` has this cache's heads and holds tokens of it."""
        if indices.device != self.keys.device:
            raise ValueError(f"coreset indices are on {indices.device}, the cache on {self.keys.device}; move one")
        if indices.shape[:-1] != self.heads:
            raise ValueError(f"coreset heads {tuple(indices.shape[:-1])} must be the cache's {tuple(self.heads)}")
        if not bool(((indices >= 0) & (indices < self.n)).all()):
            low, high = int(indices.min()), int(indices.max())
            raise ValueError(f"coreset indices must lie in 0..{self.n - 1}, got {low}..{high}")


@dataclass(frozen=True)
class WeightedCache(Cache):
    """Keys and values of n tokens, where token i stands for exp(log_weights_i) equal ones.

    Attention over it is the softmax of <q, k_i> + log_weights_i, applied to the values. A constant added to all
    log-weights changes nothing.

    A coreset of it carries total log-weights: token i's own, less the log of the probability that token i is kept. The
    balancing constructions (coresets/balancing) give log-weights in the unweighted model too. These weights are
    equal, except that tokens heavier than the coreset's mean weight have their own. One walk, halving and herding
    always keep such tokens; buckets and refinements that swap tokens may drop them.

    Rules that choose by the kernel (herding, swaps, minimax) may take a token of tiny weight, which then counts as much
    as another. So drop padding, or mask it by log-weights such as -1e30: a token to which no query |q| <= rho gives a
    share above e^-10000 is left out, whatever its key and value. It is kept, with its own log-weight, only where the
    other tokens are fewer than the size asked.

    Parameters
    ----------
    keys : Float[Tensor, "*heads n d"]
    values : Float[Tensor, "*heads n dv"]
    log_weights : Float[Tensor, "*heads n"]
        Kept in at least float32, whatever the dtype of the keys.

    Raises
    ------
    ValueError
        As `Cache`, and on log-weights that do not fit the tokens or hold NaN or Inf.
    """

    log_weights: Float[Tensor, "*heads n"]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "log_weights", _log_weights(self.log_weights))
        if self.log_weights.shape != self.keys.shape[:-1]:
            raise ValueError(
                f"log_weights {tuple(self.log_weights.shape)} must be one a token, {tuple(self.keys.shape[:-1])}"
            )
        if not bool(self.log_weights.isfinite().all()):
            raise ValueError("log_weights hold NaN or Inf")

    def __getitem__(self, head) -> "WeightedCache":
        """Returns the weighted cache of one head, or of a slice of the leading axes."""
        return WeightedCache(self.keys[head], self.values[head], self.log_weights[head])

    def to(self, *args, **kwargs) -> "WeightedCache":
        """Returns the same on another device or in another dtype; log-weights are never rounded to a narrower one.

        They may be far larger than their differences, and float32 would change the cache.
        """
        plain = super().to(*args, **kwargs)
        wide = torch.promote_types(self.log_weights.dtype, plain.keys.dtype)
        log_weights = self.log_weights.to(plain.keys.device, wide)
        return WeightedCache(plain.keys, plain.values, log_weights)

    def flat(self) -> "WeightedCache":
        """Returns the same with one axis of heads."""
        plain = super().flat()
        return WeightedCache(plain.keys, plain.values, self.log_weights.reshape(plain.keys.shape[:-1]))


def base_weights(cache: Cache) -> Float[Tensor, "*heads n"] | None:
    """Returns the log-weights that a cache adds to its own logits, None for a plain cache."""
    return cache.log_weights if isinstance(cache, WeightedCache) else None


@dataclass(frozen=True)
class Coreset:
    """m distinct tokens of a cache, each with a log-weight that is added to its logit.

    Parameters
    ----------
    indices : Int[Tensor, "*heads m"]
        Positions in the cache, increasing; kept as int64. NumPy arrays are copied to tensors.
    log_weights : Float[Tensor, "*heads m"], optional
        Kept in at least float32. None: all zero.

    Raises
    ------
    ValueError
        On no token, indices that are not distinct and sorted, log-weights of another shape, NaN or Inf.
    """

    indices: Int[Tensor, "*heads m"]
    log_weights: Float[Tensor, "*heads m"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", whole_numbers("coreset indices", self.indices).contiguous())
        if self.log_weights is not None:
            object.__setattr__(self, "log_weights", _log_weights(self.log_weights).contiguous())
        if self.indices.dim() < 1:
            raise ValueError("coreset indices must have shape [*heads, m], got one number without axes")
        if self.log_weights is not None and self.log_weights.shape != self.indices.shape:
            raise ValueError(
                f"log_weights {tuple(self.log_weights.shape)} must match indices {tuple(self.indices.shape)}"
            )
        if self.indices.shape[-1] < 1:
            raise ValueError("a coreset needs at least one token")
        if not bool((self.indices.diff(dim=-1) > 0).all()):
            raise ValueError("coreset indices must be distinct and sorted")
        if self.log_weights is not None and not bool(self.log_weights.isfinite().all()):
            raise ValueError("coreset log_weights hold NaN or Inf")

    @property
    def size(self) -> int:
        return self.indices.shape[-1]

    def __getitem__(self, head) -> "Coreset":
        """Returns the coreset of one head, or of a slice of the leading axes."""
        return Coreset(self.indices[head], None if self.log_weights is None else self.log_weights[head])

    def flat(self) -> "Coreset":
        """Returns the same coreset with one axis of heads."""
        shape = (-1, self.size)
        return Coreset(
            self.indices.reshape(shape), None if self.log_weights is None else self.log_weights.reshape(shape)
        )


def attend(
    queries: Float[Array, "*heads b d"],
    keys: Float[Array, "*heads n d"],
    values: Float[Array, "*heads n dv"],
    log_weights: Float[Array, "*heads n"] | None = None,
) -> Float[Tensor, "*heads b dv"]:
    """Computes attention: the softmax over tokens of <q, k_i> + log_weights_i, applied to the values.

    There is no factor 1/sqrt(d). All is computed and returned in the widest dtype given, float32 at least.

    Cost: O(b n (d + dv)) time and O(b n) memory a head.

    Parameters
    ----------
    queries : Float[Tensor, "*heads b d"]
    keys : Float[Tensor, "*heads n d"]
    values : Float[Tensor, "*heads n dv"]
    log_weights : Float[Tensor, "*heads n"], optional
        None: all zero.

    Returns
    -------
    Float[Tensor, "*heads b dv"]
    """
    given = {"queries": queries, "keys": keys, "values": values}
    given |= {} if log_weights is None else {"log_weights": log_weights}
    q, k, v, *rest = promoted(*(tensor(name, x) for name, x in given.items()))
    logits = q @ k.mT  # [*heads, b, n]
    if rest:
        logits = logits + rest[0].unsqueeze(-2)
    return logits.softmax(dim=-1) @ v


def attention_error(
    queries: Float[Array, "*heads b d"], cache: Cache, coreset: Coreset, max_logits: int = 2**26
) -> Float[Tensor, "*heads b"]:
    """Measures the Euclidean distance between attention over a cache and over its coreset, query by query.

    Attention over a `WeightedCache` uses its log-weights. Attention over the coreset uses the coreset's own only.
    All is computed in the wider dtype of queries and cache, float32 at least: float64 queries of a bfloat16 cache give
    the error of these very bits. It may be differentiated.

    Cost: O(b (n + m) (d + dv)) time a head.

    Parameters
    ----------
    queries : Float[Tensor, "*heads b d"]
    cache : Cache
    coreset : Coreset
    max_logits : int
        Logits held in memory at once: queries go in blocks of this size, or singly where one needs more.

    Returns
    -------
    Float[Tensor, "*heads b"]
        In the unit of the values.

    Raises
    ------
    ValueError
        Where queries, cache and coreset do not fit each other, or queries hold NaN or Inf.
    """
    queries = tensor("queries", queries)
    if queries.dim() < 2 or queries.shape[:-2] != cache.heads or queries.shape[-1] != cache.d:
        wanted = (*cache.heads, "b", cache.d)
        raise ValueError(f"queries {tuple(queries.shape)} must have shape {wanted} for this cache")
    check_finite(queries=queries)
    dtype = least_float32(queries.dtype, cache.keys.dtype)
    queries, cache = queries.to(cache.keys.device, dtype), cache.to(dtype)
    unit = exact_unit(cache.values)
    keys, values = cache.take(coreset.indices)
    base, weights = base_weights(cache), coreset.log_weights
    base, weights = (None if x is None else topped(x).to(dtype) for x in (base, weights))
    errors = [
        (attend(q, cache.keys, cache.values / unit, base) - attend(q, keys, values / unit, weights)).norm(dim=-1)
        for q in _blocks(queries, max_logits // (cache.n * max(1, cache.heads.numel())))
    ]
    return torch.cat(errors, dim=-1) * unit.squeeze(-1)


def topped(log_weights: Tensor) -> Float[Tensor, "*heads n"]:
    """Returns log-weights less their largest, float64: they count up to a constant, and large ones would be rounded."""
    wide = log_weights.to(torch.float64)
    return wide - wide.amax(dim=-1, keepdim=True)


def numbers(cache: Cache, dtype: torch.dtype = torch.float32) -> Cache:
    """Returns the cache cut off from autograd, in its dtype or in `dtype` where that is wider."""
    cache = cache.to(least_float32(cache.keys.dtype, dtype))
    keys, values, base = cache.keys.detach(), cache.values.detach(), base_weights(cache)
    return Cache(keys, values) if base is None else WeightedCache(keys, values, base.detach())


def calm(cache: Cache, dtype: torch.dtype = torch.float32) -> tuple[Cache, Float[Tensor, "*heads 1 1"]]:
    """Returns `numbers` with values over `exact_unit`, and that unit.

    Raises ValueError for keys whose squares would overflow.
    """
    check_key_size(cache.keys)
    cache = numbers(cache, dtype)
    unit, base = exact_unit(cache.values), base_weights(cache)
    keys, values = cache.keys, cache.values / unit
    return Cache(keys, values) if base is None else WeightedCache(keys, values, base), unit


def attention_weights(
    queries: Float[Tensor, "*heads group b d"], keys: Float[Tensor, "*heads n d"], rank: Tensor | None = None
) -> Float[Tensor, "*heads group b n"]:
    """Computes the softmax over tokens of <q, k_i>, query by query.

    `rank` ``[*heads, n]`` is the place of each token. With it the b queries are those of the last b places, each sees
    the tokens up to its own place, and more queries than tokens raise ValueError. Without it each query sees every
    token.

    Cost: O(group b n d) time and O(group b n) memory a head.
    """
    queries, keys = promoted(queries, keys)
    logits = queries @ keys.unsqueeze(-3).mT
    if rank is not None:
        logits = logits.masked_fill(~seen(rank, queries.shape[-2]).unsqueeze(-3), -torch.inf)
    return logits.softmax(dim=-1)


def seen(rank: Int[Tensor, "*heads n"], count: int) -> Bool[Tensor, "*heads count n"]:
    """Tells which tokens each query of the last `count` places sees: those whose `rank` is at most its own place.

    Raises ValueError for more queries than tokens.
    """
    n = rank.shape[-1]
    if count > n:
        raise ValueError(f"{count} queries of a cache of {n} tokens; pass those of its last {n} positions at most")
    return rank.unsqueeze(-2) <= torch.arange(n - count, n, device=rank.device).unsqueeze(-1)


def _log_weights(x: Array) -> Float[Tensor, "..."]:
    """Returns log-weights in at least float32; ValueError unless they are floating numbers."""
    x = tensor("log_weights", x)
    if x.dtype not in FLOATS:
        raise ValueError(f"log_weights must be floating numbers, got {x.dtype}; convert by .to(torch.float32)")
    return promoted(x)[0]


def _blocks(queries: Tensor, rows: int) -> Iterator[Tensor]:
    yield from queries.split(max(1, rows), dim=-2)


def _gather(x: Tensor, indices: Tensor) -> Tensor:
    return x.gather(-2, indices.unsqueeze(-1).expand(*indices.shape, x.shape[-1]))
