"""The league: errors of all arms, and ours against the best other arm, cell by cell."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.lines import name_lines
from attention_coresets.analysis.figures.looks import MODEL_COLORS, MODEL_MARKERS, family, look, model_legend
from attention_coresets.analysis.figures.style import GREY, headed, log_axes, new_figure, plain_ticks
from attention_coresets.analysis.parts.arm_names import is_ours
from attention_coresets.analysis.parts.markdown import number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import distinct
from attention_coresets.analysis.topics.league import standings as league

_STEPS = [0.25, 0.35, 0.5, 0.7, 0.98, 1.02, 1.4, 2, 2.8, 4]  # where the colours change: white is as good
_COLORS, _NORM = "RdBu_r", BoundaryNorm(_STEPS, 256, extend="both")
_TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_COLUMN = ["d", "n", "size", "rho"]  # what sets apart the columns of the map
_LINE, _CELL = 0.19, (0.42, 0.24)  # inches: of a line of errors, of a cell of the map


def league_errors(results: Results) -> Figure:
    """Each arm's error over that of the tilted walk, a geometric mean over cells with its 95 % interval, least first,
    coloured by the arm's coreset model; bold names are ours, the number on the right is how many cells the arm won."""
    rows = results.rows(league.EXPERIMENT)
    places = [place for place in league.places(rows, "free") if np.isfinite(place.error.value)]
    places.sort(key=lambda place: (place.error.value, place.arm))
    models = dict(zip(rows["arm"], rows["model"], strict=True))
    figure = new_figure(8.0, _LINE * len(places) + 1.6)
    ax = figure.subplots()
    for y, place in enumerate(places):
        color = MODEL_COLORS[models[place.arm]]
        ax.plot([place.error.low, place.error.high], [y, y], color=color, linewidth=1.2)
        ax.plot(place.error.value, y, MODEL_MARKERS[models[place.arm]], color=color)
        ax.annotate(f"{place.won}", (1.03, y), xycoords=ax.get_yaxis_transform(), color="0.4", va="center", fontsize=7)
    cells = len(league.standings(rows, "free").errors)
    ax.annotate(
        f"best in, of {cells} settings", (1.03, -1.1), xycoords=ax.get_yaxis_transform(), color="0.4", fontsize=7
    )
    ax.axvline(1, color=GREY, linestyle="--", linewidth=1.1, zorder=1)
    log_axes(ax, y=False)
    plain_ticks(ax, "x", [tick for tick in _TICKS if ax.get_xlim()[0] <= tick <= ax.get_xlim()[1]])
    name_lines(ax, [look(place.arm).label for place in places])
    for tick, place in zip(ax.get_yticklabels(), places, strict=True):
        tick.set(fontsize=7.5, fontweight="bold" if is_ours(place.arm) else "normal")
    ax.set_xlabel(f"worst-case error / that of the {look(league.REFERENCE).label}, mean over settings, 95 % intervals")
    headed(figure, "Every construction's error over that of the tilted walk, the least first (bold: ours)")
    model_legend(figure, set(models.values()))
    return figure


def league_map(results: Results) -> Figure:
    """Our error over that of the best other arm in every cell: families down, (d, rho) across, a panel for each
    arm of ours; blue is ours ahead. Grey cells count for nothing: some coreset is as good as exact there."""
    rows = results.rows(league.EXPERIMENT)
    arms = [(model, ours) for model in league.MODELS for ours in league.our_arms(model)]
    found = {ours: cells for model, ours in arms if len(cells := league.against_best(rows, model, ours))}
    families = [*(f for f in distinct(rows, "cache") if f not in league.UNSEEN), *league.UNSEEN]
    families = [name for name in families if name in set(rows["cache"])]
    columns = sorted({tuple(line) for line in rows[_COLUMN].to_numpy(dtype=float).tolist()})
    lines = -(-max(len(found), 1) // 2)
    width = 2 * (_CELL[0] * len(columns) + 0.3) + 1.4
    figure = new_figure(max(width, 9.6), (_CELL[1] * len(families) + 0.55) * lines + 1.2)
    axes = list(figure.subplots(lines, 2, squeeze=False, sharey=True).flat)
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    headed(
        figure, "Our constructions' error over that of the best other one, setting by setting (blue: ours is smaller)"
    )
    if not found:
        axes[0].text(0, 0.5, "none of our own arms has been run")
        return figure
    for ax, (ours, cells) in zip(axes, found.items(), strict=False):
        _map(ax, cells, families, columns)
        ax.set_title(f"{look(ours).label}: {number(league.mean_ratio(cells).value)} in the mean", fontsize=8.5)
    bar = figure.colorbar(
        ScalarMappable(_NORM, _COLORS), ax=axes, orientation="horizontal", shrink=0.5, aspect=40, pad=0.02
    )
    bar.set_label(
        "our error / the best other's; grey: some coreset is as good as exact; unseen: not looked at while ours"
        " was made"
    )
    bar.set_ticks([0.25, 0.5, 1, 2, 4], labels=["0.25", "0.5", "1", "2", "4"])
    bar.ax.minorticks_off()
    return figure


def _map(ax: Axes, cells: pd.DataFrame, families: list[str], columns: list[tuple[float, ...]]) -> None:
    ratio = np.full((len(families), len(columns)), np.nan)
    for name, place, log_ratio in zip(cells["cache"], cells[_COLUMN].to_numpy(), cells["log_ratio"], strict=True):
        ratio[families.index(name), columns.index(tuple(place))] = np.exp(log_ratio)
    ax.set_facecolor("0.85")
    ax.imshow(ratio, cmap=_COLORS, norm=_NORM, aspect="auto")
    for y, x in np.argwhere(np.isfinite(ratio)):
        color = "white" if not _STEPS[1] <= ratio[y, x] <= _STEPS[-2] else "black"
        ax.text(x, y, f"{ratio[y, x]:.2f}", ha="center", va="center", fontsize=6.5, color=color)
    ax.set_yticks(
        range(len(families)), [f"{family(f)} (unseen)" if f in league.UNSEEN else family(f) for f in families]
    )
    starts = [k for k in range(len(columns)) if k == 0 or columns[k - 1][:-1] != columns[k][:-1]]
    dimensions = {k: f"\nρ; d = {columns[k][0]:g}" for k in starts}
    ax.set_xticks(range(len(columns)), [f"{rho:g}" + dimensions.get(k, "") for k, (*_, rho) in enumerate(columns)])
    ax.tick_params(length=0)
    if 0 < (seen := sum(name not in league.UNSEEN for name in families)) < len(families):
        ax.axhline(seen - 0.5, color="black", linewidth=1)
    for k in starts[1:]:
        ax.axvline(k - 0.5, color=GREY, linewidth=1)
