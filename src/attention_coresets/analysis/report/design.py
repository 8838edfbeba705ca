"""What an experiment ran, in a line of its section."""

import json

import pandas as pd

from attention_coresets.analysis.parts.arm_names import model_of
from attention_coresets.analysis.parts.measured import SYMBOL
from attention_coresets.analysis.stats.estimates import SYNTHETIC
from attention_coresets.analysis.stats.frames import distinct


def design(rows: pd.DataFrame) -> str:
    """What was run: arms with their models, families, n, d, rho, sizes, caches."""
    arms = ", ".join(model_of(rows, arm) for arm in distinct(rows, "arm"))
    grid = "; ".join(f"{symbol} = {', '.join(f'{x:g}' for x in distinct(rows, k))}" for k, symbol in SYMBOL.items())
    real = bool((rows["cache"] == "model").all())
    names = ["cache_params"] if real else list(SYNTHETIC)
    caches = len(rows[names].drop_duplicates())
    count = f"{caches} {'heads or texts' if real else 'caches of each kind'}"
    return f"Arms: {arms}. Families: {'; '.join(_families(rows))}. {grid}; {count}."


def _families(rows: pd.DataFrame) -> list[str]:
    """Family names with the parameters that no column of the table holds."""
    found = set()
    for text, family in set(zip(rows["cache_params"], rows["cache"], strict=True)):
        rest = {
            k: v for k, v in json.loads(text).items() if k not in ("n", "d", "rho", "layer", "kv_head", "start", "text")
        }
        words = ", ".join(f"{k} = {v}" for k, v in rest.items() if v is not None)
        found.add(f"{family} ({words})" if words else family)
    return sorted(found)
