"""What a dashboard shows of finished cells: statistics by size, never over different settings, and what was computed.

docs/dashboards.md lists every name. All of it follows from the rows of the result table alone, so that a sweep that
runs and a table that is replayed look the same.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from attention_coresets.study.identity import without_later
from attention_coresets.study.parts import named, probe_of

# what constructions are compared by: median and quartiles over heads, seeds and draws
COMPARED = ("error", "loss", "kl")
# of these the median alone
BESIDE = (
    *("certificate", "floor_v", "constant", "heldout_mean", "heldout_p99", "heldout_max", "proven", "start_error"),
    *("kl_p99", "agreement", "needle_loss", "needle_found", "needle_right", "kept_bytes"),
    *("seconds_construct", "seconds_adversary"),
)
QUANTILES = {"median": 0.5, "q25": 0.25, "q75": 0.75}
AT_SIZES = ("error", "certificate", "loss", "kl")  # medians that the summary tells at each size
EPSILONS = (0.3, 0.1, 0.03, 0.01)
# parameters of a real head's cache that tell heads and texts apart as seeds do others
_REPLICATES = ("layer", "kv_head", "start")
_ENVIRONMENT = ("device", "device_name", "processor", "dtype", "fast_path", "revision", "dirty")
_COLUMNS = ("rho", "seed", "draw", "n", "d", "objective", "probe", *_ENVIRONMENT, "torch", "numpy", "python")
Part = tuple[str, dict[str, Any]]  # name and parameters of a construction or of a family
Curves = dict[str, dict[int, dict[str, float]]]  # setting -> size -> name -> value


class Place(NamedTuple):
    """Where a cell stands: its construction, the setting within which cells may be pooled, and its replicate there."""

    construction: str
    setting: str
    replicate: str


def place_of(config: Mapping[str, Any]) -> Place:
    """The place of a cell by its resolved configuration."""
    objective = config["search"]["objective"] if config.get("task") == "hardness" else ""
    facts = (config["rho"], objective, probe_of(config), config["seed"], config.get("draw", 0))
    return _place(named(config["coreset"]), named(config["cache"]), *facts)


def placed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the result table with the columns of `Place`."""
    cells = rows.loc[~rows["cell"].duplicated()]
    told = ("rho", "objective", "probe", "seed", "draw")
    columns = ("cell", "coreset", "coreset_params", "cache", "cache_params", *told)
    places = {
        cell: _place((coreset, json.loads(coreset_params)), (cache, json.loads(cache_params)), *facts)
        for cell, coreset, coreset_params, cache, cache_params, *facts in zip(*(cells[c] for c in columns), strict=True)
    }
    own = [places[cell] for cell in rows["cell"]]
    return rows.assign(**{name: [getattr(each, name) for each in own] for name in Place._fields})


def _place(coreset: Part, family: Part, rho: float, objective: str, probe: str, seed: int, draw: int) -> Place:
    """rho, a number like n and d, counts as a parameter of the cache; one that is null says nothing."""
    (construction, parameters), (name, numbers) = coreset, family
    parameters = without_later("coreset", parameters)
    made = [construction, *(f"{key}={_plain(parameters[key])}" for key in sorted(parameters))]
    numbers = without_later("cache", numbers)
    known = {key: value for key, value in numbers.items() if value is not None and (key, value) != ("rho", rho)}
    order = sorted(known.keys() - set(_REPLICATES), key=lambda key: ({"n": 0, "d": 1}.get(key, 2), key))
    setting = [name, *(f"{key}={_plain(known[key])}" for key in order), f"rho={_plain(rho)}", objective, probe]
    own = {"seed": seed} | ({"draw": draw} if draw else {}) | {key: known[key] for key in _REPLICATES if key in known}
    replicate = " ".join(f"{key}={value}" for key, value in own.items())
    return Place(" ".join(made), " ".join(filter(None, setting)), replicate)


@cache
def metric(name: str, setting: str) -> str:
    """The key of a setting's metric: `name`, a slash, and the setting in letters that W&B can sort and filter by."""
    return f"{name}/{re.sub('[^A-Za-z0-9]', '_', setting)}"


