"""What makes two cells the same: everything in a configuration that can change its numbers, and nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from attention_coresets.caches.signed_clusters import SignedClusters
from attention_coresets.study.cell import READING

FORMAT = 1  # raise it when the meaning of a row changes: cells of another format are computed anew
# what all cells were before these parameters came
_LATER = {
    "cache": (("signs", "random"),),
    "coreset": (
        *(("refinement", "none"), ("form", "gram"), ("rank", None), ("merge", False)),
        *(("inside", "score"), ("among", 4.0), ("lead", 0)),
    ),
}
# named only where a cell differs, as they came later
_TASK = (("task", "errors"), ("keep_recent", 0), ("body", "ball"), ("draw", 0), ("needles", 4), ("probe", "facts"))
_NUMBERS = ("cache", "coreset", "rho", "seed", "heads", "sizes", "adversary")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that the numbers depend on: no device, paths, tracking or labels."""
    version = FORMAT + has_floors(config["cache"])  # rows of such cells had no floors at first
    version += config["coreset"].get("lead", 0) > 0  # and the queries of a lead did not count at first
    numbers = {key: config[key] for key in _NUMBERS}
    numbers |= {key: config[key] for key, usual in _TASK if config.get(key, usual) != usual}
    if config.get("task") == "hardness":
        numbers["search"] = config["search"]
    if config.get("sources"):  # of cells whose cache or construction is of the user's own
        numbers["sources"] = config["sources"]
    numbers |= {part: without_later(part, config[part]) for part in _LATER}
    # the gap is the certificates' own, and racing came later
    unused = {"gap": not config["adversary"]["certify"], "racing": not config["adversary"].get("racing", False)}
    numbers["adversary"] = {key: value for key, value in config["adversary"].items() if not unused.get(key, False)}
    if config.get("task") in READING:  # no worst query is sought in them
        del numbers["adversary"]
    return {"format": version, "dtype": config["compute"]["dtype"], **numbers}


def without_later(part: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a cell's cache or coreset, less those that came later and say what all cells were before."""
    return {key: value for key, value in parameters.items() if (key, value) not in _LATER[part]}


def has_floors(cache: Mapping[str, Any]) -> bool:
    """Whether lower_bound.py has floors for the coresets of this cache: signed clusters with orthonormal centres."""
    parameters = {key: value for key, value in cache.items() if key != "name"}
    return cache["name"] == "signed_clusters" and SignedClusters(**parameters).orthonormal


def cell_hash(config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that name the cell of a resolved configuration."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
