"""The size asked of a construction: what it may be, and the tokens of a mask that has it."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, WeightedCache


def everything(cache: Cache) -> Coreset:
    """The coreset that keeps every token, unweighted."""
    return Coreset(torch.arange(cache.n, device=cache.keys.device).expand(*cache.heads, cache.n).contiguous())


def check_size(size: int) -> None:
    """ValueError unless at least one token is asked for."""
    if size < 1:
        raise ValueError(f"size must be at least 1 token, got {size}")


def check_plain(cache: Cache) -> None:
    """ValueError for a WeightedCache: for whoever counts every token once."""
    if isinstance(cache, WeightedCache):
        raise ValueError(
            "tokens would count once each, whatever the cache's log-weights; use a construction that balances, such as "
            "gram_schmidt_walk, or a plain Cache(cache.keys, cache.values)"
        )


def check_sinks(sinks: int, size: int) -> None:
    """ValueError unless the sinks leave room for another token."""
    if size <= sinks:
        raise ValueError(f"size must exceed the {sinks} sinks that are always kept, got {size}")


def kept_tokens(kept: Bool[Tensor, "H n"], size: int) -> Int[Tensor, "H size"]:
    """The tokens of each head where `kept` is true, `size` of them, in order."""
    return kept.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[:, :size]
