"""What a forward of a model is given by name, and what cannot be done where the cache holds coresets."""

import inspect
import sys
from types import CodeType
from typing import Any

from torch import nn
from transformers import GenerationMixin

_PREFILL = getattr(getattr(GenerationMixin, "_prefill", None), "__code__", None)


def named(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Returns what a forward is given, by name; None for a wrapper that passes on what it is given by place.

    The decoder in such a wrapper will know what that is.
    """
    kind = type(getattr(module, "_orig_mod", module))  # what torch.compile wraps
    names = list(inspect.signature(kind.forward).parameters.values())[1 : len(args) + 1]
    if any(name.kind is name.VAR_POSITIONAL for name in names):
        return None
    return {name.name: value for name, value in zip(names, args, strict=True)} | kwargs


def tokens_of(given: dict[str, Any]) -> Any:
    """Returns the new tokens of a forward [b, new], or their embeddings; None where it has neither."""
    return next((given[name] for name in ("input_ids", "inputs_embeds") if given.get(name) is not None), None)


def _generation() -> CodeType | None:
    """Returns the function of transformers' generation that calls the model, if one does: the nearest."""
    frame = sys._getframe()
    while _PREFILL is not None and frame is not None:
        if frame.f_code.co_filename == _PREFILL.co_filename:
            return frame.f_code
        frame = frame.f_back
    return None


def in_generation() -> bool:
    return _generation() is not None


def leaves_out_ones(module: nn.Module) -> bool:
    """Tells whether this is the model that `generate` calls, which then gets no mask where all tokens count."""
    return isinstance(getattr(module, "_orig_mod", module), GenerationMixin) and in_generation()


def in_a_prompt() -> bool:
    """Tells whether `generate` is reading a prompt: its last chunk may be one token, as the first of an answer is."""
    return _PREFILL is not None and _generation() is _PREFILL


def check_cache_is_used(module: Any, given: dict[str, Any]) -> None:
    """Raises ValueError where the model is told not to return its cache."""
    text, use_cache = module.config.get_text_config(decoder=True), given.get("use_cache")
    if not (getattr(text, "use_cache", True) if use_cache is None else use_cache):
        raise ValueError(
            "use_cache = False: coresets live in the cache; "
            "pass use_cache=True, or set model.config.use_cache = True, or run the model without coresets"
        )


def check_no_attentions(module: Any, given: dict[str, Any]) -> None:
    """Raises ValueError where the model is asked for matrices of attention."""
    text = module.config.get_text_config(decoder=True)
    if given.get("output_attentions") or getattr(text, "output_attentions", False):
        raise ValueError(
            "output_attentions = True: heads keep different tokens, so that there is no matrix of attention; "
            "pass output_attentions=False, or ask for it without coresets"
        )
