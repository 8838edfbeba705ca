"""What makes two cells the same: everything in a configuration that can change its numbers, and nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FORMAT = 1  # raise it when the meaning of a row changes: cells of another format are computed anew
_NUMBERS = ("cache", "coreset", "rho", "seed", "heads", "sizes", "adversary")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that the numbers depend on: no device, paths, tracking or labels."""
    return {"format": FORMAT, "dtype": config["compute"]["dtype"], **{key: config[key] for key in _NUMBERS}}


def cell_hash(config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that name the cell of a resolved configuration."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
