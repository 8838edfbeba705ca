"""Writes settings.json: every default that a command leaves unsaid, and proven ceilings of two coresets.

    python tests/golden/make_settings.py

A default that changes changes what `coreset=NAME` or `worst_query(...)` computes for whoever relied on it; a ceiling
that changes is another certificate. Write it again only where that is meant, and say so.
"""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import torch

from attention_coresets import CACHES, make_cache, make_coreset, structured_worst, worst_query
from attention_coresets.adversary.enclosure import branch_and_bound
from attention_coresets.coresets.catalogue import CONSTRUCTIONS

FILE = Path(__file__).with_name("settings.json")
CASES = (("sphere", 4, 1.0), ("cap_outliers", 8, 2.0))


def defaults() -> dict[str, dict[str, Any]]:
    """Of every family, construction and public search: parameter -> default; what has none is left out."""
    found = {
        f"{group} {name}": {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
        for group, registry in (("cache", CACHES), ("coreset", CONSTRUCTIONS))
        for name, kind in registry.items()
    }
    for search in (worst_query, structured_worst, branch_and_bound):
        parameters = inspect.signature(search).parameters.values()
        found[search.__name__] = {p.name: p.default for p in parameters if p.default is not p.empty}
    return found


def ceilings() -> list[dict[str, float]]:
    """The kernel's and Taylor's ceiling of the tilted walk's coreset, case by case."""
    found = []
    for family, d, rho in CASES:
        cache = make_cache(family, n=96, d=d, seed=3)
        coreset = make_coreset("gram_schmidt_walk")(cache, 32, rho, torch.Generator().manual_seed(1))
        worst = worst_query(cache, coreset, rho, certify=True, restarts=4, steps=5, polish=2)
        found.append({name: float((worst.ceilings or {})[name]) for name in ("kernel", "taylor")})
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps({"defaults": defaults(), "ceilings": ceilings()}, indent=1) + "\n")
