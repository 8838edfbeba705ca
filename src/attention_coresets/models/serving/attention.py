"""The attention function that reads coresets from the cache, given to transformers by name (AttentionInterface).

For every other cache it is transformers' `sdpa`, so that a model may be left with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from attention_coresets.models.recording import altered_softmax
from attention_coresets.models.serving.held import Held, eager
from attention_coresets.models.serving.layer import CoresetLayer
from attention_coresets.models.serving.masks import causal, real_columns
from attention_coresets.models.serving.ragged import Ragged, attend_ragged

INTERFACE = "attention_coresets_serving"
Decoder = Any  # a PreTrainedModel: what it has beside a module's attributes differs by family

_LOCK = Lock()
_USERS: dict[int, tuple[Any, str, int]] = {}  # by identity of a configuration: it, its own attention, users of ours


def decoder_of(model) -> Decoder:
    """Returns the part of the model that has the attention layers; ValueError for models that are not supported."""
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"{name} is not a decoder alone; coresets serve Llama-, Qwen- and Gemma-like decoders")
    decoder = model.get_decoder()
    attends = any(hasattr(module, "layer_idx") for module in decoder.modules())
    takes = getattr(decoder, "_supports_sdpa", False) or getattr(decoder, "_supports_flex_attn", False)
    if not (attends and takes and decoder._can_set_attn_implementation()):
        raise ValueError(
            f"{name} does not take another attention function (transformers' AttentionInterface); "
            "coresets serve Llama-, Qwen- and Gemma-like decoders"
        )
    return decoder


@contextmanager
def attending(decoder: Decoder) -> Iterator[None]:
    """Has the decoder attend by our function until the last user of its configuration has left."""
    config = decoder.config
    with _LOCK:
        _, before, users = _USERS.get(id(config), (config, config._attn_implementation, 0))
        _USERS[id(config)] = config, before, users + 1
        if not users:
            decoder.set_attn_implementation(INTERFACE)
    try:
        yield
    finally:
        with _LOCK:
            _, before, users = _USERS.pop(id(config))
            if users > 1:
                _USERS[id(config)] = config, before, users - 1
            else:
                decoder.set_attn_implementation(before)


def attention(module: Any, query: Tensor, key: Any, value: Any, attention_mask: Tensor | None, **options):
    """Computes `sdpa`, or attention over the coresets of the layer that stands in for the keys."""
    if isinstance(key, Held):
        return _attention(module, query, key, value, attention_mask, **options)
    return _usual(module, query, key, value, attention_mask, **options)


def _usual(module: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, **options):
    """Computes `sdpa`, and what it does not know: soft caps, and queries of the last tokens alone without a mask."""
    new, tokens = query.shape[2], keys.shape[2]
    if mask is None and 1 < new < tokens:  # Gemma 4 asks with those whose logits are wanted
        mask = causal(new, tokens, query.device)[None, None]
    if options.get("softcap") is None:
        return sdpa_attention_forward(module, query, keys, values, mask, **options)
    seen = (causal(new, tokens, query.device)[None] if mask is None else mask[:, 0]).expand(len(query), -1, -1)
    cores = [Ragged.nothing(k, v) for k, v in zip(keys, values, strict=True)]
    return _over_cores(query, cores, keys, values, seen, options), None


def _over_cores(query: Tensor, cores: list[Ragged], keys: Tensor, values: Tensor, seen: Any, options: dict) -> Tensor:
    scaling, cap = options.get("scaling") or query.shape[-1] ** -0.5, options.get("softcap")
    samples = zip(query, cores, keys, values, seen, strict=True)
    out = [attend_ragged(q, core, k, v, shown, scaling, cap) for q, core, k, v, shown in samples]
    return torch.stack(out).transpose(1, 2).contiguous()


AttentionInterface.register(INTERFACE, attention)
AttentionMaskInterface.register(INTERFACE, sdpa_mask)  # an unknown name would silently get no causal mask


@eager
def _attention(module: Any, query: Tensor, key: Held, value: Held, mask: Tensor | None, **options):
    layer, new = key.layer, query.shape[2]
    _check(layer, options)
    if not key.taken:
        _take(query, key, value, mask, options)
    keys, values = layer.later
    before = causal(new, layer.count, query.device)
    whole = None if new == 1 else before  # what a sample without padding sees of the later tokens
    seen = [whole if layer.real is None else before & layer.real[b] for b in range(layer.samples)]
    if layer.cores is not None:
        return _over_cores(query, layer.cores, keys, values, seen, options), None
    if layer.real is None and new in (1, keys.shape[2]):
        return _usual(module, query, keys, values, None, **options)
    shown = torch.stack([before if one is None else one for one in seen])
    return _usual(module, query, keys, values, shown[:, None], **options)


def _take(query: Tensor, key: Held, value: Held, mask: Tensor | None, options: dict[str, Any]) -> None:
    """Appends the new tokens, and notes who asked and what is padding: once, whatever later layers read these keys."""
    layer, new = key.layer, query.shape[2]
    columns = None if mask is None else real_columns(mask, causal(new, layer.count + new, query.device), layer)
    layer.append(key.new, value.new)
    if columns is not None:
        layer.see(columns.expand(query.shape[0], -1))
    layer.softcap = options.get("softcap")
    layer.ask(query * (options.get("scaling") or query.shape[-1] ** -0.5))
    key.taken = True


def _check(layer: CoresetLayer, options: dict[str, Any]) -> None:
    if altered := [name for name in altered_softmax(options) if name != "softcap"]:
        raise ValueError(
            f"layer {layer.index} has attention other than a plain softmax ({', '.join(altered)}); "
            "coresets do not know it: run the model outside the context"
        )
    if options.get("sliding_window") is not None:
        raise ValueError(
            f"layer {layer.index} slides a window over a cache that keeps everything; leave past_key_values out"
        )
    if options.get("dropout"):
        raise ValueError(
            f"layer {layer.index} drops attention at random (dropout = {options['dropout']}), as in training; "
            "call model.eval()"
        )
