"""The ablation: every arm against the tilted Gram-Schmidt walk on the same caches, ranked."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import TILTED, UNWEIGHTED, look
from attention_coresets.analysis.figures.style import GREY, log_axes, new_figure, plain_ticks
from attention_coresets.analysis.frames import distinct, groups
from attention_coresets.analysis.results import Results
from attention_coresets.analysis.summary import Estimate, paired_ratio

REFERENCE = "walk_tilted"


def ablation(results: Results) -> Figure:
    """Error of each arm over that of walk_tilted: geometric mean over rho and m, median over caches with its 95 %
    interval; a panel for each family, arms ranked by their mean over families, coloured by coreset model."""
    rows = results.rows("ablation")
    families = distinct(rows, "cache")
    ratios = {family: _ratios(group) for family, group in ((f, rows.loc[rows["cache"] == f]) for f in families)}
    arms = _ranked(ratios)
    models = {names["arm"]: names["model"] for names, _ in groups(rows, ["arm", "model"])}
    figure = new_figure(2.7 * len(families) + 2.2, 0.26 * len(arms) + 1.2)
    axes = figure.subplots(1, len(families), squeeze=False, sharex=True, sharey=True)[0]
    for ax, family in zip(axes, families, strict=True):
        _panel(ax, ratios[family], arms, models)
        ax.set(title=family, xlabel="error / error of walk_tilted")
    low, high = axes[0].get_xlim()
    plain_ticks(axes[0], "x", [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high])
    return figure


def _ratios(rows: pd.DataFrame) -> dict[str, Estimate]:
    found = {arm: paired_ratio(rows, arm, REFERENCE) for arm in distinct(rows, "arm")}
    return {arm: estimate for arm, estimate in found.items() if estimate.caches}


def _ranked(ratios: dict[str, dict[str, Estimate]]) -> list[str]:
    """Best arm first, by the mean of log ratio over the families that have it."""
    arms = {arm for found in ratios.values() for arm in found}
    values = {arm: [np.log(found[arm].value) for found in ratios.values() if arm in found] for arm in arms}
    return sorted(arms, key=lambda arm: (float(np.mean(values[arm])), arm))


def _panel(ax: Axes, found: dict[str, Estimate], arms: list[str], models: dict[str, str]) -> None:
    colors = {"tilted": TILTED, "unweighted": UNWEIGHTED}
    markers = {"tilted": "o", "unweighted": "s"}
    for y, arm in enumerate(arms):
        if (estimate := found.get(arm)) is None:
            continue
        model = models[arm]
        ax.plot([estimate.low, estimate.high], [y, y], color=colors[model], linewidth=1.2)
        ax.plot(estimate.value, y, markers[model], color=colors[model])
    ax.axvline(1, color=GREY, linestyle="--", linewidth=1.1, zorder=1)
    log_axes(ax, y=False)
    ax.set_yticks(range(len(arms)), [look(arm).label for arm in arms])
    ax.set_ylim(len(arms) - 0.5, -0.5)
