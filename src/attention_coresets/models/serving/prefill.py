"""Prefills: usual attention over the whole context, and keeps its cache and its last queries."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.models.rotary import move
from attention_coresets.models.serving.layer import ModelCache
from attention_coresets.models.serving.running import Decoder, Run, check_layers, decoder_of, running


@dataclass(frozen=True)
class Prefilled:
    """A cache as the model filled it, in its own units, and what constructions may know beside it.

    Parameters
    ----------
    cache : ModelCache
    context : int
        Tokens of the context.
    layers : tuple[int, ...]
        The layers with full attention.
    queries : Mapping[int, Float[Tensor, "b kv group c d"]]
        By layer, the queries of the last c positions in order, times the layer's scaling: query j of c is that of
        position context - c + j. Empty where none were kept.
    decoder : Decoder
        What filled the cache. Its rotary positions can carry the queries to later ones.
    """

    cache: ModelCache
    context: int
    layers: tuple[int, ...]
    queries: Mapping[int, Float[Tensor, "b kv group c d"]]
    decoder: Decoder

    def asked(self, layer: int, before: int) -> Float[Tensor, "b kv group c d"] | None:
        """Returns the queries of a layer at positions before this one, by which the tokens before it may be judged."""
        queries = self.queries.get(layer)
        count = 0 if queries is None else queries.shape[-2] - (self.context - before)
        return None if queries is None or count < 1 else queries[..., :count, :]

    def moved(self, layer: int) -> Float[Tensor, "b kv group c d"] | None:
        """Returns all queries of a layer as if asked right after the context, all of which they see (rotary.py)."""
        queries = self.queries.get(layer)
        return None if queries is None else move(self.decoder, queries, queries.shape[-2], layer)


@torch.no_grad()
def prefill(model, ids: Int[Tensor, "b n"], calibration: int = 512) -> Prefilled:
    """Runs the decoder over the context, and keeps its cache and the queries of its last positions.

    No tokens x vocabulary logits are built.

    Parameters
    ----------
    model
    ids : Int[Tensor, "b n"]
    calibration : int
        Of how many last positions to keep the queries.

    Returns
    -------
    Prefilled

    Raises
    ------
    ValueError
        For a model that is not supported, or calibration < 0.
    """
    if calibration < 0:
        raise ValueError(f"calibration must be at least 0 queries, got {calibration}")
    found: list[Prefilled] = []
    run = Run(calibration, prefilled=lambda run, cache: found.append(taken(run, cache, decoder)))
    decoder = decoder_of(model)
    with running(model, run):
        decoder(input_ids=ids, use_cache=True)
    return found[0]


def taken(run: Run, cache: ModelCache, decoder: Decoder) -> Prefilled:
    """Collects what a run saw while the decoder filled this cache; the queries by KV head."""
    layers = check_layers(run, cache)
    heads = {layer: cache.layers[layer].keys.shape[1] for layer in layers}
    queries = {layer: q.unflatten(1, (heads[layer], -1)) for layer, q in run.queries.items()}
    return Prefilled(cache, cache.get_seq_length(), tuple(layers), queries, decoder)
