"""Scores by which a model's tokens are kept: of replayed queries, and those of the eviction heuristics."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction import EVICTION
from attention_coresets.models.whole.measured import Measured
from attention_coresets.models.whole.reading import LayerReading

# of a reading, and how much moved queries count
_REPLAYED: dict[str, Callable[[Measured, float], Tensor]] = {
    # KVzip (arXiv 2505.23416): the largest softmax weight that the replay gives the token
    "kvzip": lambda found, _: found.sums("largest"),
    # KVzip+ (kvpress): that weight times the size of the token's share in the residual stream
    "kvzip_plus": lambda found, _: found.sums("largest_output"),
    # KVgrad (https://openreview.net/forum?id=cg1wTCJjjk): the same, times the gradient of the model's last states
    "kvgrad": lambda found, _: found.sums("largest_slope"),
    # DropKV: the exact squared error of the head's output where the token is left out alone, without a projection
    "dropkv": lambda found, _: found.sums("dropped"),
    # Compactor (arXiv 2507.08143): the key's leverage, standardized in each layer; exact where the source sketches it
    "leverage": lambda found, _: torch.stack([_standard(layer.leverage) for layer in found.reading.layers.values()]),
    # the squared error of leaving the token out alone, in the residual stream
    "own_error": lambda found, moved: found.mixed("own", moved),
}
SCORES = (*_REPLAYED, *EVICTION)
UNASKED = ("leverage", *EVICTION)  # do without a replay


def scores(name: str, found: Measured, moved: float, size: int) -> Float[Tensor, "layers kv n"]:
    """Returns the score of every token; `size`: tokens a head on average beside its sinks, which windows depend on.

    Raises ValueError for KVgrad's of a reading without slopes, or a heuristic's where logits have a soft cap.
    """
    if name == "kvgrad" and not found.sloped:
        raise ValueError("KVgrad's score needs gradients of the replay: read(..., sloped=True)")
    if name in _REPLAYED:
        return _REPLAYED[name](found, moved)
    return torch.stack([_heuristic(name, layer, size) for layer in found.reading.layers.values()])


def _standard(scores: Float[Tensor, "kv n"]) -> Float[Tensor, "kv n"]:
    return (scores - scores.mean()) / scores.std().clamp_min(1e-6)


def _heuristic(name: str, layer: LayerReading, size: int) -> Float[Tensor, "kv n"]:
    if layer.softcap is not None:
        raise ValueError(f"{name} scores by a plain softmax, and this model's logits have a soft cap")
    scorer = EVICTION[name]()
    asked = layer.moved.queries if scorer.moved else layer.asked
    cache = Cache(layer.keys.double(), layer.values.double())
    found = scorer.scores(Request(cache, size, rho=4.0, generator=torch.Generator(), queries=asked.double()))
    return found.index_fill(-1, torch.arange(min(scorer.sinks, found.shape[-1]), device=found.device), torch.inf)
