"""Blends the values of tokens that are left out into those of the kept tokens with the most similar keys."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def merged(keys: Float[Tensor, "n d"], values: Float[Tensor, "n dv"], kept: Int[Tensor, "k"]) -> Float[Tensor, "k dv"]:
    """Returns the values of the kept tokens, each the mean of its own and of those that are merged into it.

    A token e that is left out goes to the kept token c whose key has the largest cosine with its own, with weight
    cos(k_e, k_c) |v_e| / (|v_e| + |v_c|), where the cosine is above 0; c's own value has weight 1. Keys stay.

    Cost: n k d multiply-adds; memory: an array [n - k, k].

    Source: kvpress' MergingPress with its defaults, after Token Merging (arXiv 2210.09461) and D2O (arXiv 2406.13035).
    """
    left = torch.ones(len(keys), dtype=torch.bool, device=keys.device).index_fill(0, kept, False)
    own, gone = values[kept].float(), values[left].float()
    if not len(gone):
        return values[kept]
    unit = torch.nn.functional.normalize(keys.float(), dim=-1)
    similar, into = (unit[left] @ unit[kept].mT).max(-1)
    sizes = gone.norm(dim=-1)
    weights = similar.clamp_min(0) * sizes / (sizes + own.norm(dim=-1)[into]).clamp_min(1e-30)
    total = own.index_add(0, into, weights[:, None] * gone)
    return (total / (1 + weights.new_zeros(len(own)).index_add(0, into, weights))[:, None]).to(values.dtype)
