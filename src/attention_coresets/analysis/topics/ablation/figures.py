"""The ablation: every arm against the tilted Gram-Schmidt walk on the same caches, axis by axis."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import MODEL_COLORS, MODEL_MARKERS, family, look, model_legend
from attention_coresets.analysis.figures.style import GREY, headed, log_axes, new_figure, plain_ticks
from attention_coresets.analysis.parts.arm_names import axis_of
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import Estimate, paired_ratios
from attention_coresets.analysis.stats.frames import distinct, groups
from attention_coresets.coresets.arms import AXES

REFERENCE = "walk_tilted"


def ablation(results: Results) -> Figure:
    """Error of each arm over that of walk_tilted: geometric mean over rho and m, median over caches with its 95 %
    interval; a panel for each family. Arms stand under the axis that they change, ranked there by their mean over
    families, coloured by coreset model."""
    rows = results.rows("ablation")
    families = distinct(rows, "cache")
    ratios = {family: _ratios(group) for family, group in ((f, rows.loc[rows["cache"] == f]) for f in families)}
    lines = _lines(_ranked(ratios))
    models = {names["arm"]: names["model"] for names, _ in groups(rows, ["arm", "model"])}
    figure = new_figure(2.7 * len(families) + 2.6, 0.21 * len(lines) + 1.4)
    axes = figure.subplots(1, len(families), squeeze=False, sharex=True, sharey=True)[0]
    for ax, cache in zip(axes, families, strict=True):
        _panel(ax, ratios[cache], lines, models)
        ax.set(title=family(cache), xlabel=f"error / that of the\n{look(REFERENCE).label}")
    for tick, line in zip(axes[0].get_yticklabels(), lines, strict=True):
        tick.set_fontweight("bold" if line in AXES else "normal")
    low, high = axes[0].get_xlim()
    plain_ticks(axes[0], "x", [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high])
    headed(
        figure,
        "What each change of the Gram–Schmidt walk does to its error (left of 1: less error than the tilted walk)",
    )
    model_legend(figure, models.values())
    return figure


def _ratios(rows: pd.DataFrame) -> dict[str, Estimate]:
    return {arm: ratio for arm, ratio in paired_ratios(rows, REFERENCE).items() if ratio.caches}


def _ranked(ratios: dict[str, dict[str, Estimate]]) -> list[str]:
    """Best arm first, by the mean of log ratio over the families that have it."""
    arms = {arm for found in ratios.values() for arm in found}
    values = {arm: [np.log(found[arm].value) for found in ratios.values() if arm in found] for arm in arms}
    return sorted(arms, key=lambda arm: (float(np.mean(values[arm])), arm))


def _lines(arms: Sequence[str]) -> list[str]:
    """From top to bottom: each axis that some arm changes, then its arms."""
    members = {axis: [arm for arm in arms if axis_of(arm) == axis] for axis in AXES}
    return [line for axis, found in members.items() if found for line in (axis, *found)]


def _panel(ax: Axes, found: dict[str, Estimate], lines: list[str], models: dict[str, str]) -> None:
    for y, arm in enumerate(lines):
        if (estimate := found.get(arm)) is None:
            continue
        color = MODEL_COLORS[models[arm]]
        ax.plot([estimate.low, estimate.high], [y, y], color=color, linewidth=1.2)
        ax.plot(estimate.value, y, MODEL_MARKERS[models[arm]], color=color)
    ax.axvline(1, color=GREY, linestyle="--", linewidth=1.1, zorder=1)
    log_axes(ax, y=False)
    ax.set_yticks(range(len(lines)), [line if line in AXES else look(line).label for line in lines])
    ax.set_ylim(len(lines) - 0.5, -0.5)
