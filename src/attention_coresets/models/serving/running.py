"""Runs a model whose attention adds the log-weights of coresets, and watches it while it prefills.

transformers hands every attention layer to a function by name (AttentionInterface). Ours is `sdpa` plus a mask that
carries the log-weights. Hooks on the decoder tell it which cache a forward uses.
"""

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from attention_coresets.models.recording import altered_softmax
from attention_coresets.models.serving.layer import CoresetLayer, ModelCache

_INTERFACE = "attention_coresets_serving"
Decoder = Any  # a PreTrainedModel: what it has beside a module's attributes differs by family


@dataclass
class Run:
    """What the attention layers of a running model know.

    calibration: how many of a prefill's last queries to keep, ``[b, heads, c, d]`` a layer, times the scaling.
    prefilled: called with the run and the cache after a forward that filled an empty cache. None: nothing is done, and
        a full cache may be continued.
    """

    calibration: int = 0
    prefilled: "Callable[[Run, ModelCache], None] | None" = None
    cache: ModelCache | None = None
    prefilling: bool = False
    queries: dict[int, Tensor] = field(default_factory=dict)
    windowed: set[int] = field(default_factory=set)

    def forget(self) -> None:
        self.cache, self.prefilling, self.queries, self.windowed = None, False, {}, set()


_RUNS: "weakref.WeakKeyDictionary[nn.Module, Run]" = weakref.WeakKeyDictionary()  # by attention module


def decoder_of(model) -> Decoder:
    """Returns the part of the model that has the attention layers; ValueError for models that are not supported."""
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"{name} is not a decoder alone; coresets serve Llama-, Qwen- and Gemma-like decoders")
    decoder = model.get_decoder()
    attends = any(hasattr(module, "layer_idx") for module in decoder.modules())
    if not attends or not getattr(decoder, "_supports_sdpa", False) or not decoder._can_set_attn_implementation():
        raise ValueError(
            f"{name} does not take another attention function (transformers' AttentionInterface with sdpa); "
            "coresets serve Llama-, Qwen- and Gemma-like decoders without soft caps"
        )
    return decoder


@contextmanager
def running(model, run: Run) -> Iterator[Run]:
    """Runs the model under our attention function; everything is put back on leaving, after an exception too.

    Raises ValueError for a model that is not supported or already runs on coresets.
    """
    decoder = decoder_of(model)
    layers = [module for module in decoder.modules() if hasattr(module, "layer_idx")]
    if any(module in _RUNS for module in layers):
        raise ValueError("the model already runs on coresets; leave that `with compressed(...)` first")
    AttentionInterface.register(_INTERFACE, _attention)
    AttentionMaskInterface.register(_INTERFACE, sdpa_mask)  # an unknown name would silently get no causal mask
    before = decoder.config._attn_implementation
    hooks = [
        decoder.register_forward_pre_hook(_opening(decoder, run), with_kwargs=True),
        decoder.register_forward_hook(lambda _, args, output: _closing(run, output), always_call=True),
    ]
    try:
        _RUNS.update(dict.fromkeys(layers, run))
        decoder.set_attn_implementation(_INTERFACE)
        yield run
    finally:
        for hook in hooks:
            hook.remove()
        _shut(run)
        decoder.set_attn_implementation(before)
        for module in layers:
            _RUNS.pop(module, None)
        run.forget()


