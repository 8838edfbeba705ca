"""Turns a prefilled cache into coresets: one for each sample and KV head of the layers with full attention."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.checks import not_negative
from attention_coresets.coresets.base import Construction, check_is_construction, everything
from attention_coresets.coresets.randomness import seed_of
from attention_coresets.models.heads import normalised
from attention_coresets.models.serving.layer import CoresetLayer, ModelCache, branch
from attention_coresets.models.serving.prefill import Prefilled


@dataclass(frozen=True)
class Layout:
    """How many tokens to keep of a context.

    Parameters
    ----------
    size : int or float
        Tokens kept in each KV head in all, or their share of the context, strictly between 0 and 1.
    keep_recent : int
        How many of these are the last tokens of the context, kept as they are. The coreset is of the tokens before
        them.

    Raises
    ------
    ValueError
        For a size or keep_recent that fits no context.
    """

    size: int | float
    keep_recent: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.size, float) and not 0 < self.size < 1:
            raise ValueError(f"size = {self.size} must be a share between 0 and 1, or a whole number of tokens")
        if self.size < 1 and isinstance(self.size, int):
            raise ValueError(f"size must be at least 1 token, got {self.size}")
        not_negative(keep_recent=self.keep_recent)
        if isinstance(self.size, int):
            self._leaves_room(self.size)

    def tokens(self, context: int) -> int:
        """Returns the size for this context; ValueError where it does not fit."""
        size = round(self.size * context) if isinstance(self.size, float) else self.size
        if size < 1:
            raise ValueError(f"size = {self.size} of {context} tokens keeps none; ask for a larger share")
        if size > context:
            raise ValueError(f"size = {size} is above the {context} tokens of the context; ask for at most {context}")
        self._leaves_room(size)
        return size

    def _leaves_room(self, size: int) -> None:
        if self.keep_recent >= size:
            raise ValueError(f"keep_recent = {self.keep_recent} must be below size = {size}; keep fewer recent tokens")


@torch.no_grad()
def compress(
    prefilled: Prefilled,
    construct: Construction,
    size: int | float,
    keep_recent: int = 0,
    rho: float = 4.0,
    seed: int | torch.Generator = 0,
    dtype: torch.dtype | None = None,
    in_place: bool = False,
) -> ModelCache:
    """Replaces the cache of each layer with full attention by a coreset of it, for each sample and KV head.

    Later tokens join with log-weight 0, so the coreset's weights must be absolute: those of the tokens that it stands
    for. An unweighted coreset of m of n tokens therefore gets log-weights log(n / m). (n does not count the recent
    tokens.) One of a construction that works in the model's units keeps 0: the eviction heuristics drop tokens for
    good, as their authors have it. At size = context every token is kept, and the construction is not called.

    A construction sees normalised units: keys centred and divided by their largest norm, values likewise. Indices and
    log-weights mean the same in the model's units. One with `model_units` or `needs_queries` sees keys, values and
    queries as the model computes them. Where it has `moved`, it gets all queries that the prefill kept, carried to
    right after the context. Otherwise it gets them as they were asked, without those of the `keep_recent` last
    positions: each then sees only tokens that the coreset is made of.

    Parameters
    ----------
    prefilled : Prefilled
    construct : Construction
        Called a layer at a time, with heads ``[b, kv]``.
    size, keep_recent : int or float, int
        As in `Layout`.
    rho : float
        Radius of the ball of queries, in normalised units.
    seed : int or torch.Generator
        Each sample, layer and head draws its own random numbers from it, so that a sample is the same in any batch. A
        generator draws the seed.
    dtype : torch.dtype, optional
        What constructions compute in. None: the cache's, and at least float32.
    in_place : bool
        Replace the layers of the prefilled cache. False leaves it as it is.

    Returns
    -------
    ModelCache
        Its layers with full attention are `CoresetLayer`.

    Raises
    ------
    ValueError
        For sizes that do not fit, queries that are missing, NaN or Inf in a layer, or what the construction refuses.
    """
    check_is_construction(construct)
    tokens = Layout(size, keep_recent).tokens(prefilled.context)
    if isinstance(seed, torch.Generator):
        seed = int(torch.randint(2**62, (), generator=seed, device=seed.device))
    cache = prefilled.cache if in_place else branch(prefilled.cache)
    for index in prefilled.layers:
        keys, values = cache.layers[index].keys, cache.layers[index].values
        try:
            whole = tokens == prefilled.context
            asked = None if whole else _queries(prefilled, index, construct, keep_recent)
            heads = _Heads(keys, values, asked, keep_recent, dtype)
            coreset = heads.coreset(construct, tokens, rho, generators(seed, index, keys.shape[:2]))
        except ValueError as error:
            raise ValueError(f"layer {index}: {error}") from error
        cache.layers[index] = _stored(keys, values, coreset)
    return cache


def generators(seed: int, layer: int, heads: torch.Size) -> list[torch.Generator]:
    """Makes a generator a sample and head, sample after sample: a function of seed, layer, sample and head."""
    return [torch.Generator().manual_seed(seed_of(seed, layer, *place)) for place in np.ndindex(*heads)]


def _queries(prefilled: Prefilled, layer: int, construct: Construction, keep_recent: int) -> Tensor | None:
    """Returns what a construction that needs queries gets of them; None for one that does not."""
    if not construct.needs_queries:
        return None
    queries = (
        prefilled.moved(layer) if construct.moved else prefilled.asked(layer, before=prefilled.context - keep_recent)
    )
    if queries is None:
        raise ValueError(
            "the construction needs queries of positions before the recent tokens; "
            f"prefill with calibration above keep_recent = {keep_recent}"
        )
    return queries


@dataclass(frozen=True)
class _Heads:
    """The cache of one layer, [b, kv, n, d], and queries of its KV heads where the construction needs them."""

    keys: Tensor
    values: Tensor
    queries: Tensor | None
    keep_recent: int
    dtype: torch.dtype | None

    def coreset(self, construct: Construction, size: int, rho: float, generator: list[torch.Generator]) -> Coreset:
        """Picks `size` tokens a sample and head: the construction's, then the last `keep_recent` with log-weight 0."""
        dtype = self.dtype or torch.promote_types(self.keys.dtype, torch.float32)
        whole = Cache(self.keys.to(dtype), self.values.to(dtype))
        if size == whole.n:
            return everything(whole)
        old = whole.n - self.keep_recent
        cache = Cache(whole.keys[..., :old, :], whole.values[..., :old, :])
        extra = {} if self.queries is None else {"queries": self.queries.to(dtype)}
        if not construct.in_model_units:
            cache = Cache(normalised(cache.keys)[0], normalised(cache.values)[0])
        coreset = construct(cache, size=size - self.keep_recent, rho=rho, generator=generator, **extra)
        if coreset.log_weights is None and not construct.evicts:
            each = math.log(old / coreset.size)  # of equal weights, each kept token stands for so many
            coreset = Coreset(coreset.indices, torch.full_like(coreset.indices, each, dtype=dtype))
        return self._with_recent(coreset, old)

    def _with_recent(self, coreset: Coreset, old: int) -> Coreset:
        recent = torch.arange(old, old + self.keep_recent, device=coreset.indices.device)
        indices = torch.cat([coreset.indices, recent.expand(*coreset.indices.shape[:-1], -1)], dim=-1)
        weights = coreset.log_weights
        return Coreset(indices, None if weights is None else torch.nn.functional.pad(weights, (0, self.keep_recent)))


def _stored(keys: Float[Tensor, "b kv n d"], values: Float[Tensor, "b kv n dv"], coreset: Coreset) -> CoresetLayer:
    """Makes the layer that holds these tokens alone, in tensors of their own."""
    kept = coreset.indices.unsqueeze(-1)
    k, v = (x.gather(-2, kept.expand(*coreset.indices.shape, x.shape[-1])) for x in (keys, values))
    weights = None if coreset.log_weights is None else coreset.log_weights.to(keys.dtype)
    return CoresetLayer(k, v, coreset.indices, weights, keys.shape[-2])
