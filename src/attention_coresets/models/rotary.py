"""Carries queries on to later positions: what a model would ask there, had it the same thing in mind.

Rotary embedding turns the query of position t by angles proportional to t. Turning it by those of `by` positions makes
it the query of position t + by. A cache is compressed once it is full, and the queries that matter come after it, but
those at hand come from within. Moved behind the cache they see all of it, at the distances that later queries will.

Source: expected attention (Devoto et al., arXiv 2510.00636) moves mean and covariance of the queries; here each is
moved.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

_STEP, _NEAR = 7, 0.02  # places between the two queries of a check, and how far off rounding in bfloat16 may be
_STILL: "WeakKeyDictionary[Any, frozenset[int]]" = WeakKeyDictionary()  # by decoder, its layers without positions
_FIXED = ("default", "linear", "llama3", "yarn", "longrope")  # kinds whose angles do not follow the text's length


# what the layers with full attention ask at a position where one token is the whole text: by layer, [heads, 1, d]
Ask = Callable[[int], Mapping[int, Tensor]]


def learn_positions(decoder, ask: Ask) -> None:
    """Learns how a decoder positions its queries, before `move`; ValueError where that is not known.

    A text of one token has the same residual stream wherever it stands, so its queries at positions 0 and 7 differ by
    the turn alone. Layers where they do not differ give no positions (SmolLM3, Cohere 2).
    """
    if decoder in _STILL:
        return
    embedding = getattr(decoder, "rotary_emb", None)
    if embedding is None or _rotation(decoder) is None:
        raise ValueError(f"{type(decoder).__name__} has no rotary positions: its queries cannot be moved to later ones")
    if [*inspect.signature(_rotation(decoder)).parameters][:4] != ["q", "k", "cos", "sin"]:
        raise ValueError(f"{type(decoder).__name__} turns queries in a way that is not known: they cannot be moved")
    ropes = embedding.rope_type.values() if isinstance(embedding.rope_type, dict) else [embedding.rope_type]
    if changing := [rope for rope in ropes if rope not in _FIXED]:
        raise ValueError(f"rotary positions of kind {changing[0]!r} change with the text; known: {', '.join(_FIXED)}")
    kept = [(buffer, buffer.clone()) for buffer in embedding.buffers()]  # longrope sets its angles at each forward
    here, there = ask(0), ask(_STEP)
    apart = {i: (_off(_turned(decoder, q, _STEP, i), there[i]), _off(q, there[i])) for i, q in here.items()}
    for buffer, before in kept:
        buffer.copy_(before)
    if odd := [layer for layer, (turned, same) in apart.items() if min(turned, same) > _NEAR]:
        raise ValueError(
            f"{type(decoder).__name__} gives positions to the queries of layer {odd[0]} in a way that is not known: "
            "they cannot be moved to later ones"
        )
    _STILL[decoder] = frozenset(layer for layer, (turned, same) in apart.items() if same < turned)


def any_token(decoder) -> Int[Tensor, "1 1"]:
    """Returns a text of one token to ask a decoder with: not the first of its table, which may be padding."""
    table = decoder.get_input_embeddings().weight
    return torch.tensor([[len(table) // 2]], device=table.device)


def _off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).float().norm() / wanted.float().norm().clamp_min(1e-30))


def _rotation(decoder) -> Any:
    return getattr(sys.modules[type(decoder).__module__], "apply_rotary_pos_emb", None)


def move(
    decoder, queries: Float[Tensor, "*heads c d"], by: int | Int[Tensor, "c"], layer: int
) -> Float[Tensor, "*heads c d"]:
    """Moves the queries of a layer of a transformers decoder `by` positions on, or each its own; any factor stays.

    Dimensions that the model does not turn (partial rotary embedding) stay as they are, and so do queries of layers
    that give no positions. Angles are those that the model used last: longrope has others for texts beyond its first
    length.

    Raises RuntimeError before `learn_positions` of the decoder.
    """
    if decoder not in _STILL:
        raise RuntimeError("learn_positions(decoder, ask) comes first")
    return queries if layer in _STILL[decoder] else _turned(decoder, queries, by, layer)


def _turned(decoder, queries: Tensor, by: int | Tensor, layer: int) -> Tensor:
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
