"""Records what each attention layer of a transformers model is given while the model reads a text, chunk by chunk."""

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from attention_coresets.models.checkpointing import check_no_checkpointing
from attention_coresets.models.rotary import any_token

CHUNK = 1024  # tokens a forward
_INTERFACE = "attention_coresets_capture"
_ALTERED_SOFTMAX = ("softcap", "s_aux", "position_bias")  # attention that plain keys and queries do not reproduce

# keep(layer, queries [heads, t - first, d], keys [kv, t, d], values [kv, t, dv], scaling)
Keep = Callable[[int, Tensor, Tensor, Tensor, float], None]


def record(
    model,
    ids: Int[Tensor, "1 t"],
    layers: Iterable[int],
    keep: Keep,
    *,
    first: int = 0,
    chunk: int = CHUNK,
    place: int = 0,
) -> None:
    """Runs the decoder over the t tokens and hands `keep` what the attention of each of these layers gets.

    Keys and queries are as they enter the softmax: after rotary embedding and, where the model has them, their norms.
    Logits are scaling * <q, k>, whatever the model scales by. Queries are those of positions from `first` on. `keep` is
    called in order of the layers, during the last chunk. `place` is the position of the first token.

    Cost: the tokens go through in chunks, so attention holds chunk x t logits a head at a time, and the rest of the
    layer one chunk. Keys and values of all layers stay in memory, 8 t kv d bytes a layer, and so do the queries kept.
    Only the decoder runs: no tokens x vocabulary logits are built.

    Raises ValueError for attention that a softmax over all earlier keys does not describe: soft caps, extra sink
    logits, or, in a layer asked for, a sliding window shorter than the text; and for gradient checkpointing.
    """
    from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    check_no_checkpointing(model)
    total, read = ids.shape[-1], 0
    held: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def attention(module, query, key, value, attention_mask, **options):
        layer = module.layer_idx
        _refuse_other_attention(layer, total, options, layer in held)
        if layer in held:
            held[layer].append(query[0, :, max(0, first - read) :].clone())
            if read + query.shape[-2] == total:
                keep(layer, torch.cat(held.pop(layer), dim=-2), key[0], value[0], options["scaling"])
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)

    AttentionInterface.register(_INTERFACE, attention)
    AttentionMaskInterface.register(_INTERFACE, sdpa_mask)  # an unknown name would silently get no causal mask
    model.set_attn_implementation(_INTERFACE)
    past = DynamicCache(config=model.config)
    with torch.no_grad():
        for part in ids.split(chunk, dim=-1):
            places = torch.arange(place + read, place + read + part.shape[-1], device=ids.device)[None]
            model.base_model(input_ids=part, position_ids=places, past_key_values=past, use_cache=True)
            read += part.shape[-1]


def asked_alone(model, layers: Iterable[int], place: int) -> dict[int, Tensor]:
    """Returns by layer the queries [heads, 1, d] at this position where one token is the whole text (rotary.py)."""
    found: dict[int, Tensor] = {}

    def keep(layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> None:
        found[layer] = queries

    record(model, any_token(model.base_model), layers, keep, place=place)
    return found


def plain_layers(model, tokens: int) -> list[int]:
    """Returns the layers whose attention reaches all earlier tokens of a text this long: no shorter windows."""
    config = model.config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    usual = "full_attention" if window is None else "sliding_attention"
    kinds = getattr(config, "layer_types", None) or [usual] * config.num_hidden_layers
    reaching = {"full_attention"} | ({"sliding_attention"} if window is not None and window >= tokens else set())
    return [layer for layer, kind in enumerate(kinds) if kind in reaching]


def altered_softmax(options: Mapping) -> list[str]:
    """Names what an attention layer is given that makes its weights other than a softmax of <q, k>."""
    return [name for name in _ALTERED_SOFTMAX if options.get(name) is not None]


def _refuse_other_attention(layer: int, tokens: int, options: Mapping, wanted: bool) -> None:
    altered = altered_softmax(options)
    window = options.get("sliding_window")
    if wanted and window is not None and window < tokens:
        altered.append(f"sliding_window = {window} < {tokens} tokens")
    if altered:
        raise ValueError(f"layer {layer} has attention other than a plain softmax ({', '.join(altered)}); leave it out")
