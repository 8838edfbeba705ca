"""Compresses the layers of a cache: a coreset for each sample and KV head, each sample by its own tokens alone."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.coresets.base import Construction, check_is_construction, check_sinks
from attention_coresets.coresets.randomness import seed_of
from attention_coresets.models.rotary import move
from attention_coresets.models.serving.attention import Decoder
from attention_coresets.models.serving.caches import ModelCache, branch
from attention_coresets.models.serving.heads import Heads
from attention_coresets.models.serving.layer import CoresetLayer
from attention_coresets.models.serving.layout import Layout
from attention_coresets.models.serving.plan import Plan
from attention_coresets.models.serving.positions import check_positions
from attention_coresets.models.serving.prefill import Prefilled
from attention_coresets.models.serving.ragged import Ragged

_AT_LEAST = 32  # later tokens, however small the size, before a cache under a held budget is compressed again


@dataclass(eq=False)
class Compression(Plan):
    """Compresses the layers of caches with a construction, each when it asks; parameters as in `compress`.

    asked: of how many last positions before the `keep_recent` ones to keep the queries.
    hold: compress again whenever a sample stores twice its size, and at least 32 tokens more than its size.
    open: False once no layer is to be compressed any more.
    """

    construct: Construction
    layout: Layout
    rho: float
    seed: int
    decoder: Decoder
    asked: int = 0
    dtype: torch.dtype | None = None
    hold: bool = False
    open: bool = True

    def __post_init__(self) -> None:
        check_is_construction(self.construct)
        if not isinstance(self.layout.size, float):
            check_sinks(self.construct.sinks, self.layout.size - self.layout.keep_recent)
        if self.construct.needs_queries and self.construct.moved:
            check_positions(self.decoder)

    def __deepcopy__(self, memo: dict) -> "Compression":
        return self

    def wanted(self, layer: CoresetLayer) -> int:
        """Returns of how many last positions the layer is to keep the queries."""
        needed = self.construct.needs_queries and (layer.fresh or self.hold)
        return self.asked + self.layout.keep_recent if needed else 0

    def due(self, layer: CoresetLayer) -> bool:
        """Tells whether the layer stores more than it may."""
        return bool(self._due(layer))

    def _due(self, layer: CoresetLayer) -> dict[int, int]:
        """Returns the samples to compress, with their sizes."""
        if not (layer.fresh or self.hold):
            return {}
        samples = range(layer.samples)
        stored = [layer.stored(sample) for sample in samples]
        sizes = [self.layout.tokens(layer.read(sample), self.construct.sinks) for sample in samples]
        slack = [0 if layer.fresh else max(size, _AT_LEAST) for size in sizes]
        over = {b: sizes[b] for b in samples if stored[b] > sizes[b] and stored[b] >= sizes[b] + slack[b]}
        over = {b: size for b, size in over.items() if layer.fresh or self._knows_queries(layer, b)}
        if over and layer.cores is None:  # the other samples are kept whole, in cores of their own
            return {sample: over.get(sample, stored[sample]) for sample in samples}
        return over

    def _knows_queries(self, layer: CoresetLayer, sample: int) -> bool:
        known = 0 if layer.asked is None else int(layer.asked.count[sample].sum())
        return not self.construct.needs_queries or known > self.layout.keep_recent

    @torch.no_grad()
    def compress(self, layer: CoresetLayer) -> None:
        """Compresses the samples that are due; those that keep equally many of equally many tokens go together."""
        try:
            self._compress(layer)
        except ValueError as error:
            raise ValueError(f"layer {layer.index}: {error}") from error

    def _compress(self, layer: CoresetLayer) -> None:
        due, alike = self._due(layer), defaultdict(list)
        for sample, size in due.items():
            stored = layer.stored(sample)
            queries = self._queries(layer, sample) if size < stored else None
            alike[size, stored, None if queries is None else queries.shape].append((sample, queries))
        cores: list[Any] = list(layer.cores or [None] * layer.samples)
        with torch.autocast(layer.device.type, enabled=False):
            for (size, *_), samples in alike.items():
                for sample, core in self._cores(layer, dict(samples), size):
                    cores[sample] = core
        moved, compressed = torch.zeros(2, len(cores), dtype=torch.bool, device=layer.device)
        moved[list(due)] = True
        compressed[[sample for sample, size in due.items() if size < layer.stored(sample)]] = True
        layer.replace(cores, moved, compressed)

    def _queries(self, layer: CoresetLayer, sample: int) -> Float[Tensor, "kv group c d"] | None:
        """Returns what a construction that needs queries gets of a sample's; None for one that does not."""
        if not self.construct.needs_queries:
            return None
        known = None
        if layer.asked is not None:
            last = self.asked + self.layout.keep_recent
            known = layer.asked.of(sample).unflatten(0, (layer.heads, -1))[..., -last:, :]
            if self.construct.moved:
                known = move(self.decoder, known, known.shape[-2], layer.index)
            else:  # each then sees only tokens that the coreset is made of
                known = known[..., : max(0, known.shape[-2] - self.layout.keep_recent), :]
        if known is None or not known.shape[-2]:
            raise ValueError(
                "the construction needs queries of positions before the recent tokens; "
                f"prefill with calibration above keep_recent = {self.layout.keep_recent}"
            )
        return known

    def _cores(self, layer: CoresetLayer, samples: dict[int, Tensor | None], size: int) -> Iterator[tuple[int, Ragged]]:
        """Yields the core of each of these samples, which store equally many tokens a head."""
        heads, queries = Heads.of(layer, list(samples)), [q for q in samples.values() if q is not None]
        drawn = generators(self.seed, layer.index, heads.keys.shape[:2])
        asked = torch.stack(queries) if queries else None
        coreset = heads.coreset(self.construct, size, self.layout.keep_recent, self.rho, drawn, asked, self.dtype)
        for row, sample in enumerate(samples):
            each = [coreset[row, head] for head in range(heads.keys.shape[1])]
            yield sample, Ragged.of(heads.keys[row], heads.values[row], each, heads.places[row], layer.read(sample))


