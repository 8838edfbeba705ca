"""What cells of every task share: the parts of a configuration, the columns that all their rows have, and a clock."""

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from attention_coresets.coresets import make_coreset
from attention_coresets.coresets.randomness import seed_of
from attention_coresets.models.whole.arms import WHOLE
from attention_coresets.registry import build
from attention_coresets.study.identity import cell_hash, without_later
from attention_coresets.study.provenance import device_name, provenance

T = TypeVar("T")
_ON_CPU = ("hardness", "structured")  # tasks of many small steps


def named(part: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of a configuration's part: a cache, a coreset."""
    return part["name"], {key: value for key, value in part.items() if key != "name"}


def construction_of(name: str, parameters: Mapping[str, Any]) -> Any:
    """A construction for one head, or what chooses for a whole model (models/whole), which WHOLE knows by name."""
    if name in WHOLE:
        return build(WHOLE, "construction", name, parameters)
    return make_coreset(name, **parameters)


def device_of(config: Mapping[str, Any]) -> torch.device:
    """compute.device, with `auto` a GPU where torch sees one; the CPU for tasks that do all their work there."""
    asked = "cpu" if config.get("task") in _ON_CPU else config["compute"]["device"]
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked)


def probe_of(config: Mapping[str, Any]) -> str:
    """What a language model is asked for, as the column `probe` has it: "" for facts of different kinds."""
    probe = config.get("probe", "facts")
    return "" if probe == "facts" else probe


def facts(config: Mapping[str, Any], n: int, d: int) -> dict[str, Any]:
    """The columns that all rows of a cell share, of a cache of n tokens in R^d."""
    (family, cache_params), (construction, coreset_params) = named(config["cache"]), named(config["coreset"])
    device = device_of(config)
    return {
        "cell": cell_hash(config),
        "cache": family,
        "coreset": construction,
        "model": construction_of(construction, coreset_params).model,
        "rho": config["rho"],
        "seed": config["seed"],
        "draw": config.get("draw", 0),
        "n": n,
        "d": d,
        # caches of older and younger rows are paired by this text
        "cache_params": json.dumps(without_later("cache", cache_params), sort_keys=True),
        "coreset_params": json.dumps(coreset_params, sort_keys=True),
        "layer": float(cache_params.get("layer", math.nan)),
        "kv_head": float(cache_params.get("kv_head", math.nan)),
        "device": str(device),
        "device_name": device_name(device),
        "dtype": config["compute"]["dtype"],
        **provenance(),
    }


def generator_of(seed: int, head: int, stream: int, *numbers: int) -> torch.Generator:
    """The random numbers of one head and, say, size; `stream` sets those of constructions and adversaries apart."""
    return torch.Generator().manual_seed(seed_of(seed, head, stream, *numbers))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result and its wall-clock seconds, with a GPU's queue emptied before and after."""
    _wait_for_gpu()
    start = time.perf_counter()
    result = work()
    _wait_for_gpu()
    return result, time.perf_counter() - start


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
