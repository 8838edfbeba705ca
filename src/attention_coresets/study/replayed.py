"""A cell of a head that is asked by a replay of its text: how large a coreset it needs, and what may tell that."""

import math
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import torch

from attention_coresets.compiled import compiled_runs
from attention_coresets.coresets import make_coreset
from attention_coresets.coresets.shared import Shared
from attention_coresets.models.capture import Source
from attention_coresets.models.captured import Model
from attention_coresets.models.heads import RealHead, heldout_errors
from attention_coresets.models.predictors import Predictors
from attention_coresets.models.whole.replayed_heads import replayed_head
from attention_coresets.study.parts import device_of, facts, generator_of, named, timed
from attention_coresets.study.provenance import fast_path
from attention_coresets.study.table import UNKNOWN

_CONSTRUCTION = 4  # stream of random numbers, apart from those of other tasks


def run_cell(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one cell, one a size; columns as `study.table.COLUMNS` less its labels.

    The construction is given the head's cache as the model computes it and the queries of a replay
    (`replayed_head`). Errors are at the queries of another replay, in units of the largest norm of a centred value.
    No query is searched for: `error` is NaN. What depends on the head alone is computed once for all arms.
    """
    (_, parameters), sizes = named(config["cache"]), config["sizes"]
    source, place = Model(**parameters).source, (parameters["layer"], parameters["kv_head"])
    head, predictors = _measured(source, device_of(config), *place)
    cache, queries = head.in_model_units(moved=True)
    name, chosen = named(config["coreset"])
    construct, shared, rows = make_coreset(name, **chosen), Shared(), []
    unsought = {"head": 0, "reached": 0, "restarts": 0, "certified_by": "", "objective": ""}
    whole = dict.fromkeys(UNKNOWN, math.nan) | unsought | facts(config, n=cache.n, d=cache.d) | predictors.whole
    for size in sizes:
        before, saved = compiled_runs(), shared.saved
        generator = generator_of(config["seed"], 0, _CONSTRUCTION, size)
        asked = partial(construct, cache, size, config["rho"], generator, queries, shared=shared)
        coreset, seconds = timed(asked)
        made = {"size": size, "seconds_construct": seconds + shared.saved - saved, "fast_path": fast_path(before)}
        errors = {name: float(error) for name, error in heldout_errors(head, coreset).items()}
        rows.append(whole | made | predictors.at(size) | errors)
    return rows


@lru_cache(maxsize=1)
def _measured(source: Source, device: torch.device, layer: int, kv_head: int) -> tuple[RealHead, Predictors]:
    head = replayed_head(source, device, layer, kv_head)
    return head, Predictors(head)