def _opening(decoder: Decoder, run: Run) -> Callable:
    """Makes the hook before a forward: it checks what the forward was given, and gives a prefill a cache we know."""
    names = list(inspect.signature(decoder.forward).parameters)

    def opening(_, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        run.forget()
        kwargs = dict(zip(names, args, strict=False)) | kwargs
        _refuse_padding(kwargs.get("attention_mask"))
        use_cache = kwargs.get("use_cache")
        cache = kwargs.get("past_key_values")
        if cache is None and (decoder.config.use_cache if use_cache is None else use_cache):
            cache = kwargs["past_key_values"] = DynamicCache(config=decoder.config)
        if cache is not None:
            _check_cache(cache, continued=run.prefilled is None)
            run.cache, run.prefilling = cache, cache.get_seq_length() == 0
            for layer in _coresets(cache):
                layer.open = True
        return (), kwargs

    return opening


def _closing(run: Run, output) -> None:
    """Shuts the coresets after a forward, and hands a filled cache over; a forward that failed has no output."""
    cache = run.cache
    _shut(run)
    if output is not None and cache is not None and run.prefilling and run.prefilled is not None:
        run.prefilled(run, cache)


def _shut(run: Run) -> None:
    for layer in _coresets(run.cache):
        layer.open = False
    run.cache = None


def _coresets(cache: ModelCache | None) -> list[CoresetLayer]:
    return [] if cache is None else [layer for layer in cache.layers if isinstance(layer, CoresetLayer)]


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options):
    """Computes `sdpa`, the log-weights of the layer's coreset added to its logits; keeps a prefill's last queries."""
    run, layer = _RUNS[module], module.layer_idx
    if altered := altered_softmax(options):
        raise ValueError(f"layer {layer} has attention other than a plain softmax ({', '.join(altered)}): no coresets")
    if options.get("sliding_window") is not None:
        run.windowed.add(layer)
    elif run.prefilling and run.calibration:
        run.queries[layer] = (query[:, :, -run.calibration :] * options["scaling"]).detach()
    stored = None if run.cache is None else run.cache.layers[layer]
    if isinstance(stored, CoresetLayer):
        bias = stored.bias(key.shape[-2])
        attention_mask = attention_mask if bias is None else _with_bias(attention_mask, bias, query)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def _with_bias(
    mask: Tensor | None, bias: Float[Tensor, "b kv 1 keys"], query: Float[Tensor, "b heads q d"]
) -> Float[Tensor, "b heads _ keys"]:
    """Makes the additive mask: -inf where the boolean mask [b, 1, q, keys] is False, else the bias of the KV head."""
    bias = bias.repeat_interleave(query.shape[1] // bias.shape[1], dim=1).to(query.dtype)  # [b, heads, 1, keys]
    return bias if mask is None else bias.masked_fill(~mask, -torch.inf)


def _refuse_padding(mask) -> None:
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        given = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"attention_mask must be [batch, tokens] or None for coresets, got {given}")
    if not bool(mask.all()):
        raise ValueError("attention_mask holds zeros: padded batches have no coresets; give samples of equal length")


def _check_cache(cache, continued: bool) -> None:
    """Raises ValueError for a cache that no coreset can replace; `continued`: a full cache may hold tokens already."""
    if type(cache) is not DynamicCache or cache.offloading:
        kind = "an offloaded cache" if getattr(cache, "offloading", False) else type(cache).__name__
        raise ValueError(f"{kind} cannot hold coresets; leave past_key_values out, or pass a DynamicCache")
    if not continued and cache.get_seq_length() > 0 and not _coresets(cache):
        raise ValueError(
            f"the cache already holds {cache.get_seq_length()} tokens whose queries nobody kept; "
            "prefill inside the context, from an empty cache"
        )


def check_layers(run: Run, cache: ModelCache) -> list[int]:
    """Returns the layers with full attention, which coresets replace; ValueError for a layer of an unknown kind."""
    known = ("DynamicLayer", "DynamicSlidingWindowLayer")
    for index, layer in enumerate(cache.layers):
        kind = type(layer).__name__
        if kind not in known:
            raise ValueError(f"layer {index} has a cache of type {kind}; coresets replace {' beside '.join(known)}")
        if index in run.windowed and not layer.is_sliding:
            raise ValueError(
                f"layer {index} slides a window over a cache that keeps everything; "
                "leave past_key_values out, or pass DynamicCache(config=model.config)"
            )
    layers = [index for index, layer in enumerate(cache.layers) if not layer.is_sliding]
    if not layers:
        raise ValueError("every layer slides a window over its cache, which is bounded already: nothing to compress")
    return layers
