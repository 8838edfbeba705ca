"""Generates on coresets: `with compressed(model, construct, size=...)`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from attention_coresets.coresets.base import Construction, check_is_construction
from attention_coresets.models.serving.compression import Layout, compress
from attention_coresets.models.serving.layer import ModelCache, cache_bytes
from attention_coresets.models.serving.prefill import taken
from attention_coresets.models.serving.running import Run, decoder_of, running


@dataclass
class Compressed:
    """What the context did to the last prompt.

    Parameters
    ----------
    bytes_before, bytes_after : int
        Memory of its cache.
    context : int
        Tokens of the prompt.
    size : int
        Tokens kept in each KV head.
    prompts : int
        How many prompts there were, this one included.
    """

    bytes_before: int = 0
    bytes_after: int = 0
    context: int = 0
    size: int = 0
    prompts: int = 0


@contextmanager
def compressed(
    model,
    construct: Construction,
    size: int | float,
    keep_recent: int = 0,
    rho: float = 4.0,
    calibration: int = 512,
    seed: int | torch.Generator = 0,
) -> Iterator[Compressed]:
    """Runs a transformers decoder on coresets: ``with compressed(model, construct, size=512) as handle: ...``.

    The first forward over an empty cache is the prompt. It is computed with usual attention. Then the cache of each
    layer with full attention is replaced, in place, by a coreset of `size` tokens for each sample and KV head. Layers
    with a sliding window are bounded already and stay. Later tokens are appended, and positions go on as if nothing had
    been dropped.

    Every new cache is a new prompt, and must be read in one forward (no `prefill_chunk_size`). The cache that
    `generate` or the model returns can be continued inside this or a later context, and nowhere else. The model is
    restored on exit.

    Cost: the whole cache in memory until the prompt is read, then size / context of it.

    Parameters
    ----------
    model
        A transformers decoder that takes another attention function (AttentionInterface).
    construct : Construction
    size, keep_recent, rho, seed
        As in `compress`.
    calibration : int
        Of how many last positions before the `keep_recent` ones to keep the queries, for constructions that need them.

    Yields
    ------
    Compressed
        What the last prompt became.

    Raises
    ------
    ValueError
        At once: a model without AttentionInterface, sizes that fit no context, calibration < 1, or contexts within each
        other. At the prompt: soft caps, extra sinks, padding, another cache than DynamicCache, a size above the prompt,
        NaN or Inf.
    """
    check_is_construction(construct)
    Layout(size, keep_recent)  # refuses what fits no context before any work
    if calibration < 1:
        raise ValueError(f"calibration must be at least 1 query, got {calibration}")
    handle, decoder = Compressed(), decoder_of(model)

    def replace(run: Run, cache: ModelCache) -> None:
        prefilled, before = taken(run, cache, decoder), cache_bytes(cache)
        run.queries = {}
        compress(prefilled, construct, size, keep_recent, rho, seed, in_place=True)
        handle.context, handle.size = prefilled.context, Layout(size, keep_recent).tokens(prefilled.context)
        handle.bytes_before, handle.bytes_after = before, cache_bytes(cache)
        handle.prompts += 1

    with running(model, Run(calibration + keep_recent if construct.needs_queries else 0, prefilled=replace)):
        yield handle
