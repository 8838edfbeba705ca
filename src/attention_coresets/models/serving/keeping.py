"""Makes a cache of coresets that were chosen elsewhere, each KV head with its own number of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.models.serving.caches import ModelCache, branch
from attention_coresets.models.serving.heads import Heads
from attention_coresets.models.serving.prefill import Prefilled
from attention_coresets.models.serving.ragged import Ragged


@torch.no_grad()
def keep(
    prefilled: Prefilled,
    coresets: Mapping[int, Sequence[Sequence[Coreset]]],
    values: Mapping[int, Sequence[Sequence[Float[Tensor, "_ dv"]]]] | None = None,
) -> ModelCache:
    """Replaces the cache of these layers by coresets of any sizes, for each sample and KV head.

    Later tokens join with log-weight 0: weights are to be absolute, those of the tokens that a token stands for.

    Parameters
    ----------
    prefilled : Prefilled
        Stays as it is.
    coresets : Mapping[int, Sequence[Sequence[Coreset]]]
        ``coresets[layer][sample][head]``, without axes of heads. Indices count a sample's own tokens, not its padding.
        Layers with full attention that are left out keep everything.
    values : Mapping[int, Sequence[Sequence[Float[Tensor, "_ dv"]]]], optional
        Likewise, what stands in place of the kept tokens' own values in some of these layers.

    Returns
    -------
    ModelCache

    Raises
    ------
    ValueError
        For a layer without full attention, or another number of samples, heads or tokens than the cache has.
    """
    if unknown := set(coresets) - set(prefilled.layers):
        raise ValueError(f"layer {min(unknown)} has no full attention; coresets replace layers {prefilled.layers}")
    cache = branch(prefilled.cache)
    for index in prefilled.layers:
        layer = cache.layers[index]
        held = [Heads.of(layer, [sample]) for sample in range(layer.samples)]
        given = coresets.get(index)
        if given is not None and len(given) != layer.samples:
            raise ValueError(f"layer {index}: coresets of {len(given)} samples for a batch of {layer.samples}")
        samples = [_whole(h) for h in held] if given is None else given
        cores = [Ragged.of(h.keys[0], h.values[0], heads) for h, heads in zip(held, samples, strict=True)]
        if values is not None and index in values:
            flat = [torch.cat(list(heads)).to(layer.values.dtype) for heads in values[index]]
            cores = [replace(core, values=own) for core, own in zip(cores, flat, strict=True)]
        every = torch.ones(len(cores), dtype=torch.bool, device=layer.device)
        layer.replace(cores, every, every)
    return cache


def _whole(heads: Heads) -> list[Coreset]:
    """Keeps every token: a core too, so that all layers have as many later tokens, for which masks are made."""
    _, count, n, _ = heads.keys.shape
    return [Coreset(torch.arange(n, device=heads.keys.device))] * count
