"""The hard instances: signed clusters against their bounds, the antipodal pair against its floor, and the controls."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import in_order, look
from attention_coresets.analysis.figures.sizes import (
    CACHES_BAND,
    draw_band,
    draw_sizes,
    name_bands,
    name_censored,
    quantile_curves,
    sizes_at,
)
from attention_coresets.analysis.figures.style import (
    GREY,
    guide,
    log_axes,
    new_figure,
    panel_grid,
    plain_ticks,
    shared_legend,
)
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians
from attention_coresets.analysis.topics.hard_instances.antipodal import EPSILONS, antipodal_floor, antipodal_rows
from attention_coresets.analysis.topics.hard_instances.signed_clusters import RANDOM, over_bounds, over_floor

_ASIDE = 0.03  # in rho, to the left: the floor grows with rho
_FLOOR = r"unweighted floor, $e^{2\rho}(1-\varepsilon)/(1+\varepsilon)$, keys rounded"
_OPEN = {"walk_unweighted": {"linestyle": "--", "markerfacecolor": "none", "markersize": 7}}  # where it hides another
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
    _shares(above, rows, "ratio", shares, arms, "worst-case error / (A√(d/2))")
    _shares(below, bounded, "excess", shares, arms, "worst-case error / max(i, ii, iii, iv)")
    for ax, share in zip(above, shares, strict=True):
        if share <= 0.5:
            _forbid(ax, "below the floor\n(equal cluster weights)")
    for ax in below:
        _forbid(ax, "below the bound")
    return figure


def lower_bound_random(results: Results) -> Figure:
    """As the upper half of `lower_bound` with more clusters than dimensions, where A sqrt(d/2) is a unit only."""
    rows = over_floor(results, RANDOM)
    shares, arms = distinct(rows, "fraction"), in_order(set(rows["arm"]))
    figure = new_figure(3.0 * len(shares) + 1.6, 0.28 * len(arms) + 1.6)
    axes = list(figure.subplots(1, len(shares), squeeze=False, sharex=True, sharey=True)[0])
    _shares(axes, rows, "ratio", shares, arms, "worst-case error in units of A√(d/2)")
    figure.suptitle("random centres, clusters > d: descriptive, nothing is proven", fontsize=9)
    return figure


def _shares(
    axes: Sequence[Axes], rows: pd.DataFrame, name: str, shares: list[float], arms: list[str], label: str
) -> None:
    """A panel for each share with a line for each arm: dots for rows, a large mark for their median."""
    values = column(rows, name)
    low, high = min(0.7, values.min() / 1.2), values.max() * 1.2
    for ax, share in zip(axes, shares, strict=True):
        _arm_lines(ax, rows.loc[rows["fraction"] == share], name, arms)
        ax.set(title=f"m = {share:g} n", xlabel=label, xlim=(low, high))
        ax.axvline(1, color=GREY, linewidth=1.1, zorder=1)
        plain_ticks(ax, "x", [tick for tick in _TICKS if low <= tick <= high])


def _arm_lines(ax: Axes, rows: pd.DataFrame, name: str, arms: list[str]) -> None:
    for y, arm in enumerate(arms):
        values = column(rows.loc[rows["arm"] == arm], name)
        style = look(arm)
        ax.plot(values, np.full(len(values), y), ".", color=style.color, alpha=0.35, markersize=4, markeredgewidth=0)
        if len(values):
            ax.plot(np.median(values), y, style.marker, color=style.color, markersize=6, zorder=3)
    log_axes(ax, y=False)
    ax.set_yticks(range(len(arms)), [look(arm).label for arm in arms])
    ax.set_ylim(len(arms) - 0.5, -0.5)


def _forbid(ax: Axes, text: str) -> None:
    """Shades what lies left of 1."""
    low, _ = ax.get_xlim()
    ax.axvspan(low / 10, 1, color="0.9", zorder=0)
    ax.set_xlim(left=low)
    ax.text(low**0.5, sum(ax.get_ylim()) / 2, text, rotation=90, ha="center", va="center", color="0.45")


def antipodal(results: Results) -> Figure:
    """m(epsilon) against rho on the antipodal pair with values = keys, a panel for each epsilon, with the floor of
    unweighted subsets and the tilted bound. Bars hold m(epsilon), marks are at their upper ends: sizes that were seen
    to do, so that none lies below a proven floor. Arms stand side by side, the last left of the floor's rho."""
    rows = antipodal_rows(results)
    figure = new_figure(3.5 * len(EPSILONS) + 0.4, 3.4)
    axes = figure.subplots(1, len(EPSILONS), squeeze=False, sharey=True)[0]
    tilted = medians(rows, ["rho"], ["sigma", "n", "d"])
    rhos = column(tilted, "rho")
    places = list(zip(tilted["n"].astype(int).tolist(), rhos.tolist(), strict=True))
    for ax, epsilon in zip(axes, EPSILONS, strict=True):
        for place, arm in enumerate(in_order(set(rows["arm"]))):
            sizes = sizes_at(rows.loc[rows["arm"] == arm], ["rho"], [epsilon], everywhere=True)
            draw_sizes(ax, sizes.assign(rho=sizes["rho"] - _ASIDE * place), "rho", look(arm), at="hi")
            name_censored(ax, sizes)
        floor = np.array([antipodal_floor(n, rho, epsilon) or np.nan for n, rho in places])
        guide(ax, rhos, floor, _FLOOR)
        bound = np.sqrt(column(tilted, "d")) * np.exp(rhos * column(tilted, "sigma")) / epsilon
        guide(ax, rhos, bound, r"tilted bound with constant 1, $\sqrt{d}\,e^{\rho\sigma}/\varepsilon$", ":")
        log_axes(ax, x=False)
        plain_ticks(ax, "x", rhos.tolist())
        ax.set(title=f"antipodal, values = keys: ε = {epsilon:g}", xlabel="query radius ρ")
    axes[0].set_ylabel("size m(ε): bar, its upper end marked")
    shared_legend(figure, axes)
    return figure


