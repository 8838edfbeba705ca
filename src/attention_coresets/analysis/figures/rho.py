"""The rate in rho: sizes m(epsilon) of the two coreset models, family by family, and all families on one line."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.rates import slope_text
from attention_coresets.analysis.figures.sizes import best_epsilon, draw_sizes, sizes_at
from attention_coresets.analysis.figures.style import (
    guide,
    in_order,
    label_ends,
    log_axes,
    look,
    new_figure,
    plain_ticks,
    shared_legend,
)
from attention_coresets.analysis.frames import column, distinct, groups, medians
from attention_coresets.analysis.measures import setting
from attention_coresets.analysis.plan import Regime
from attention_coresets.analysis.results import Results
from attention_coresets.analysis.sizes import INTERVAL

GUIDES = {"walk_tilted": ("∝ e^{ρσ} (tilted bound)", "--"), "walk_unweighted": ("∝ e^{ρR} (unweighted bound)", ":")}
FAMILY_MARKERS = ("o", "s", "D", "P", "X", "*", "p")


def rho_rate(results: Results) -> Figure:
    """m(epsilon) against rho, a panel for each (family, n, d) with its slope beta in the arm's own exponent and both
    bounds; the last panel holds m epsilon / sqrt(d) of both walks against that exponent, every family on one line."""
    rows = results.rows("rho_rate")
    panels = list(groups(rows, ["cache", "n", "d"]))
    columns = 3
    lines = -(-(len(panels) + 1) // columns)
    figure = new_figure(3.6 * columns, 2.8 * lines + 0.6)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for ax, (names, panel) in zip(axes, panels, strict=False):
        _family(ax, results, names, panel)
    _collapse(axes[len(panels)], panels)
    for ax in axes[len(panels) + 1 :]:
        ax.set_visible(False)
    shared_legend(figure, axes[: len(panels)], 3)
    return figure


def _family(ax: Axes, results: Results, names: dict, panel: pd.DataFrame) -> None:
    epsilon = best_epsilon(panel, ["rho"])
    sizes = sizes_at(panel, ["rho"], [epsilon], Regime())
    ends = []
    for arm in in_order(set(panel["arm"])):
        mine = sizes.loc[sizes["arm"] == arm]
        draw_sizes(ax, mine, "rho", look(arm))
        if arm in GUIDES:
            exponents = medians(panel.loc[panel["arm"] == arm], ["rho"], ["exponent"])
            inside = mine.loc[mine["status"] == INTERVAL].merge(exponents, on="rho")
            law = np.exp(column(exponents, "exponent"))
            guide(ax, column(exponents, "rho"), law * _offset(inside), *GUIDES[arm])
        text = slope_text(results, "rho_rate", "beta", "β", arm=arm, **names)
        ends.append((column(mine, "rho")[-1], column(mine, "middle")[-1], text, look(arm).color))
    log_axes(ax, x=False)
    rhos = distinct(panel, "rho")
    ax.set_xlim(rhos[0] - 0.15, rhos[-1] + 0.55 * (rhos[-1] - rhos[0]))
    low, high = column(sizes, "middle").min(), column(sizes, "middle").max()
    ax.set_ylim(low / 2, high * 2)
    plain_ticks(ax, "x", rhos)
    ax.set(title=f"{setting(names, 'cache')}: ε = {epsilon:.2g}", xlabel="query radius ρ", ylabel="size m(ε)")
    label_ends(ax, ends)


def _offset(inside: pd.DataFrame) -> float:
    """What moves e^x onto the middle of an arm's uncensored sizes."""
    if inside.empty:
        return float("nan")
    return float(np.exp(np.median(np.log(column(inside, "middle")) - column(inside, "exponent"))))


def _collapse(ax: Axes, panels: list[tuple[dict, pd.DataFrame]]) -> None:
    for marker, (names, panel) in zip(FAMILY_MARKERS * 3, panels, strict=False):
        for arm in [arm for arm in GUIDES if arm in set(panel["arm"])]:
            mine = panel.loc[panel["arm"] == arm]
            epsilon = best_epsilon(mine, ["rho"])
            sizes = sizes_at(mine, ["rho"], [epsilon], Regime()).merge(medians(mine, ["rho"], ["exponent"]), on="rho")
            inside = sizes.loc[sizes["status"] == INTERVAL]
            y = column(inside, "middle") * epsilon / np.sqrt(names["d"])
            label = names["cache"] if arm == "walk_tilted" else None
            ax.plot(column(inside, "exponent"), y, marker, color=look(arm).color, label=label, alpha=0.85)
    log_axes(ax, x=False)
    x = np.array(ax.get_xlim())
    x = np.linspace(max(0.0, x[0]), x[1], 20)
    guide(ax, x, np.exp(x), "e^x: the bound, constant 1")
    ax.set(
        title="both walks, every family", xlabel="own exponent x: ρσ (tilted), ρR (unweighted)", ylabel="m(ε) ε / √d"
    )
    ax.legend(fontsize=7, loc="upper left", ncols=2, handletextpad=0.3, columnspacing=0.8)
