"""Carries queries on to later positions: what a model would ask there, had it the same thing in mind.

Rotary embedding turns the query of position t by angles proportional to t. Turning it by those of `by` positions makes
it the query of position t + by. A cache is compressed once it is full, and the queries that matter come after it, but
those at hand come from within. Moved behind the cache they see all of it, at the distances that later queries will.

Source: expected attention (Devoto et al., arXiv 2510.00636) moves mean and covariance of the queries; here each is
moved.
"""

import sys

import torch
from jaxtyping import Float
from torch import Tensor

_FIXED = ("default", "linear", "llama3", "yarn")  # kinds whose angles do not depend on the length of the text


def move(decoder, queries: Float[Tensor, "*heads c d"], by: int, layer: int) -> Float[Tensor, "*heads c d"]:
    """Moves the queries of a layer of a transformers decoder `by` positions on; any factor on them stays.

    Raises ValueError for a model without rotary positions, or whose angles change with the length of the text.
    """
    embedding = getattr(decoder, "rotary_emb", None)
    rotate = getattr(sys.modules[type(decoder).__module__], "apply_rotary_pos_emb", None)
    if embedding is None or rotate is None:
        raise ValueError(f"{type(decoder).__name__} has no rotary positions: its queries cannot be moved to later ones")
    by_layer = isinstance(embedding.rope_type, dict)  # angles of their own for each kind of layer (Gemma 3)
    kind = decoder.config.layer_types[layer] if by_layer else None
    rope = embedding.rope_type[kind] if by_layer else embedding.rope_type
    if rope not in _FIXED:
        raise ValueError(f"rotary positions of kind {rope!r} change with the text; known: {', '.join(_FIXED)}")
    scale = getattr(embedding, f"{kind}_attention_scaling" if by_layer else "attention_scaling")
    flat = queries.reshape(1, -1, *queries.shape[-2:])
    places = torch.full((1, queries.shape[-2]), by, device=queries.device)
    cos, sin = embedding(flat, places, kind) if by_layer else embedding(flat, places)
    return rotate(flat, flat, cos / scale, sin / scale)[0].reshape(queries.shape)
