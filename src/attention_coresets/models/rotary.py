"""Carries queries on to later positions: what a model would ask there, had it the same thing in mind.

Rotary embedding turns the query of position t by angles proportional to t. Turning it by those of `by` positions makes
it the query of position t + by. A cache is compressed once it is full, and the queries that matter come after it, but
those at hand come from within. Moved behind the cache they see all of it, at the distances that later queries will.

Source: expected attention (Devoto et al., arXiv 2510.00636) moves mean and covariance of the queries; here each is
moved.
"""

import inspect
import sys
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_FIXED = ("default", "linear", "llama3", "yarn", "longrope")  # kinds whose angles do not follow the text's length


def check_movable(decoder) -> None:
    """Raises ValueError as `move` does."""
    embedding = getattr(decoder, "rotary_emb", None)
    if embedding is None or _rotation(decoder) is None:
        raise ValueError(f"{type(decoder).__name__} has no rotary positions: its queries cannot be moved to later ones")
    ropes = embedding.rope_type.values() if isinstance(embedding.rope_type, dict) else [embedding.rope_type]
    if changing := [rope for rope in ropes if rope not in _FIXED]:
        raise ValueError(f"rotary positions of kind {changing[0]!r} change with the text; known: {', '.join(_FIXED)}")


def _rotation(decoder) -> Any:
    return getattr(sys.modules[type(decoder).__module__], "apply_rotary_pos_emb", None)


def move(
    decoder, queries: Float[Tensor, "*heads c d"], by: int | Int[Tensor, "c"], layer: int
) -> Float[Tensor, "*heads c d"]:
    """Moves the queries of a layer of a transformers decoder `by` positions on, or each its own; any factor stays.

    Dimensions that the model does not turn (partial rotary embedding) stay as they are. Angles are those that the model
    used last: longrope has others for texts beyond its first length.

    Raises ValueError for a model without rotary positions, or whose angles change with every length of the text.
    """
    check_movable(decoder)
    embedding, rotate = decoder.rotary_emb, _rotation(decoder)
    by_layer = isinstance(embedding.rope_type, dict)  # angles of their own for each kind of layer (Gemma 3)
    kind = decoder.config.layer_types[layer] if by_layer else None
    scale = getattr(embedding, f"{kind}_attention_scaling" if by_layer else "attention_scaling")
    flat = queries.reshape(1, -1, *queries.shape[-2:])
    places = torch.as_tensor(by, device=queries.device).expand(1, queries.shape[-2])
    angles = inspect.unwrap(type(embedding).forward)  # the decorated one picks angles by the largest place it is given
    with torch.no_grad():
        cos, sin = (x / scale for x in angles(embedding, flat, places, *([kind] if by_layer else [])))
    turned, still = flat.split([cos.shape[-1], flat.shape[-1] - cos.shape[-1]], dim=-1)
    return torch.cat([rotate(turned, turned, cos, sin)[0], still], dim=-1).reshape(queries.shape)
