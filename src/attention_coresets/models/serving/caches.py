"""Caches of transformers whose layers hold coresets: their branches, their layers, their memory."""

import copy
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from attention_coresets.models.serving.layer import CoresetLayer
from attention_coresets.models.serving.plan import Report, storage_bytes

ModelCache = Any  # a Cache of transformers: what its layers have differs by kind


def branch(cache: ModelCache) -> ModelCache:
    """Makes a cache that can be extended without a trace in this one: layers of its own, the same tensors.

    Layers of another kind, which change their tensors in place, are copied. The branch is not compressed any further.
    """
    twin = copy.copy(cache)
    twin.layers = [_twin(layer) for layer in cache.layers]
    return twin


def _twin(layer: Any) -> Any:
    if not isinstance(layer, DynamicLayer | CoresetLayer):
        return copy.deepcopy(layer)  # states that are overwritten in place
    twin = copy.copy(layer)
    if isinstance(twin, CoresetLayer):
        twin.plan = twin.calibration = twin.asked = None
        twin.report, twin.still = Report(), True
    return twin


def repeat_samples(cache: ModelCache, times: int) -> None:
    """Repeats each sample of the cache, in place; layers of states too, for which transformers can only reorder."""
    samples = coreset_layers(cache)[0].samples
    for layer in cache.layers:
        if hasattr(layer, "batch_repeat_interleave"):
            layer.batch_repeat_interleave(times)
        else:
            layer.reorder_cache(torch.arange(samples).repeat_interleave(times))


def coreset_layers(cache: ModelCache | None) -> list[CoresetLayer]:
    """Returns the layers of the cache that hold or will hold coresets."""
    return [] if cache is None else [layer for layer in cache.layers if isinstance(layer, CoresetLayer)]


def cache_bytes(cache: ModelCache) -> int:
    """Measures the bytes that the cache's tensors keep alive: whole storages, of views too, each once."""
    parts = (x.tensors() if isinstance(x, CoresetLayer) else vars(x).values() for x in cache.layers)
    return storage_bytes(x for part in parts for x in part)
