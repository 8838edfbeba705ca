"""Makes a cache of coresets that were chosen elsewhere, each KV head with its own number of tokens."""

from collections.abc import Mapping, Sequence

import torch

from attention_coresets.attention import Coreset
from attention_coresets.models.serving.heads import Heads
from attention_coresets.models.serving.layer import ModelCache, branch
from attention_coresets.models.serving.prefill import Prefilled
from attention_coresets.models.serving.ragged import Ragged


@torch.no_grad()
def keep(prefilled: Prefilled, coresets: Mapping[int, Sequence[Sequence[Coreset]]]) -> ModelCache:
    """Replaces the cache of these layers by coresets of any sizes, for each sample and KV head.

    Later tokens join with log-weight 0: weights are to be absolute, those of the tokens that a token stands for.

    Parameters
    ----------
    prefilled : Prefilled
        Stays as it is.
    coresets : Mapping[int, Sequence[Sequence[Coreset]]]
        ``coresets[layer][sample][head]``, without axes of heads. Indices count a sample's own tokens, not its padding.
        Layers with full attention that are left out keep everything.

    Returns
    -------
    ModelCache

    Raises
    ------
    ValueError
        For a layer without full attention, or another number of samples, heads or tokens than the cache has.
    """
    cache = branch(prefilled.cache)
    for index, samples in coresets.items():
        if index not in prefilled.layers:
            raise ValueError(f"layer {index} has no full attention; coresets replace layers {prefilled.layers}")
        layer = cache.layers[index]
        if len(samples) != layer.samples:
            raise ValueError(f"layer {index}: coresets of {len(samples)} samples for a batch of {layer.samples}")
        held = [Heads.of(layer, [sample]) for sample in range(layer.samples)]
        cores = [Ragged.of(h.keys[0], h.values[0], heads) for h, heads in zip(held, samples, strict=True)]
        layer.replace(cores, torch.ones(len(cores), dtype=torch.bool, device=layer.device))
    return cache
