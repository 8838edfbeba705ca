"""Prefills: usual attention over the whole context, and keeps its cache and its last queries."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.models.checkpointing import check_no_checkpointing
from attention_coresets.models.serving.adoption import adopt, new_cache
from attention_coresets.models.serving.asked import Asked
from attention_coresets.models.serving.attention import Decoder, attending, decoder_of
from attention_coresets.models.serving.caches import ModelCache, coreset_layers


@dataclass(frozen=True)
class Prefilled:
    """A cache as the model filled it, in its own units, and what constructions may know beside it.

    Parameters
    ----------
    cache : ModelCache
    context : int
        Tokens of the context, padding too.
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

    @property
    def calibration(self) -> int:
        """Returns the number of positions whose queries were kept."""
        return next((queries.shape[-2] for queries in self.queries.values()), 0)

    @property
    def heads(self) -> int:
        """Returns the number of KV heads of all layers with full attention together."""
        return sum(self.cache.layers[layer].keys.shape[1] for layer in self.layers)

    def recorded(self, layer: int) -> Asked | None:
        """Returns the queries of a layer by query head, as the model computes them."""
        if layer not in self.queries:
            return None
        queries, real = self.queries[layer].flatten(1, 2), self.cache.layers[layer].real
        every = torch.ones(queries.shape[0], queries.shape[2], dtype=torch.bool, device=queries.device)
        return Asked(queries, every if real is None else real[:, -queries.shape[2] :])


def padded(attention_mask: Int[Tensor, "b n"], last: int | None = None) -> dict[str, Tensor]:
    """Returns what a forward over the `last` tokens of a padded batch needs: mask, and positions without padding."""
    places = (attention_mask.cumsum(-1) - 1).clamp_min(0)
    return {"attention_mask": attention_mask, "position_ids": places if last is None else places[:, -last:]}


def check_tokens(ids: Tensor, attention_mask: Tensor | None = None) -> None:
    """Raises ValueError unless there are tokens [samples, n], a mask of theirs, and some that count in each sample."""
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"ids must be tokens [samples, n], at least one of each, got {list(ids.shape)}")
    if attention_mask is not None and attention_mask.shape != ids.shape:
        raise ValueError(f"attention_mask is {list(attention_mask.shape)} for tokens {list(ids.shape)}")
    if attention_mask is not None and not bool(attention_mask.any(-1).all()):
        raise ValueError("attention_mask leaves nothing but padding of a sample")


def _check_text(model, ids: Tensor) -> None:
    """Raises ValueError for tokens in whose places the model puts what it sees or hears: its decoder reads words."""
    known = {f"{kind}_token_{end}" for kind in ("image", "video", "audio") for end in ("id", "index")}
    for name in sorted(known):
        token = getattr(model.config, name, None)
        if isinstance(token, int) and bool((ids == token).any()):
            raise ValueError(
                f"ids have {int((ids == token).sum())} tokens {token}, the model's {name}, and only text is read here; "
                "run `generate` inside `with compressed(model, ...)`"
            )


@torch.no_grad()
def prefill(
    model, ids: Int[Tensor, "b n"], calibration: int = 512, attention_mask: Int[Tensor, "b n"] | None = None
) -> Prefilled:
    """Runs the decoder over the context, and keeps its cache and the queries of its last positions.

    No tokens x vocabulary logits are built.

    Parameters
    ----------
    model
    ids : Int[Tensor, "b n"]
    calibration : int
        Of how many last positions to keep the queries.
    attention_mask : Int[Tensor, "b n"], optional
        0 for padding, which must be on the left. None: there is none.

    Returns
    -------
    Prefilled

    Raises
    ------
    ValueError
        For a model that is not supported or checkpoints gradients, calibration < 0, no tokens, tokens that stand for
        images or sound, or padding on the right.
    """
    check_tokens(ids, attention_mask)
    _check_text(model, ids)
    check_no_checkpointing(model)
    if calibration < 0:
        raise ValueError(f"calibration must be at least 0 queries, got {calibration}")
    decoder = decoder_of(model)
    cache = new_cache(decoder)
    adopt(cache, decoder, plan=None, calibration=calibration)
    padding = {} if attention_mask is None else padded(attention_mask)
    with attending(decoder):
        decoder(input_ids=ids, past_key_values=cache, use_cache=True, **padding)
    queries = {}
    for layer in coreset_layers(cache):
        if layer.asked is not None:
            queries[layer.index] = layer.asked.queries[:, :, -calibration:].unflatten(1, (layer.heads, -1))
        layer.calibration = layer.asked = None
    return Prefilled(cache, ids.shape[-1], tuple(layer.index for layer in coreset_layers(cache)), queries, decoder)