def controls(results: Results) -> Figure:
    """Error against size where theory has no e^rho (equal keys) and where it lies between (product): a panel for each
    family and rho, medians and 10-90 % bands over caches. The unweighted walk is dashed and open, for it often
    equals the tilted one."""
    rows = results.rows("lower_bound_controls")
    panels = list(groups(rows, ["cache", "n", "d", "rho"]))
    figure, axes = panel_grid(len(panels), len(distinct(rows, "rho")), (2.9, 2.4), share=True)
    for ax, (names, panel) in zip(axes, panels, strict=True):
        for arm in in_order(set(panel["arm"])):
            style = look(arm)
            x, (low, middle, high) = quantile_curves(panel.loc[panel["arm"] == arm], "error", (0.1, 0.5, 0.9))
            draw_band(ax, x, low, high, style.color)
            how: dict[str, Any] = {"color": style.color, "marker": style.marker} | _OPEN.get(arm, {})
            ax.plot(x, middle, label=style.label, zorder=3, **how)
        sizes = column(panel, "size")
        sizes = np.array([sizes.min(), sizes.max()])
        guide(ax, sizes, np.sqrt(names["d"]) / sizes, r"$\sqrt{d}/m$")
        guide(ax, sizes, np.sqrt(1 / sizes - 1 / names["n"]), r"$\sqrt{1/m-1/n}$", ":")
        name_bands(ax, CACHES_BAND)
        log_axes(ax)
        plain_ticks(ax, "x", distinct(panel, "size"))
        ax.set(title=f"{names['cache']}, d = {names['d']}, ρ = {names['rho']:g}")
        ax.set(xlabel="coreset size m", ylabel="worst-case error")
        ax.label_outer()
    shared_legend(figure, axes)
    return figure
