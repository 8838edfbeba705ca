"""Has a model continue a branch wherever it is given a compressed prompt's cache."""

from typing import Any

import torch
from torch import Tensor

from attention_coresets.models.checkpointing import check_no_checkpointing
from attention_coresets.models.serving.attention import INTERFACE, Decoder, decoder_of
from attention_coresets.models.serving.caches import ModelCache, branch, coreset_layers, repeat_samples
from attention_coresets.models.serving.calls import (
    check_cache_is_used,
    check_no_attentions,
    in_generation,
    leaves_out_ones,
    named,
    tokens_of,
)
from attention_coresets.models.serving.evaluation import left_padding
from attention_coresets.models.serving.held import eager
from attention_coresets.models.serving.layer import CoresetLayer
from attention_coresets.models.serving.masks import check_shown, shown_to
from attention_coresets.models.serving.prefill import padded
from attention_coresets.models.whole.marks import check_marks
from attention_coresets.models.whole.prompt_cache import PromptCache

_AGAIN = (
    "leave positions to the mask; assisted decoding and prompt lookup read a prompt again behind its own cache: "
    "generate without them"
)


def attach(model, cache: PromptCache) -> None:
    """Makes a model ready to continue compressed prompts: by the attention that reads coresets, in branches.

    Raises ValueError for a model that is not supported, or whose weights or settings are not those that made the cache.
    """
    decoder = decoder_of(model)
    check_marks(decoder, cache.marks, "the compressed prompt")
    _attend_to_coresets(decoder)
    for module in {id(module): module for module in (model, decoder)}.values():
        if _continue_a_branch not in module._forward_pre_hooks.values():
            # before the hook of a context, which takes no prompt
            module.register_forward_pre_hook(_continue_a_branch, with_kwargs=True, prepend=True)


def _attend_to_coresets(decoder: Decoder) -> None:
    if decoder.config._attn_implementation != INTERFACE:
        decoder.set_attn_implementation(INTERFACE)


@eager
def _continue_a_branch(module: Any, args: tuple, kwargs: dict | None = None) -> tuple[tuple, dict] | None:
    """Before a forward: takes a branch in a prompt's place, one of each sample for each row of a larger batch."""
    if kwargs is None:  # another thread is just attaching it
        return None
    if not any(isinstance(x, PromptCache) for x in (*args, *kwargs.values())):
        return None
    options = named(module, args, kwargs)
    if options is None:
        return None
    check_no_checkpointing(module)
    check_no_attentions(module, options)
    if in_generation():  # a forward by itself continues the cache that it is given even so
        check_cache_is_used(module, options)
    _attend_to_coresets(decoder_of(module))  # a context that was left meanwhile has put back what was before
    name, cache = next((name, x) for name, x in options.items() if isinstance(x, PromptCache))
    twin, samples, given = branch(cache), coreset_layers(cache)[0].samples, tokens_of(options)
    if given is not None and len(given) != samples:
        if len(given) % samples:
            raise ValueError(f"a batch of {len(given)} cannot continue the {samples} samples of a compressed prompt")
        repeat_samples(twin, len(given) // samples)
    options[name] = twin
    if given is None:
        return (), options
    check_shown(options.get("attention_mask"), coreset_layers(twin)[0], given.shape[1], leaves_out_ones(module))
    return (), options | _places(twin, given, options)


def _places(twin: ModelCache, given: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
    """Returns mask and positions of tokens that follow a prompt, where padding makes them needed.

    Raises ValueError for tokens that do not follow it: a mask or positions of others.
    """
    mask, new, layer = options.get("attention_mask"), given.shape[1], coreset_layers(twin)[0]
    columns = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
    if columns is not None:
        _check_columns(columns.shape[1], layer.get_seq_length(), new)
    if options.get("position_ids") is not None:
        shown = shown_to(mask)
        _check_first(options["position_ids"], None if shown is None else shown[:, -1, -new:], layer)
        return {}
    if columns is not None:
        return {} if bool(columns.all()) else {"position_ids": padded(columns, last=new)["position_ids"]}
    known = left_padding(twin, given)
    return known if mask is None or not known else {"position_ids": known["position_ids"]}


def _check_columns(columns: int, length: int, new: int) -> None:
    if columns <= length:
        raise ValueError(_nothing_follows(length))
    if columns != length + new:
        raise ValueError(f"the mask of {new} tokens has {columns} columns, and their prompt {length}; {_AGAIN}")


def _check_first(places: Tensor, columns: Tensor | None, layer: CoresetLayer) -> None:
    """Raises ValueError unless the first new token of each sample stands right behind its prompt."""
    rows = layer.samples
    read = torch.tensor([layer.read(b) for b in range(rows)], device=places.device)
    places = places.reshape(-1, *places.shape[-2:]).expand(-1, rows, -1)  # of several axes, in models of images
    if bool((places < read[:, None]).all()):
        raise ValueError(_nothing_follows(layer.get_seq_length()))
    first = torch.zeros_like(read)
    if columns is not None:
        first = columns.to(places.device, torch.uint8).argmax(-1)
    found = places[:, torch.arange(rows), first]
    if bool((found != read).any()):
        raise ValueError(
            f"new tokens begin at positions {found[0].tolist()}, and their prompts end before {read.tolist()}; {_AGAIN}"
        )


def _nothing_follows(length: int) -> str:
    return (
        f"no token follows the {length} of a compressed prompt; generate wants their ids and mask, and new ones behind "
        "them"
    )
