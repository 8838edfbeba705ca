"""Puts layers that can hold coresets into a cache of transformers, where its layers keep everything."""

from transformers.cache_utils import DynamicCache

from attention_coresets.models.serving.attention import Decoder
from attention_coresets.models.serving.caches import ModelCache, coreset_layers
from attention_coresets.models.serving.layer import CoresetLayer
from attention_coresets.models.serving.plan import Plan, Report

_REPLACED = ("DynamicLayer", "CoresetLayer")
_LEFT = ("DynamicSlidingWindowLayer", "LinearAttentionLayer", "DummyLayer")  # bounded, or without tokens


def new_cache(decoder: Decoder) -> ModelCache:
    """Makes an empty cache as the decoder itself would."""
    return DynamicCache(config=decoder.config)


def adopt(cache: ModelCache, decoder: Decoder, plan: Plan | None, calibration: int | None = None) -> bool:
    """Makes the cache one whose layers with full attention hold coresets; tells whether it begins a prompt.

    A cache that has coresets goes on under the plan, if it has none that is open. Raises ValueError for a cache that
    coresets cannot replace.
    """
    _check_kind(cache)
    known = coreset_layers(cache)
    if known and cache.get_seq_length():
        for layer in known:
            if layer.active is None and not layer.still:
                layer.plan = plan
        return False
    if cache.get_seq_length():
        raise ValueError(
            f"the cache already holds {cache.get_seq_length()} tokens whose queries nobody kept; "
            "prefill inside the context, from an empty cache"
        )
    if any(layer.watched for layer in known):  # someone has made it ready already
        return False
    _replace(cache, decoder, plan, calibration)
    return True


def _replace(cache: ModelCache, decoder: Decoder, plan: Plan | None, calibration: int | None) -> None:
    if not cache.layers:  # a cache made without the model's configuration
        cache.layers, cache.layer_class_to_replicate = new_cache(decoder).layers, None
    kinds = [type(layer).__name__ for layer in cache.layers]
    for index, kind in enumerate(kinds):
        if kind not in (*_REPLACED, *_LEFT):
            known = ", ".join([_REPLACED[0], *_LEFT])
            raise ValueError(
                f"layer {index} has a cache of type {kind}; coresets replace or leave {known}; "
                "run the model outside the context"
            )
    replaced = [index for index, kind in enumerate(kinds) if kind in _REPLACED]
    if not replaced:
        raise ValueError(
            "every layer slides a window over its cache, which is bounded already: nothing to compress; "
            "run the model outside the context"
        )
    report = Report()
    for index in replaced:
        cache.layers[index] = CoresetLayer(index, plan, calibration)
        cache.layers[index].report = report


def _check_kind(cache: ModelCache) -> None:
    """Raises ValueError for a cache that no coreset can replace."""
    if type(cache) is not DynamicCache or cache.offloading:
        kind = "an offloaded cache" if getattr(cache, "offloading", False) else type(cache).__name__
        raise ValueError(
            f"{kind} cannot hold coresets; leave past_key_values and cache_implementation out, or pass a DynamicCache"
        )
