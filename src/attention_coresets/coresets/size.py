"""The sizes asked of a construction: at least one token, and all of them from n on."""

import torch

from attention_coresets.attention import Cache, Coreset


def everything(cache: Cache) -> Coreset:
    """The coreset that keeps every token, unweighted."""
    return Coreset(torch.arange(cache.n, device=cache.keys.device).expand(*cache.heads, cache.n).contiguous())


def check_size(size: int) -> None:
    """ValueError unless at least one token is asked for."""
    if size < 1:
        raise ValueError(f"size must be at least 1 token, got {size}")
