"""A language cell: one text read once by a model, its cache compressed to each size, and the text continued on that."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.compiled import compiled_runs
from attention_coresets.coresets.base import Construction
from attention_coresets.coresets.randomness import seed_of
from attention_coresets.models.capture import Source, segment
from attention_coresets.models.captured import Model
from attention_coresets.models.language_models import load_model
from attention_coresets.models.serving import (
    Answer,
    Prefilled,
    agreement,
    cache_bytes,
    compress,
    continuation,
    keep,
    prefill,
)
from attention_coresets.models.serving.caches import ModelCache
from attention_coresets.models.serving.needle import Asked, ask, drawn, encode, passages, plant, quotes
from attention_coresets.models.topics import FEW, PROBES
from attention_coresets.models.whole.arms import WHOLE
from attention_coresets.models.whole.measured import Measured
from attention_coresets.models.whole.reading import CHUNK, Repeating
from attention_coresets.models.whole.replay import read as replay
from attention_coresets.study.parts import construction_of, device_of, facts, named, probe_of, timed
from attention_coresets.study.provenance import fast_path
from attention_coresets.study.table import UNKNOWN

_COMPRESSION = 3  # stream of random numbers, apart from those of cells of errors


def run_cell(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one cell, one a size; columns as `study.table.COLUMNS` less its labels.

    The text is cache.n tokens from cache.start on. `needles` facts are planted among them (none for random tokens) or
    quotations taken, as `probe` says. The model predicts the cache.queries tokens that follow, and answers, on its full
    cache and on coresets of all its KV heads. cache.layer and cache.kv_head play no part. What does not depend on the
    construction is computed once a process for the last few texts. Memory of SmolLM2-135M at n = 2048: 0.2 GB a text
    beside the model's 0.5 GB.
    """
    _, parameters = named(config["cache"])
    key = Model(**parameters).source, device_of(config), config.get("needles", FEW), config.get("probe", PROBES[0])
    read, rows = _read(*key), []
    shared = _facts(config, read)
    construct = construction_of(*named(config["coreset"]))
    for size in config["sizes"]:
        before = compiled_runs()
        if isinstance(construct, tuple(WHOLE.values())):
            cache, seconds = _of_a_replay(key, construct, size)
        else:
            cache, seconds = timed(lambda size=size: _of_each_head(config, read, construct, size))
        made = {"size": size, "seconds_construct": seconds / read.prefilled.heads, "fast_path": fast_path(before)}
        rows.append(shared | made | read.measured(cache))
    return rows


def _of_each_head(config: Mapping[str, Any], read: "_Read", construct: Construction, size: int) -> ModelCache:
    """The text's cache with each head compressed on its own."""
    seed, dtype = seed_of(config["seed"], _COMPRESSION, size), getattr(torch, config["compute"]["dtype"])
    return compress(read.prefilled, construct, size, config["keep_recent"], config["rho"], seed, dtype)


def _of_a_replay(key: tuple, construct: Any, size: int) -> tuple[ModelCache, float]:
    """The text's cache with `size` tokens a head on average, and the seconds of replay, statistics and choice."""
    read = _read(*key)
    asked = key, construct.wording, construct.repeating
    found, replay = _replayed(*asked)
    replay += _summed(*asked) if construct.sums else 0.0
    chosen, choosing = timed(lambda: construct.choose(found, size * read.prefilled.heads))
    values, refitting = timed(lambda: construct.values(found, chosen))
    coresets, values = ({layer: [heads] for layer, heads in each.items()} for each in (chosen, values))
    return keep(read.prefilled, coresets, values), choosing + refitting + replay * construct.replays


@dataclass(frozen=True)
class _Read:
    """A text that the model has read: what any construction is compared on."""

    model: Any
    tokenizer: Any
    ids: Int[Tensor, "1 n"]
    prefilled: Prefilled
    following: Int[Tensor, "1 c"]
    full: Float[Tensor, "1 c v"]
    asked: tuple[Asked, ...]
    answers: tuple[Answer, ...]

    @property
    def d(self) -> int:
        return self.prefilled.cache.layers[self.prefilled.layers[0]].keys.shape[-1]

    def measured(self, cache: ModelCache) -> dict[str, float]:
        """The columns LANGUAGE of the result table, for this cache in place of the full one."""
        found = asdict(agreement(self.full, continuation(self.model, cache, self.following), self.following))
        answers = [ask(self.model, self.tokenizer, cache, each) for each in self.asked]
        needles = _mean(answers) | {f"{name}_full": value for name, value in _mean(self.answers).items()}
        return found | needles | {"kept_bytes": float(cache_bytes(cache))}


def _mean(answers) -> dict[str, float]:
    parts = ("loss", "found", "right")
    if not answers:
        return {f"needle_{part}": math.nan for part in parts}
    return {f"needle_{part}": sum(float(getattr(a, part)) for a in answers) / len(answers) for part in parts}


@lru_cache(maxsize=1)
def _replayed(key: tuple, wording: str, repeating: Repeating) -> tuple[Measured, float]:
    """The replay of a text, and the seconds it took."""
    read = _read(*key)
    request = encode(read.tokenizer, wording) if wording and read.tokenizer is not None else None
    return timed(lambda: Measured(replay(read.prefilled, read.ids, request, *repeating)))


@lru_cache(maxsize=1)
def _summed(key: tuple, wording: str, repeating: Repeating) -> float:
    """The seconds that all sums of a replay take; they are kept with it."""
    found, _ = _replayed(key, wording, repeating)
    return timed(lambda: found.sums("own"))[1]


@lru_cache(maxsize=4)
def _read(source: Source, device: torch.device, needles: int, probe: str) -> _Read:
    """Read the source's text with its needles; those depend on the probe and on where the text starts alone."""
    model, tokenizer = _loaded(source.model, device)
    ids, _ = segment(source, model, tokenizer)
    context, following, asked = ids[:, : source.n], ids[:, source.n :], ()
    if tokenizer is not None:
        asked = tuple(drawn(probe, source.start, needles))
        planted, own = plant(tokenizer, ids[0], asked, source.n)
        if probe == "quotes":
            asked = tuple(quotes(tokenizer, planted, needles))
        if probe == "repetition":
            asked = tuple(passages(planted, CHUNK))
        context, following = planted[None], ids[:, own : own + source.queries]
    context, following = context.to(device), following.to(device)
    prefilled = prefill(model, context, source.calibrated)
    full = continuation(model, prefilled.cache, following)
    answers = tuple(ask(model, tokenizer, prefilled.cache, each) for each in asked)
    return _Read(model, tokenizer, context, prefilled, following, full, asked, answers)


@lru_cache(maxsize=1)
def _loaded(name: str, device: torch.device):
    model, tokenizer, _ = load_model(name)
    torch.nn.Module.to(model, device)
    return model, tokenizer


def _facts(config: Mapping[str, Any], read: _Read) -> dict[str, Any]:
    """What all sizes share; no layer and no head, for all are compressed."""
    shared = facts(config, n=read.prefilled.context, d=read.d)
    nothing = {"head": 0, "reached": 0, "restarts": 0, "certified_by": "", "objective": "", "probe": probe_of(config)}
    return shared | dict.fromkeys(UNKNOWN, math.nan) | nothing
