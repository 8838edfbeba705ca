"""Caches of transformers whose layers hold coresets: their branches, their layers, their memory."""

import copy
from typing import Any

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


def coreset_layers(cache: ModelCache | None) -> list[CoresetLayer]:
    """Returns the layers of the cache that hold or will hold coresets."""
    return [] if cache is None else [layer for layer in cache.layers if isinstance(layer, CoresetLayer)]


def cache_bytes(cache: ModelCache) -> int:
    """Measures the bytes that the cache's tensors keep alive: whole storages, of views too, each once."""
    parts = (x.tensors() if isinstance(x, CoresetLayer) else vars(x).values() for x in cache.layers)
    return storage_bytes(x for part in parts for x in part)
