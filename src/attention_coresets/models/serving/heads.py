"""The tokens that a layer stores of some samples, and the coresets a construction picks of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, WeightedCache
from attention_coresets.coresets.base import Construction, everything
from attention_coresets.models.heads import normalised
from attention_coresets.models.serving.layer import CoresetLayer


@dataclass(frozen=True)
class Heads:
    """Tokens of samples that store equally many a head, in the order of the text, with places and log-weights."""

    keys: Float[Tensor, "b kv n d"]
    values: Float[Tensor, "b kv n dv"]
    places: Int[Tensor, "b kv n"]
    log_weights: Float[Tensor, "b kv n"] | None

    @classmethod
    def of(cls, layer: CoresetLayer, samples: Sequence[int]) -> "Heads":
        """Collects what the layer stores of these samples."""
        parts = [_stored(layer, sample) for sample in samples]
        keys, values, places, weights = (torch.stack(part) for part in zip(*parts, strict=True))
        return cls(keys, values, places, weights if bool(weights.any()) else None)

    def coreset(
        self,
        construct: Construction,
        size: int,
        keep_recent: int,
        rho: float,
        generator: list[torch.Generator],
        queries: Float[Tensor, "b kv group c d"] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Coreset:
        """Picks `size` tokens a sample and head: the construction's, then the last `keep_recent` as they are.

        Tokens that stand for others already have log-weights. A construction that takes them gets them. For any other
        they are one more coordinate of the keys, at which every query has a 1: logits are the same, and what it returns
        is added to what a token had.
        """
        dtype = dtype or torch.promote_types(torch.promote_types(self.keys.dtype, self.values.dtype), torch.float32)
        whole = Cache(self.keys.to(dtype), self.values.to(dtype))
        had = None if self.log_weights is None else self.log_weights.to(dtype)
        if size == whole.n:
            return Coreset(everything(whole).indices, had)
        old = whole.n - keep_recent
        keys, values = whole.keys[..., :old, :], whole.values[..., :old, :]
        before = None if had is None else had[..., :old]
        found = _chosen(construct, keys, values, before, queries, size - keep_recent, rho, generator)
        recent = torch.arange(old, whole.n, device=keys.device).expand(*keys.shape[:2], -1)
        indices = torch.cat([found.indices, recent], dim=-1)
        if found.log_weights is None:
            return Coreset(indices)
        later = torch.zeros_like(recent, dtype=dtype) if had is None else had[..., old:]
        return Coreset(indices, torch.cat([found.log_weights, later], dim=-1))


def _stored(layer: CoresetLayer, sample: int) -> tuple[Tensor, ...]:
    """Returns keys, values, places and log-weights of a sample's tokens: its core, then the later ones that count."""
    later_keys, later_values = (x[sample] for x in layer.later)
    if layer.real is not None:
        later_keys, later_values = (x[:, layer.real[sample]] for x in (later_keys, later_values))
    first = layer.read(sample) - later_keys.shape[1]
    places = torch.arange(first, layer.read(sample), device=later_keys.device).expand(later_keys.shape[0], -1)
    weights = torch.zeros_like(places, dtype=torch.promote_types(later_keys.dtype, torch.float32))
    if layer.cores is None:
        return later_keys, later_values, places, weights
    core = layer.cores[sample]
    keys, values, own = core.even()
    old = core.indices.unflatten(0, keys.shape[:2]).to(places)
    own = torch.zeros_like(old, dtype=weights.dtype) if own is None else own
    pairs = (keys, later_keys), (values, later_values), (old, places), (own, weights)
    return tuple(torch.cat(pair, dim=1) for pair in pairs)


def _chosen(
    construct: Construction,
    keys: Tensor,
    values: Tensor,
    had: Tensor | None,
    queries: Tensor | None,
    size: int,
    rho: float,
    generator: list[torch.Generator],
) -> Coreset:
    """Calls the construction in its units; log-weights are absolute, or None where each token counts once."""
    if had is not None and construct.takes_weights:
        return _weighted(construct, keys, values, had, size, rho, generator)
    if had is not None:
        keys = torch.cat([keys, had.unsqueeze(-1)], dim=-1)
        queries = None if queries is None else torch.nn.functional.pad(queries, (0, 1), value=1.0)
    if not construct.in_model_units:
        keys, values = normalised(keys)[0], normalised(values)[0]
    asked = None if queries is None else queries.to(keys)
    coreset = construct(Cache(keys, values), size=size, rho=rho, generator=generator, queries=asked)
    weights = coreset.log_weights
    if weights is None and not construct.evicts:
        each = math.log(keys.shape[-2] / coreset.size)  # of equal weights, each kept token stands for so many
        weights = torch.full_like(coreset.indices, each, dtype=keys.dtype)
    if had is None:
        return Coreset(coreset.indices, weights)
    own = had.gather(-1, coreset.indices)
    return Coreset(coreset.indices, own if weights is None else own + weights)


def _weighted(
    construct: Construction, keys: Tensor, values: Tensor, had: Tensor, size: int, rho: float, generator: list
) -> Coreset:
    """Calls a construction that takes log-weights, of which the least is made 0: no token stands for less than one."""
    if not construct.in_model_units:
        keys, values = normalised(keys)[0], normalised(values)[0]
    least = had.amin()
    coreset = construct(WeightedCache(keys, values, had - least), size=size, rho=rho, generator=generator)
    assert coreset.log_weights is not None, "a coreset of a weighted cache has weights"
    return Coreset(coreset.indices, coreset.log_weights + least)
