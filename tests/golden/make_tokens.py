"""Writes tokens.json: tokens and log-weights of every arm on one small cache, so that committed results stay what the
code computes.

    python tests/golden/make_tokens.py

First written at revision efe4b14, whose cells the committed tables hold; `sinks_uniform` again where it first kept the
text's first tokens, not the cache's (one thing in the tables). Write it again only where a change of results
is meant, and say so. Left out are the optimum, the coordinate subset, which is for another cache, and arms whose tokens
rounding may change (Agreement.ERROR).
"""

import json
from pathlib import Path
from typing import Any

import torch

from attention_coresets import Cache, Coreset, make_cache, make_coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.arms import ARMS

FILE = Path(__file__).with_name("tokens.json")
N, D, SIZE, RHO, HEADS = 64, 4, 14, 2.0, 2


def coreset_of(construction: str, parameters: dict[str, Any]) -> Coreset:
    """The coreset of an arm, one generator a head; queries and positions are ignored by those that need none."""
    g = torch.Generator().manual_seed(7)
    unit = make_cache("cap_outliers", n=N, d=D, heads=HEADS, seed=5)
    lengths = 0.5 + 0.5 * torch.rand(2, HEADS, N, 1, dtype=torch.float64, generator=g)  # equal norms would tie scores
    cache = Cache(unit.keys * lengths[0], unit.values * lengths[1])
    queries = torch.randn(HEADS, 2, 20, D, dtype=torch.float64, generator=g)
    positions = torch.stack([torch.randperm(N, generator=g) for _ in range(HEADS)])
    generators = [torch.Generator().manual_seed(seed) for seed in range(HEADS)]
    return make_coreset(construction, **parameters)(cache, SIZE, RHO, generators, queries, positions)


def entry(construction: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A row of the file, log-weights to 9 decimals."""
    coreset = coreset_of(construction, parameters)
    weights = coreset.log_weights
    rounded = None if weights is None else [[round(x, 9) for x in head] for head in weights.tolist()]
    tokens = coreset.indices.tolist()
    return {"construction": construction, "parameters": parameters, "tokens": tokens, "log_weights": rounded}


def main() -> None:
    """One line an arm."""
    kept = {
        label: entry(arm.construction, arm.parameters)
        for label, arm in ARMS.items()
        if arm.construction not in ("optimum", "coordinate_subset") and make_coreset(label).agreement != Agreement.ERROR
    }
    lines = (f"{json.dumps(label)}: {json.dumps(row, separators=(',', ':'))}" for label, row in kept.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
