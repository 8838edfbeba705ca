"""The constants of caches sought to be hard, against the number of tokens."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.style import GREY, headed, new_figure, plain_ticks, shared_legend
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.hardness.measures import (
    BEST,
    OWN,
    RHO,
    searches,
    simplex_constant,
)
from attention_coresets.coresets.arms import TILTED, UNWEIGHTED

_COLORS = (TILTED, UNWEIGHTED)  # of the dimensions
_MARKERS = {"sphere": "o", "ragged_clusters": "s"}
_TITLES = {"sphere": "from the sphere", "ragged_clusters": "from signed clusters"}


def hardness(results: Results) -> Figure:
    """The constant of the best tilted subset by n: a row for each rho, left with e^{rho sigma}, right with e^rho.
    Dots are searches, lines their largest; right, open marks are the largest of the starts."""
    rows = searches(results)
    rows = rows.loc[rows["arm"] == BEST]
    rhos = distinct(rows, "rho")
    figure = new_figure(9.0, 2.8 * len(rhos) + 1.4)
    panels = figure.subplots(len(rhos), 2, squeeze=False, sharex=True, sharey=True)
    kinds = ((OWN, r"e^{\rho\sigma}", "e^(ρσ)"), (RHO, r"e^{\rho}", "e^ρ"))
    for line, (objective, label, name) in zip(panels.T, kinds, strict=True):
        for ax, rho in zip(line, rhos, strict=True):
            here = rows.loc[(rows["rho"] == rho) & (rows["objective"] == objective)]
            _panel(ax, here, distinct(rows, "d"))
            ax.set(title=f"divided by √d {name}, ρ = {rho:g}")
            ax.set_ylabel(rf"$m\cdot\mathrm{{err}}\,/\,(\sqrt{{d}}\,{label})$")
            ax.tick_params(labelbottom=True)
            plain_ticks(ax, "x", distinct(rows, "n"))
        line[-1].set_xlabel("n, of which n/2 are kept")
    panels[0][0].set_ylim(0, None)
    headed(figure, "Tiny caches made as hard as possible: size × error of the best subset, over the bound")
    shared_legend(figure, panels.flat)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, dimensions: list) -> None:
    for names, group in groups(rows, ["d", "cache"]):
        color, marker = _COLORS[dimensions.index(names["d"]) % 2], _MARKERS.get(names["cache"], "D")
        aside = 0.2 * (1 if names["cache"] == "sphere" else -1)
        ax.plot(column(group, "n") + aside, column(group, "sought"), ".", color=color, alpha=0.4, markeredgewidth=0)
        label = f"d = {names['d']}, {_TITLES.get(names['cache'], names['cache'])}"
        n, best = _largest(group, "sought")
        ax.plot(n, best, marker=marker, color=color, label=label)
        if set(group["objective"]) == {RHO}:
            ax.plot(*_largest(group, "start_rho"), marker, color=color, markerfacecolor="none")
            ax.plot([], [], "o", color=GREY, markerfacecolor="none", label="open: the hardest start")
    for place, d in enumerate(dimensions):
        ax.axhline(simplex_constant(int(d)), color=_COLORS[place % 2], linestyle=":", linewidth=1.1, zorder=0)
    ax.axhline(0.5, color=GREY, linestyle="--", linewidth=1.1, zorder=0, label="½: our guess beforehand")
    ax.plot([], [], ":", color=GREY, label="known: values at a simplex's corners")
    ax.plot([], [], ".", color=GREY, label="dots: searches; lines: the hardest found")


def _largest(rows: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    best = [(names["n"], column(group, name).max()) for names, group in groups(rows, ["n"])]
    n, largest = np.array(best, dtype=float).T
    return n, largest
