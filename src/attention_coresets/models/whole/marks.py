"""Tells whether a model is the one that a compressed prompt was made with: its weights, positions and windows."""

import json
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.models.serving.attention import Decoder

_ENTRIES = 8  # of each parameter
_ROUNDINGS = 4  # by which two copies of a weight in different dtypes may differ
_SETTINGS = (  # of a configuration, what changes keys and no parameter
    "rope_parameters",
    "no_rope_layers",
    "layer_types",
    "sliding_window",
    "attention_chunk_size",
    "query_pre_attn_scalar",
    "attention_multiplier",
    "attn_logit_softcapping",
)


@dataclass(frozen=True)
class Marks:
    """What a decoder is known by.

    Parameters
    ----------
    weights : Float[Tensor, "parameters entries"]
        Some entries of each parameter, in the order of the model.
    dtype : str
        Of the decoder.
    settings : str
        JSON of what its configuration says of positions and windows.
    """

    weights: Float[Tensor, "parameters entries"]
    dtype: str
    settings: str

    @classmethod
    def of(cls, decoder: Decoder) -> "Marks":
        found = {name: value for name in _SETTINGS if (value := getattr(decoder.config, name, None)) is not None}
        floating = [x.detach() for x in decoder.parameters() if x.is_floating_point() and x.numel()]
        weights = torch.stack([_some(x) for x in floating])
        return cls(weights, str(decoder.dtype).removeprefix("torch."), json.dumps(found, sort_keys=True))


def _some(parameter: Tensor) -> Float[Tensor, "entries"]:
    """Returns entries of equal parts of a parameter, the middle ones."""
    places = torch.arange(1, 2 * _ENTRIES, 2) * parameter.numel() // (2 * _ENTRIES)
    return parameter.reshape(-1)[places.to(parameter.device)].float().cpu()


def check_marks(decoder: Decoder, known: Marks, what: str) -> None:
    """Raises ValueError where the decoder is not the one that was marked.

    In another dtype than the marked one's its weights are compared up to the coarser dtype's rounding.
    """
    found, near = Marks.of(decoder), 0.0
    if found.dtype != known.dtype:
        near = _ROUNDINGS * max(torch.finfo(getattr(torch, dtype)).eps for dtype in (found.dtype, known.dtype))
    same_shape = found.weights.shape == known.weights.shape
    if not same_shape or not torch.allclose(found.weights, known.weights, rtol=near, atol=0.0):
        raise ValueError(
            f"{what} was made by a model of other weights than this {type(decoder).__name__}; its keys and values mean"
            " nothing to another model: take it to its own"
        )
    mine, its = (json.loads(marks.settings) for marks in (found, known))
    if other := [name for name in _SETTINGS if mine.get(name) != its.get(name)]:
        raise ValueError(
            f"{what} was made by a model of other {', '.join(other)} than this {type(decoder).__name__}, to which its "
            "keys stand elsewhere: load the model with the configuration that it had"
        )
