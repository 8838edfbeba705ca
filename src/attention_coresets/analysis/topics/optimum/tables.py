"""Constructions beside the exact optimum, and its error by coreset model, as Markdown."""

import numpy as np

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.optimum.measures import CACHE, EXPERIMENT, ROUNDING, against, over_caches


def sizes_table(results: Results) -> str:
    """Error and size of each construction over the optimum's of its own model, medians over caches and sizes."""
    rows = against(results)
    lines = []
    for names, group in groups(rows, ["arm"]):
        inexact = group.loc[group["error_ratio"].notna()]
        error = column(inexact, "error_ratio")
        size = column(group, "size_ratio")
        inside = size[np.isfinite(size)]
        lines.append(
            [
                model_of(rows, names["arm"]),
                f"{interval(over_caches(inexact))} ({number(error.min())} to {number(error.max())})",
                number(float(np.median(size))) if np.isfinite(np.median(size)) else "none measured",
                f"{1 - len(inside) / len(size):.0%}",
                f"{len(group)}",
            ]
        )
    shapes = ", ".join(f"{x}" for x in distinct(results.rows(EXPERIMENT), "n"))
    note = f"Tiny caches, n = {shapes}; the optimum is of the construction's own coreset model, proven.\n\n"
    head = [ARM, "Error / optimum's at equal m, median, 95 % (range)", "Size / optimum's at its error, median"]
    return note + table([*head, "No measured size suffices", "Caches × sizes"], lines) + "\n\n" + models(results)


def models(results: Results) -> str:
    """The optimum's error by coreset model, over that of the unweighted one on the same cache and size."""
    rows = results.rows(EXPERIMENT)
    optima = rows.loc[rows["coreset"] == "optimum"]
    wide = optima.pivot_table(index=[*CACHE, "size"], columns="model", values="error")
    lines = []
    for names, group in groups(wide.reset_index(), ["cache"]):
        group = group.loc[group["unweighted"] > ROUNDING]
        cells = [np.median(column(group, name) / column(group, "unweighted")) for name in ("tilted", "free")]
        lines.append([names["cache"], *(number(float(cell)) for cell in cells), f"{len(group)}"])
    head = ["Family", "Best tilted / best unweighted", "Best free / best unweighted", "Caches × sizes"]
    return "Errors of the optima at equal size, medians.\n\n" + table(head, lines)