def statistics(rows: pd.DataFrame) -> Curves:
    """setting -> size -> name -> value: medians, and of what is `COMPARED` quartiles too. What is NaN is left out."""
    names = [name for name in (*COMPARED, *BESIDE) if not bool(rows[name].isna().all())]
    settings, number = np.unique(rows["setting"].to_numpy(dtype=str), return_inverse=True)
    sizes = rows["size"].to_numpy()
    order = np.lexsort((sizes, number))
    keys = np.stack([number[order], sizes[order]])
    starts = np.flatnonzero(np.r_[True, (np.diff(keys) != 0).any(axis=0)])
    blocks = np.split(rows[names].to_numpy(dtype=float)[order], starts[1:])
    found: Curves = {}
    for (of, size), block in zip(keys[:, starts].T.tolist(), blocks, strict=True):
        values = {name: column[~np.isnan(column)] for name, column in zip(names, block.T, strict=True)}
        at = found.setdefault(str(settings[of]), {})[size] = {}
        for name, column in values.items():
            if len(column):
                wanted = QUANTILES if name in COMPARED else {"median": 0.5}
                quantiles = np.quantile(column, list(wanted.values())).tolist()
                at |= {f"{name}_{word}": value for word, value in zip(wanted, quantiles, strict=True)}
    return found


def points(curves: Curves) -> list[dict[str, int | float]]:
    """What is logged: a point for each size, of all settings that have it."""
    found: dict[int, dict[str, int | float]] = {}
    for setting, sizes in curves.items():
        for size, values in sizes.items():
            point = found.setdefault(size, {"size": size})
            point |= {metric(name, setting): value for name, value in values.items()}
    return [found[size] for size in sorted(found)]


def summary(curves: Curves) -> dict[str, int | float]:
    """Medians at each size, and the least size from which on their error is at most epsilon, setting by setting."""
    found: dict[str, int | float] = {}
    for setting, sizes in curves.items():
        for name in AT_SIZES:
            median = f"{name}_median"
            found |= {metric(f"{name}_at_{m}", setting): at[median] for m, at in sizes.items() if median in at}
        errors = {m: at["error_median"] for m, at in sizes.items() if "error_median" in at}
        for epsilon in EPSILONS:
            largest = max((m for m, error in errors.items() if error > epsilon), default=0)
            if enough := [m for m in errors if m > largest]:
                found[metric(f"size_for_{str(epsilon).replace('.', '_')}", setting)] = min(enough)
    return found


def configuration(rows: pd.DataFrame) -> dict[str, Any]:
    """cache.*, coreset.*, rho and the rest of what the cells are: a value, or the sorted list of those that differ."""
    cells = rows.loc[~rows["cell"].duplicated()]
    coresets = [
        {"name": name, "model": model, **json.loads(parameters)}
        for name, model, parameters in zip(cells["coreset"], cells["model"], cells["coreset_params"], strict=True)
    ]
    caches = [
        {"name": name, **json.loads(parameters)}
        for name, parameters in zip(cells["cache"], cells["cache_params"], strict=True)
    ]
    plain = {name: _one_or_all(cells[name].tolist()) for name in _COLUMNS}
    heads = _one_or_all(rows.groupby("cell")["head"].nunique().tolist())
    sizes = sorted(rows["size"].unique().tolist())
    return {"cache": _merged(caches), "coreset": _merged(coresets), **plain, "heads": heads, "sizes": sizes}


def _merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    parts = list(parts)
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _one_or_all([part[name] for part in parts if name in part]) for name in names}


def _one_or_all(values: list[Any]) -> Any:
    distinct = [json.loads(text) for text in dict.fromkeys(json.dumps(value) for value in values)]
    if len(distinct) == 1:
        return distinct[0]
    return sorted(distinct, key=lambda x: (0, x, "") if isinstance(x, int | float) else (1, 0, str(x)))


def _plain(value: Any) -> str:
    """2.0 as 2: configurations and tables write the same number in different ways."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