@torch.no_grad()
def compress(
    prefilled: Prefilled,
    construct: Construction,
    size: int | float,
    keep_recent: int = 0,
    rho: float = 4.0,
    seed: int | torch.Generator = 0,
    dtype: torch.dtype | None = None,
    short: str = "refuse",
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

    A sample of a padded batch is compressed by its own tokens, as if it had been alone.

    Parameters
    ----------
    prefilled : Prefilled
        Stays as it is.
    construct : Construction
        Called a layer at a time, with heads ``[b, kv]`` of the samples of one length.
    size, keep_recent, short : int or float, int, str
        As in `Layout`.
    rho : float
        Radius of the ball of queries, in normalised units.
    seed : int or torch.Generator
        Each layer and head draws its own random numbers from it, so that a sample is the same in any batch. A generator
        draws the seed.
    dtype : torch.dtype, optional
        What constructions compute in. None: the cache's, and at least float32.

    Returns
    -------
    ModelCache
        Its layers with full attention are `CoresetLayer`.

    Raises
    ------
    ValueError
        For sizes that do not fit, queries that are missing, NaN or Inf in a layer, or what the construction refuses.
    """
    layout = Layout(size, keep_recent, short)
    plan = Compression(construct, layout, rho, drawn_seed(seed), prefilled.decoder, dtype=dtype)
    plan.asked = max(0, prefilled.calibration - keep_recent)
    layout.tokens(prefilled.context)
    cache = branch(prefilled.cache)
    for index in prefilled.layers:
        layer = cache.layers[index]
        layer.plan, layer.asked, layer.still = plan, prefilled.recorded(index), False
        layer.settle()
        layer.plan, layer.asked = None, None
    return cache


def drawn_seed(seed: int | torch.Generator) -> int:
    """Returns the seed, or draws one from a generator."""
    if isinstance(seed, torch.Generator):
        return int(torch.randint(2**62, (), generator=seed, device=seed.device))
    return seed


def generators(seed: int, layer: int, heads: torch.Size) -> list[torch.Generator]:
    """Makes a generator a sample and head: a function of seed, layer and head, whatever the sample's batch."""
    return [torch.Generator().manual_seed(seed_of(seed, layer, 0, head)) for _, head in np.ndindex(*heads)]
