"""Tells whether a model has the weights that a compressed prompt was made with."""

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.models.serving.attention import Decoder

_ROUNDINGS = 4  # by which two copies of a weight in different dtypes may differ


def marks(decoder: Decoder) -> Float[Tensor, "parameters"]:
    """Returns one number of each of the decoder's parameters, its middle one, in the order of the model."""
    floating = [x.detach() for x in decoder.parameters() if x.is_floating_point()]
    return torch.stack([x[tuple(side // 2 for side in x.shape)].float().cpu() for x in floating])


def check_marks(decoder: Decoder, known: Float[Tensor, "parameters"], dtype: torch.dtype, what: str) -> None:
    """Raises ValueError where the decoder has other parameters than those that were marked.

    They may be in another dtype than the cache's, `dtype`, and are then compared up to the coarser one's rounding.
    """
    found = marks(decoder)
    near = _ROUNDINGS * max(torch.finfo(dtype).eps, torch.finfo(decoder.dtype).eps)
    if found.shape != known.shape or not torch.allclose(found, known, rtol=near, atol=0.0):
        raise ValueError(
            f"{what} was made by a model of other weights than this {type(decoder).__name__}; its keys and values mean"
            " nothing to another model: take it to its own"
        )
