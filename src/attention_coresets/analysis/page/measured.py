"""Panels that any sweep has: errors, and sizes for an error with the laws fitted to them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attention_coresets.analysis.page import charts
from attention_coresets.analysis.page.panel import AXES, SETTING, Panel
from attention_coresets.analysis.parts.markdown import size_between
from attention_coresets.analysis.show import numbers
from attention_coresets.analysis.show.shown import REAL
from attention_coresets.analysis.stats.frames import distinct, groups
from attention_coresets.analysis.stats.sizes import INTERVAL

KEYS = tuple(SETTING)
EPSILONS = tuple(e for e in numbers.ROUND if 0.005 <= e <= 0.5)
_TOLD = {"arm": "arm", "models": "coreset model", **SETTING, "size": "m"}
_FIRST = 6  # arms that are shown at first
_USUAL = ("walk_tilted", "uniform", "minimax_free")  # among them, where they were run


def errors(rows: pd.DataFrame) -> Panel:
    """Median errors against size, ρ, d or n."""
    found = numbers.over_units(rows, [*KEYS, "arm", "size"], "error")
    found = found.assign(unit=np.where(found["family"].str.startswith(REAL), "heads", "caches"))
    return Panel(
        "errors",
        "Worst-case errors",
        "The largest attention error over queries that gradient ascent found, a lower bound of the supremum, in"
        " the unit of the values. Medians over caches (or real heads); bars are 95 % intervals. Pick the"
        " experiment, the setting and the horizontal axis.",
        "Lines of median worst-case error against the axis picked, one line for each arm picked.",
        found,
        charts.curves("error", "worst-case error", _TOLD | {"error": "error"}),
        pick=SETTING | {"size": "size m"},
        against=AXES,
        several="arm",
        start=first_arms(found),
        begin={"experiment": "epsilon_rate"},
    )


def sizes(rows: pd.DataFrame, records: Sequence[Mapping[str, Any]], unit: str) -> Panel:
    """Sizes for an error against 1/ε, ρ, d or n, beside their fitted laws."""
    laws = [_law(group, names, records) for names, group in groups(rows, [*KEYS, "arm"])]
    found = numbers.sizes(rows, KEYS, EPSILONS).merge(pd.concat(laws), on=[*KEYS, "arm", "epsilon"])
    found = found.assign(
        inverse=1 / found["epsilon"],
        size=[size_between(lo, hi) for lo, hi in zip(found["lo"], found["hi"], strict=True)],
    )
    inside = found["status"] == INTERVAL
    found = found.assign(**{name: found[name].where(inside) for name in ("lo", "hi", "law")})
    return Panel(
        "sizes",
        "Sizes that reach an error",
        "The least size from which on the median error is at most ε. A bar joins the two sizes between which it"
        " lies; the mark is where the straight line between both errors meets ε. Open triangles: it is above the"
        " largest size measured (△), or at most the smallest (▽). Dashed: the fitted law, if there is one.",
        "Sizes needed for an error against the axis picked, one line for each arm, with open triangles where censored.",
        found,
        charts.sizes(_TOLD_SIZES),
        pick=SETTING | {"epsilon": "ε"},
        against={"inverse": ("1/ε", "log")} | {name: axis for name, axis in AXES.items() if name != "size"},
        several="arm",
        start=first_arms(numbers.errors(rows, KEYS)),
        begin={"experiment": "epsilon_rate"},
        unit=unit,
    )


_TOLD_SIZES = {
    **{"arm": "arm", "models": "coreset model", **SETTING, "epsilon": "ε"},
    **{"size": "m(ε)", "law": "fitted law"},
}


def _law(rows: pd.DataFrame, names: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The fitted size of one arm and setting at each epsilon, NaN without one, and where its rows are from."""
    law = numbers.predicted(rows, records, np.array(EPSILONS))
    told = {"models": "model", "cells": "cell", "revisions": "revision"}
    words = {name: " ".join(distinct(rows, detail)) for name, detail in told.items()}
    start = pd.DataFrame({"epsilon": EPSILONS, "law": np.nan if law is None else law})
    return start.assign(**names, **words, units=rows["unit"].nunique())


def first_arms(found: pd.DataFrame) -> list[str]:
    """Arms to begin with: the usual ones, then the best."""
    ranked = numbers.ranked(found)
    usual = [arm for arm in _USUAL if arm in ranked]
    return [*usual, *(arm for arm in ranked if arm not in usual)][:_FIRST]
