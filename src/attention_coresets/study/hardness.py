"""A hardness cell: a search for a hard cache from each head of a family, and the error of what answers it there."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.caches import make_cache
from attention_coresets.compiled import compiled_runs
from attention_coresets.coresets import make_coreset
from attention_coresets.coresets.randomness import seed_of
from attention_coresets.hardness import BestSubsets, Draws, Effort, Rate, best_of_all, search_hard_cache, weighting
from attention_coresets.hardness.answers import Answers
from attention_coresets.lower_bound import FLOORS
from attention_coresets.study.errors import attack, facts_of_heads, found_by
from attention_coresets.study.parts import named, timed
from attention_coresets.study.provenance import fast_path

_NOISE, _DRAWS, _JUDGED = 4, 5, 6  # streams of random numbers, apart from those of cells of errors
_WALKS = 33  # whose median is the walk's error
_UNKNOWN = (*FLOORS, "heldout_mean", "heldout_p99", "heldout_max")


def run_cell(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of one cell, a row for each size and head; columns as those of a cell of errors, HARDNESS and objective.

    Every head of the family is the start of one search (`hardness.search_hard_cache`), and the row is of the cache
    found: sigma, radius, error and what follows from them. coreset=optimum answers with the best subset among all of
    the size (`hardness.best_of_all`), whose worst-case error `worst_query` finds and `proven` bounds from below. A walk
    answers with 33 draws that the search has not seen; the row is of their median. start_error is the same on the
    start. The same configuration finds the same caches on the same machine.
    """
    family, parameters = named(config["cache"])
    start = make_cache(family, seed=config["seed"], heads=config["heads"], **parameters)
    return [row for size in config["sizes"] for row in _rows(config, start, size)]


def found_cache(config: Mapping[str, Any], start: Cache, size: int) -> Cache:
    """The cache that the cell's search finds from this start."""
    effort = Effort(**{key: value for key, value in config["search"].items() if key != "objective"})
    generator = torch.Generator().manual_seed(seed_of(config["seed"], _NOISE, size))
    rate = _rate(config, size)
    return search_hard_cache(start, _answers(config, rate), rate, effort, generator)


class _Judged(NamedTuple):
    """The coreset that a cache is answered with, and a proven lower bound of the best one's error, NaN of a walk."""

    coreset: Coreset
    proven: Tensor


def _rows(config: Mapping[str, Any], start: Cache, size: int) -> list[dict[str, Any]]:
    before = compiled_runs()
    cache, seconds = timed(lambda: found_cache(config, start, size))
    (judged, worst), judging = timed(lambda: _worst(config, cache, size))
    _, at_start = _worst(config, start, size)
    each = facts_of_heads(config, cache, None)
    shared = {
        "size": size,
        "seconds_construct": seconds / config["heads"],
        "seconds_adversary": judging / config["heads"],
        "fast_path": fast_path(before),
        "objective": config["search"]["objective"],
        **dict.fromkeys(_UNKNOWN, math.nan),
    }
    own = zip(each, found_by(config, worst, each, size), judged.proven.tolist(), at_start.error.tolist(), strict=True)
    return [
        fact | shared | found | {"proven": proven, "start_error": before_search}
        for fact, found, proven, before_search in own
    ]


def _worst(config: Mapping[str, Any], cache: Cache, size: int):
    judged = _best(config, cache, size) if _exact(config) else _median_walk(config, cache, size)
    return judged, attack(config, cache, judged.coreset, size, None)


def _exact(config: Mapping[str, Any]) -> bool:
    return config["coreset"]["name"] == "optimum"


def _rate(config: Mapping[str, Any], size: int) -> Rate:
    return Rate(config["rho"], size, config["coreset"]["model"], config["search"]["objective"])


def _answers(config: Mapping[str, Any], rate: Rate) -> Answers:
    if _exact(config):
        return BestSubsets(rate)
    return Draws(_construction(config), rate, seed_of(config["seed"], _DRAWS, rate.size))


def _construction(config: Mapping[str, Any]) -> Callable[..., Coreset]:
    name, parameters = named(config["coreset"])
    return make_coreset(name, **parameters)


def _best(config: Mapping[str, Any], cache: Cache, size: int) -> _Judged:
    """The best subset of each head among all of its size, weighted as its model weights it."""
    log_weights = weighting(cache.keys, _rate(config, size)).log_weights
    found = [best_of_all(cache[head], weights, size, config["rho"]) for head, weights in enumerate(log_weights)]
    indices = torch.stack([best.indices[0] for best in found])
    weights = None if config["coreset"]["model"] == "unweighted" else log_weights.gather(-1, indices)
    return _Judged(Coreset(indices, weights), torch.tensor([best.proven for best in found]))


def _median_walk(config: Mapping[str, Any], cache: Cache, size: int) -> _Judged:
    """Of 33 walks on each head the one whose error is their median."""
    construct, heads = _construction(config), len(cache.keys)
    seeds = [seed_of(config["seed"], _JUDGED, size, h, k) for h in range(heads) for k in range(_WALKS)]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    many = Cache(*(x.repeat_interleave(_WALKS, dim=0) for x in (cache.keys, cache.values)))
    drawn = construct(many, size, config["rho"], generators)
    errors = attack(config, many, drawn, size, None).error.unflatten(0, (heads, _WALKS))
    middle = errors.median(dim=-1).indices + _WALKS * torch.arange(heads)
    weights = None if drawn.log_weights is None else drawn.log_weights[middle]
    return _Judged(Coreset(drawn.indices[middle], weights), torch.full((heads,), math.nan))
