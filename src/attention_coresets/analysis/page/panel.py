"""A part of the page: a chart of one table, what can be picked in it, and its words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pandas as pd

DIGITS = 4  # of numbers on the page
SETTING = {"experiment": "Experiment", "family": "Family", "n": "n", "d": "d", "rho": "ρ"}
# columns that a horizontal axis may be: what it is called, and its scale
SIZE, RHO = ("size m", "log"), ("query radius ρ", "linear")
AXES = {"size": SIZE, "rho": RHO, "d": ("dimension d", "log"), "n": ("tokens n", "log")}
SAME = {"inverse": "epsilon"}
AXIS = "__axis__"  # in a chart, the title that the page's script puts there
# what the script works out of low, high, units and experiment, so that it is not told row by row
TOLD = {"interval": "95 % interval", "over": "over", "cells": "cells", "revisions": "revision", "command": "command"}


@dataclass(frozen=True)
class Panel:
    """A chart with its data.

    name: of its place on the page. about: what is shown, and how to read it; label: the same in a sentence, for
    those who do not see it. rows: the data, a column for whatever is drawn or told.
    pick: column -> label, of which one value is shown at a time, unless the column or (as in `SAME`) another that says
    the same is the axis; begin: column -> the value at first, where it is not any.
    against: column -> title and scale, of what the horizontal axis may be; the chart draws the field x.
    several: a column of which any number of values are shown; start: those at first.
    unit: what intervals are over, unless the rows say so. chart: on data called "rows".
    """

    name: str
    title: str
    about: str
    label: str
    rows: pd.DataFrame
    chart: alt.TopLevelMixin
    pick: Mapping[str, str] = field(default_factory=dict)
    against: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    several: str | None = None
    start: Sequence[str] = ()
    begin: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "caches"

    def content(self) -> dict[str, Any]:
        """All that the page's script needs."""
        spec = self.chart.to_dict()
        for key in ("$schema", "datasets", "config"):
            spec.pop(key, None)
        fitted = {"description": self.label, "width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
        return {
            "name": self.name,
            "spec": spec | fitted | {"config": _CONFIG},
            "pick": self.pick,
            "against": {name: [*axis, SAME.get(name, name)] for name, axis in self.against.items()},
            "several": self.several,
            "start": list(self.start),
            "begin": self.begin,
            "unit": self.unit,
            "rows": {name: packed(self.rows, name) for name in self.rows},
        }


_CONFIG = {
    "axis": {"labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal", "gridColor": "#ebebeb"},
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
    "view": {"stroke": None},
}


def packed(rows: pd.DataFrame, name: str) -> dict[str, Any]:
    """A column as JSON: numbers rounded, words once each with their places."""
    values = rows[name].tolist()
    if pd.api.types.is_numeric_dtype(rows[name]):
        return {"numbers": [None if math.isnan(value) else _rounded(float(value)) for value in values]}
    words = sorted(set(values))
    places = {word: place for place, word in enumerate(words)}
    return {"words": words, "places": [places[word] for word in values]}


def _rounded(value: float) -> float | int:
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short == int(short) else short


def tooltip(**titles: str) -> list[alt.Tooltip]:
    """What a mark tells under the pointer: columns by their titles, then where the mark comes from."""
    numbers = ("error", "low", "high", "value", "middle", "law", "loss")
    return [
        alt.Tooltip(f"{name}:Q", title=title, format=".4~g")
        if name in numbers
        else alt.Tooltip(f"{name}:N", title=title)
        for name, title in (titles | TOLD).items()
    ]
