"""The prefill: usual attention over the whole context, its cache and its last queries."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.serving.layer import ModelCache
from attention_coresets.serving.running import Run, check_layers, decoder_of, running


@dataclass(frozen=True)
class Prefilled:
    """A cache as the model filled it, in its own units, and what constructions may know beside it.

    queries: by layer with full attention ``[b, kv, group, c, d]``, those of the last c positions in order, times the
    layer's scaling: query j of c is that of position context - c + j. Empty where none were kept. layers: the layers
    with full attention.
    """

    cache: ModelCache
    context: int
    layers: tuple[int, ...]
    queries: Mapping[int, Float[Tensor, "b kv group c d"]]


@torch.no_grad()
def prefill(model, ids: Int[Tensor, "b n"], calibration: int = 512) -> Prefilled:
    """Run the decoder over the context and keep its cache and the queries of its last `calibration` positions.

    No tokens x vocabulary logits are built. ValueError for a model that is not supported, or calibration < 0.
    """
    if calibration < 0:
        raise ValueError(f"calibration must be at least 0 queries, got {calibration}")
    found: list[Prefilled] = []
    run = Run(calibration, prefilled=lambda run, cache: found.append(taken(run, cache)))
    with running(model, run):
        decoder_of(model)(input_ids=ids, use_cache=True)
    return found[0]


def taken(run: Run, cache: ModelCache) -> Prefilled:
    """What a run saw while it prefilled this cache; the queries by KV head."""
    layers = check_layers(run, cache)
    heads = {layer: cache.layers[layer].keys.shape[1] for layer in layers}
    queries = {layer: q.unflatten(1, (heads[layer], -1)) for layer, q in run.queries.items()}
    return Prefilled(cache, cache.get_seq_length(), tuple(layers), queries)
