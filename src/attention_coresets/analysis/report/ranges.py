"""The range that a claim was tested over, told from the rows it was measured on."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import SYMBOL
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.real_heads.caches import named

MANY = 4  # values that are listed; of more the ends and the number
REAL = "model"  # the family of caches that a language model filled
_CACHE, _HEAD = ("cache", "cache_params", "seed", "head"), ("text", "layer", "kv_head")  # what names one


def range_tested(experiment: str, rows: pd.DataFrame) -> str:
    """Experiment, families, n, d, ρ, m and the number of caches; of rows of several experiments their number. Rows
    without families are those of heads.parquet."""
    if rows.empty:
        return f"`{experiment}`: nothing"
    names = distinct(rows, "experiment") if "experiment" in rows else [experiment]
    grid = [f"{symbol} = {span(distinct(rows, name))}" for name, symbol in SYMBOL.items() if name in rows]
    where = f"`{names[0]}`" if len(names) == 1 else f"{len(names)} experiments"
    return f"{where}: {'; '.join([*_families(rows), *grid, _count(rows)])}"


def span(values: Sequence[int | float]) -> str:
    """ "1, 2, 3", or "4 to 64 (5)": the ends of a longer list, and how many there are."""
    if len(values) <= MANY:
        return ", ".join(f"{value:g}" for value in values)
    return f"{values[0]:g} to {values[-1]:g} ({len(values)})"


def _families(rows: pd.DataFrame) -> list[str]:
    names = distinct(rows, "cache") if "cache" in rows else []
    return [] if names in ([], [REAL]) else [", ".join(names)]


def _count(rows: pd.DataFrame) -> str:
    if "cache" not in rows:
        return _counted(rows, _HEAD, "head")
    if distinct(rows, "cache") != [REAL]:
        return _counted(rows, _CACHE, "cache")
    if np.isfinite(column(rows, "layer")).any():
        return _counted(rows, ("cache_params",), "head")
    return f"{_counted(rows, ('cache_params',), 'segment')} of {len(distinct(named(rows), 'text'))} texts"


def _counted(rows: pd.DataFrame, names: Sequence[str], unit: str) -> str:
    number = len(rows[list(names)].drop_duplicates())
    return f"{number} {unit}{'s' if number != 1 else ''}"
