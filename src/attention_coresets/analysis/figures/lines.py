"""Lines of dots: a line for each arm or family, so that its name stands beside it and no legend is needed."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attention_coresets.analysis.figures.looks import Look
from attention_coresets.analysis.stats.frames import column

_SIZES = matplotlib.colormaps["cividis"]


def strip(ax: Axes, y: float | int, values: np.ndarray, style: Look, label: str | None = None) -> None:
    """A small dot for each value on the line at y and a large mark at their median."""
    ax.plot(values, np.full(len(values), y), ".", color=style.color, alpha=0.35, markersize=4, markeredgewidth=0)
    if len(values):
        ax.plot(np.median(values), y, style.marker, color=style.color, markersize=6, zorder=3, label=label)


def name_lines(ax: Axes, names: Sequence[str]) -> None:
    """The names of the lines, from top to bottom, on the y-axis."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def means_by_size(ax: Axes, rows: pd.DataFrame, name: str, arms: Sequence[str], labels: Mapping[int, str]) -> None:
    """For each arm a line with the mean of a column over segments at each size of `labels`, coloured by size, and a
    faint dot for each segment. Rows whose value is NaN say nothing."""
    rows = rows.loc[np.isfinite(column(rows, name))]
    for place, (size, label) in enumerate(labels.items()):
        color, aside = _SIZES(0.85 * place / max(len(labels) - 1, 1)), 0.22 * (place - (len(labels) - 1) / 2)
        here = rows.loc[rows["size"] == size]
        found = [(y, column(here.loc[here["arm"] == arm], name)) for y, arm in enumerate(arms)]
        for y, values in found:
            line = np.full(len(values), y + aside)
            ax.plot(values, line, ".", color=color, alpha=0.4, markersize=4, markeredgewidth=0)
        means = [(float(np.mean(values)), y + aside) for y, values in found if len(values)]
        ax.plot(*np.array(means).T, "osD"[place % 3], color=color, markersize=5, zorder=3, label=label)
