"""Signed clusters: every arm's error against the floor and the bounds."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.lines import name_lines, strip
from attention_coresets.analysis.figures.looks import (
    MODEL_COLORS,
    MODEL_MARKERS,
    Look,
    in_order,
    look,
    model_legend,
)
from attention_coresets.analysis.figures.style import (
    GREY,
    headed,
    log_axes,
    new_figure,
    plain_ticks,
)
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.hard_instances.signed_clusters import RANDOM, over_bounds, over_floor

_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def lower_bound(results: Results) -> Figure:
    """Signed clusters with orthonormal centres, a column for each share m/n, every row a dot. Above, error over
    A sqrt(d/2): with equal cluster weights no coreset of m <= n/2 lies left of 1. Below, error over the bounds of the
    coreset's own weights: none lies left of 1."""
    rows, bounded = over_floor(results), over_bounds(results)
    shares, arms = distinct(rows, "fraction"), in_order(set(rows["arm"]))
    figure = new_figure(3.0 * len(shares) + 1.6, 2 * (0.24 * len(arms) + 1.1))
    panels = figure.subplots(2, len(shares), squeeze=False, sharex="row", sharey=True)
    above, below = list(panels[0]), list(panels[1])
    _shares(above, rows, "ratio", shares, arms, "error / floor for equal cluster weights")
    _shares(below, bounded, "excess", shares, arms, "error / bound for its own weights")
    for ax, share in zip(above, shares, strict=True):
        if share <= 0.5:
            _forbid(ax, "below the floor")
    for ax in below:
        _forbid(ax, "below the bound")
    headed(
        figure,
        "Hard caches (signed clusters): no coreset errs by less than the proven floor (shaded: below)",
    )
    model_legend(figure, rows["model"])
    return figure


def lower_bound_random(results: Results) -> Figure:
    """As the upper half of `lower_bound` with more clusters than dimensions, where A sqrt(d/2) is a unit only."""
    rows = over_floor(results, RANDOM)
    shares, arms = distinct(rows, "fraction"), in_order(set(rows["arm"]))
    figure = new_figure(3.0 * len(shares) + 1.6, 0.28 * len(arms) + 1.6)
    axes = list(figure.subplots(1, len(shares), squeeze=False, sharex=True, sharey=True)[0])
    _shares(axes, rows, "ratio", shares, arms, "error in units of A√(d/2)")
    headed(
        figure, "More clusters than dimensions: nothing is proven here; 1 is the floor of the figure before, for scale"
    )
    model_legend(figure, rows["model"])
    return figure


def _shares(
    axes: Sequence[Axes], rows: pd.DataFrame, name: str, shares: list[float], arms: list[str], label: str
) -> None:
    """A panel for each share with a line for each arm: dots for rows, a large mark for their median."""
    values = column(rows, name)
    low, high = min(0.7, values.min() / 1.2), values.max() * 1.2
    for ax, share in zip(axes, shares, strict=True):
        _arm_lines(ax, rows.loc[rows["fraction"] == share], name, arms)
        ax.set(title=f"{share:g} of the tokens kept", xlabel=label, xlim=(low, high))
        ax.axvline(1, color=GREY, linewidth=1.1, zorder=1)
        plain_ticks(ax, "x", [tick for tick in _TICKS if low <= tick <= high])


def _arm_lines(ax: Axes, rows: pd.DataFrame, name: str, arms: list[str]) -> None:
    for y, arm in enumerate(arms):
        mine = rows.loc[rows["arm"] == arm]
        model = str(mine["model"].iloc[0])
        strip(ax, y, column(mine, name), Look("", MODEL_COLORS[model], MODEL_MARKERS[model]))
    log_axes(ax, y=False)
    name_lines(ax, [look(arm).label for arm in arms])


def _forbid(ax: Axes, text: str) -> None:
    """Shades what lies left of 1."""
    low, _ = ax.get_xlim()
    ax.axvspan(low / 10, 1, color="0.9", zorder=0)
    ax.set_xlim(left=low)
    ax.text(low**0.5, sum(ax.get_ylim()) / 2, text, rotation=90, ha="center", va="center", color="0.45")
