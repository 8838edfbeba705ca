"""The rate in rho: sizes m(epsilon) of the two coreset models, family by family, and all families on one line."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import family as family_name
from attention_coresets.analysis.figures.looks import in_order, look
from attention_coresets.analysis.figures.sizes import best_epsilon, draw_sizes, name_marks, sizes_at
from attention_coresets.analysis.figures.style import (
    End,
    guide,
    headed,
    label_ends,
    log_axes,
    panel_grid,
    plain_ticks,
    shared_legend,
)
from attention_coresets.analysis.parts.measured import setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians
from attention_coresets.analysis.stats.sizes import INTERVAL
from attention_coresets.analysis.topics.rates.figures.slopes import slope_text

BOUNDS = {
    "walk_tilted": (r"$\propto e^{\rho\sigma}$ (tilted bound)", "--"),
    "walk_unweighted": (r"$\propto e^{\rho R}$ (unweighted bound)", ":"),
}
_ASIDE = 0.05  # in rho: arms stand side by side
FAMILY_MARKERS = ("o", "s", "D", "P", "X", "*", "p")


def rho_rate(results: Results) -> Figure:
    """m(epsilon) against rho, a panel for each (family, n, d) with its slope beta in the arm's own exponent and both
    bounds; the last panel holds m epsilon / sqrt(d) of both walks against that exponent, every family on one line."""
    panels = list(groups(results.rows("rho_rate"), ["cache", "n", "d"]))
    figure, axes = panel_grid(len(panels) + 1, 3, (3.7, 2.8))
    for ax, (names, panel) in zip(axes[:-1], panels, strict=True):
        _family(ax, results, names, panel)
    _collapse(axes[-1], panels)
    headed(
        figure, "Wherever it can be fitted, sizes grow no faster with the query radius ρ than the bounds (β at most 1)"
    )
    shared_legend(figure, axes[:-1])
    return figure


def _family(ax: Axes, results: Results, names: dict, panel: pd.DataFrame) -> None:
    epsilon = best_epsilon(panel, ["rho"])
    sizes = sizes_at(panel, ["rho"], [epsilon])
    name_marks(ax, sizes)
    ends = []
    for place, arm in enumerate(in_order(set(panel["arm"]))):
        mine = sizes.loc[sizes["arm"] == arm]
        draw_sizes(ax, mine.assign(rho=mine["rho"] + _ASIDE * place), "rho", look(arm))
        if arm in BOUNDS:
            _bound(ax, mine, medians(panel.loc[panel["arm"] == arm], ["rho"], ["exponent"]), arm)
        text = slope_text(results, "rho_rate", "beta", "β", arm=arm, **names)
        ends.append(
            End(
                column(mine, "rho")[-1] + _ASIDE * panel["arm"].nunique(),
                column(mine, "middle")[-1],
                text,
                look(arm).color,
            )
        )
    log_axes(ax, x=False)
    rhos, heights = distinct(panel, "rho"), column(sizes, "middle")
    ax.set_xlim(rhos[0] - 0.15, rhos[-1] + 0.8 * (rhos[-1] - rhos[0]))
    ax.set_ylim(heights.min() / 2, heights.max() * 2)
    plain_ticks(ax, "x", rhos)
    ax.set(
        title=f"{family_name(setting(names, 'cache'))}: ε = {epsilon:.2g}",
        xlabel="query radius ρ",
        ylabel="size m(ε), tokens",
    )
    label_ends(ax, ends)


def _bound(ax: Axes, sizes: pd.DataFrame, exponents: pd.DataFrame, arm: str) -> None:
    """e^x of the arm's own exponent, moved onto the middle of its uncensored sizes."""
    inside = sizes.loc[sizes["status"] == INTERVAL].merge(exponents, on="rho")
    if len(inside):
        level = np.exp(np.median(np.log(column(inside, "middle")) - column(inside, "exponent")))
        guide(ax, column(exponents, "rho"), level * np.exp(column(exponents, "exponent")), *BOUNDS[arm])


def _collapse(ax: Axes, panels: list[tuple[dict, pd.DataFrame]]) -> None:
    families = sorted({names["cache"] for names, _ in panels})
    for names, panel in panels:
        marker = FAMILY_MARKERS[families.index(names["cache"]) % len(FAMILY_MARKERS)]
        for arm in [arm for arm in BOUNDS if arm in set(panel["arm"])]:
            mine = panel.loc[panel["arm"] == arm]
            epsilon = best_epsilon(mine, ["rho"])
            sizes = sizes_at(mine, ["rho"], [epsilon]).merge(medians(mine, ["rho"], ["exponent"]), on="rho")
            inside = sizes.loc[sizes["status"] == INTERVAL]
            y = column(inside, "middle") * epsilon / np.sqrt(names["d"])
            ax.plot(column(inside, "exponent"), y, marker, color=look(arm).color, alpha=0.85)
    for marker, family in zip(FAMILY_MARKERS, families, strict=False):
        ax.plot([], [], marker, color="0.35", label=family_name(family))
    log_axes(ax, x=False)
    low, high = ax.get_xlim()
    x = np.linspace(max(0.0, low), high, 20)
    guide(ax, x, np.exp(x), "$e^x$: bound with constant 1")
    ax.set(
        title="both walks, every family: below the bound",
        xlabel="exponent x of the bound: ρσ (tilted), ρR (unweighted)",
    )
    ax.set(ylabel=r"$m(\varepsilon)\,\varepsilon\,/\sqrt{d}$", ylim=(None, 5 * np.exp(high)))
    ax.legend(fontsize=7, loc="upper left", ncols=2, handletextpad=0.3, columnspacing=0.8)
