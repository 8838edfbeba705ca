"""The constants of caches sought to be hard, as Markdown."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.hardness.measures import EXPERIMENT, OWN, searches, trend

_EXPONENT = {"tilted": "ρσ", "unweighted": "ρR"}


def constants(results: Results) -> str:
    """The largest constant found and the median over searches, by n, and the trend in n."""
    rows = searches(results)
    if rows.empty:
        return f"No search run yet: run `python scripts/sweep.py experiment={EXPERIMENT}`."
    sizes = distinct(rows, "n")
    lines = []
    for names, group in groups(rows, ["arm", "objective", "d", "rho"]):
        exponent = _EXPONENT[group["model"].iloc[0]] if names["objective"] == OWN else "ρ"
        cells = [_cell(group.loc[group["n"] == n], "sought") for n in sizes]
        starts = _cell(group, "start_rho") if names["objective"] != OWN else "–"
        start = [model_of(rows, names["arm"]), exponent, f"{names['d']}", f"{names['rho']:g}"]
        lines.append([*start, *cells, interval(trend(group)), starts])
    head = [ARM, "x", "d", "ρ", *(f"n = {n}" for n in sizes), "slope in log n, 95 %", "starts"]
    return _note(rows) + table(head, lines)


def _cell(rows: pd.DataFrame, name: str) -> str:
    values = column(rows, name)
    return f"{number(values.max())} ({number(float(np.median(values)))})" if len(values) else "–"


def _note(rows: pd.DataFrame) -> str:
    exact = rows.loc[np.isfinite(column(rows, "proven"))]
    gap = 1 - column(exact, "proven") / column(exact, "error")
    count = len(rows.drop_duplicates(["cache", "seed", "head"]))
    return (
        f"m·err/(√d e^x) at m = n/2: the largest of {count} searches a cell and, in brackets, their median. The"
        " searches raised this constant, with this x. The error of a best subset lies within a share of"
        f" {number(float(gap.max()))} of a lower bound proven over all subsets. Slopes are means over searches,"
        " which search less thoroughly the more tokens there are.\n\n"
    )
