"""The league: ranks of all arms, model by model, and ours against the best other arm, cell by cell."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import MODEL_COLORS, MODEL_MARKERS, look, model_legend
from attention_coresets.analysis.figures.style import GREY, new_figure
from attention_coresets.analysis.parts.arm_names import is_ours
from attention_coresets.analysis.parts.markdown import number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import distinct
from attention_coresets.analysis.topics.league import standings as league

_RANGE = 4.0  # the colours end at 1 / 4 and 4 times the best other error
_COLUMN = ["d", "n", "size", "rho"]  # what sets apart the columns of the map
_LINE, _CELL = 0.2, (0.5, 0.3)  # inches: of a line of ranks, of a cell of the map


def league_ranks(results: Results) -> Figure:
    """Mean rank over cells with its 95 % interval, a panel for each coreset model, best first, coloured by the arm's
    own model; bold names are ours, the number on the right is how many cells the arm won."""
    rows = results.rows(league.EXPERIMENT)
    found = {model: places for model in league.MODELS if (places := league.places(rows, model))}
    models = dict(zip(rows["arm"], rows["model"], strict=True))
    longest = max(len(places) for places in found.values())
    figure = new_figure(4.2 * len(found), _LINE * longest + 0.9)
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for ax, (model, places) in zip(axes, found.items(), strict=True):
        names = [look(place.arm).label for place in places]
        if model != "free":  # said by the panel's title
            names = [name.removesuffix(f" ({model})") for name in names]
        _ranks(ax, places, models, names)
        cells = len(league.standings(rows, model).errors)
        title = "free: every arm" if model == "free" else model
        ax.set(xlabel=f"mean rank over {cells} cells", ylim=(longest - 0.4, -0.6))
        ax.set_title(title, pad=14)  # above the heading of the counts
    model_legend(figure, set(models.values()))
    return figure


def _ranks(ax: Axes, places: list[league.Place], models: dict[str, str], names: list[str]) -> None:
    for y, place in enumerate(places):
        color = MODEL_COLORS[models[place.arm]]
        ax.plot([place.rank.low, place.rank.high], [y, y], color=color, linewidth=1.2)
        ax.plot(place.rank.value, y, MODEL_MARKERS[models[place.arm]], color=color)
        ax.annotate(f"{place.won}", (1.03, y), xycoords=ax.get_yaxis_transform(), color="0.4", va="center", fontsize=7)
    ax.annotate("won", (1.03, -1.2), xycoords=ax.get_yaxis_transform(), color="0.4", va="center", fontsize=7)
    ax.set_yticks(range(len(places)), names, fontsize=7.5)
    for tick, place in zip(ax.get_yticklabels(), places, strict=True):
        tick.set_fontweight("bold" if is_ours(place.arm) else "normal")
    ax.set_xlim(0, max(len(places), *(place.rank.high for place in places)) + 1)
    ax.grid(True, axis="x", color="0.92", linewidth=0.6)


def league_map(results: Results) -> Figure:
    """Our error over that of the best other arm in every cell: families down, (d, rho) across, a panel for each
    arm of ours; blue is ours ahead. Grey cells count for nothing: some coreset is as good as exact there."""
    rows = results.rows(league.EXPERIMENT)
    arms = [(model, ours) for model in league.MODELS for ours in league.our_arms(model)]
    found = {ours: cells for model, ours in arms if len(cells := league.against_best(rows, model, ours))}
    families = [*(f for f in distinct(rows, "cache") if f not in league.UNSEEN), *league.UNSEEN]
    families = [family for family in families if family in set(rows["cache"])]
    columns = sorted({tuple(line) for line in rows[_COLUMN].to_numpy(dtype=float).tolist()})
    width = _CELL[0] * len(columns) + 1.4
    figure = new_figure(max(width, 4.0), (_CELL[1] * len(families) + 0.7) * max(len(found), 1) + 0.5)
    axes = figure.subplots(max(len(found), 1), 1, squeeze=False, sharex=True)[:, 0]
    if not found:
        axes[0].set_axis_off()
        axes[0].text(0, 0.5, "none of our own arms has been run")
    for ax, (ours, cells) in zip(axes, found.items(), strict=False):
        _map(ax, cells, families, columns)
        mean = league.mean_ratio(cells)
        ax.set_title(f"{ours} / best other: {number(mean.value)} (geometric mean)")
    return figure


def _map(ax: Axes, cells: pd.DataFrame, families: list[str], columns: list[tuple[float, ...]]) -> None:
    ratio = np.full((len(families), len(columns)), np.nan)
    for family, place, log_ratio in zip(cells["cache"], cells[_COLUMN].to_numpy(), cells["log_ratio"], strict=True):
        ratio[families.index(family), columns.index(tuple(place))] = np.exp(log_ratio)
    ax.set_facecolor("0.85")
    ax.imshow(ratio, cmap="RdBu_r", norm=LogNorm(1 / _RANGE, _RANGE), aspect="auto")
    for y, x in np.argwhere(np.isfinite(ratio)):
        color = "white" if abs(np.log(ratio[y, x])) > 0.6 * np.log(_RANGE) else "black"
        ax.text(x, y, f"{ratio[y, x]:.2f}", ha="center", va="center", fontsize=7, color=color)
    ax.set_yticks(range(len(families)), [f"{f} (unseen)" if f in league.UNSEEN else f for f in families])
    starts = [k for k in range(len(columns)) if k == 0 or columns[k - 1][:-1] != columns[k][:-1]]
    dimensions = {k: f"\nd = {columns[k][0]:g}" for k in starts}
    ax.set_xticks(range(len(columns)), [f"ρ = {rho:g}" + dimensions.get(k, "") for k, (*_, rho) in enumerate(columns)])
    ax.tick_params(length=0)
    if 0 < (seen := sum(family not in league.UNSEEN for family in families)) < len(families):
        ax.axhline(seen - 0.5, color="black", linewidth=1)
    for k in starts[1:]:
        ax.axvline(k - 0.5, color=GREY, linewidth=1)
