"""What the bounds leave open: the constant of the upper bound, and both hard instances against their floors."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import in_order, look
from attention_coresets.analysis.figures.sizes import draw_sizes, sizes_at
from attention_coresets.analysis.figures.style import GREY, guide, log_axes, new_figure, plain_ticks, shared_legend
from attention_coresets.analysis.frames import column, distinct, groups, medians
from attention_coresets.analysis.hard_instances import EPSILONS, antipodal_floor, antipodal_rows, over_floor
from attention_coresets.analysis.measures import with_constants
from attention_coresets.analysis.results import Results

ISSUE_LIMIT = 0.7  # what m err / (sqrt(d) e^rho) of the tilted walk was asked to stay below


def constant(results: Results) -> Figure:
    """m err / (sqrt(d) e^{rho sigma}) and with e^rho of every cache and size, a column for each rho, a row for each
    family; large marks are medians."""
    rows = with_constants(results.rows("constant"))
    rhos, families = distinct(rows, "rho"), distinct(rows, "cache")
    figure = new_figure(3.2 * len(rhos) + 1.2, 2 * (0.42 * len(families) + 0.9) + 0.4)
    axes = figure.subplots(2, len(rhos), squeeze=False, sharex=True, sharey=True)
    sigma, rho_only = (rf"$m\cdot\mathrm{{err}}\,/\,(\sqrt{{d}}\,e^{{{x}}})$" for x in (r"\rho\sigma", r"\rho"))
    kinds = (("constant_sigma", sigma, 1.0), ("constant_rho", rho_only, ISSUE_LIMIT))
    for line, (name, label, limit) in zip(axes, kinds, strict=True):
        for ax, rho in zip(line, rhos, strict=True):
            _strips(ax, rows.loc[rows["rho"] == rho], name, "cache", families)
            ax.axvline(limit, color=GREY, linestyle="--", linewidth=1.1, zorder=1)
            ax.annotate(
                f"{limit:g}", (limit, 1), xycoords=ax.get_xaxis_transform(), color="0.4", ha="center", va="bottom"
            )
            ax.set(title=f"ρ = {rho:g}", xlabel=label)
            ax.tick_params(labelbottom=True)
    shared_legend(figure, axes.flat)
    return figure


def _strips(ax: Axes, rows: pd.DataFrame, name: str, by: str, lines: list[str]) -> None:
    """A line for each value of `by`: small dots for rows, a large mark for each arm's median, arms side by side."""
    arms = in_order(set(rows["arm"]))
    for names, group in groups(rows, [by, "arm"]):
        style = look(names["arm"])
        y = lines.index(names[by]) + 0.22 * (arms.index(names["arm"]) - (len(arms) - 1) / 2)
        values = column(group, name)
        ax.plot(values, np.full(len(values), y), ".", color=style.color, alpha=0.3, markersize=3, markeredgewidth=0)
        ax.plot(np.median(values), y, style.marker, color=style.color, markersize=5, label=style.label, zorder=3)
    log_axes(ax, y=False)
    ax.set_yticks(range(len(lines)), lines)
    ax.set_ylim(len(lines) - 0.4, -0.6)


def lower_bound(results: Results) -> Figure:
    """Error over A sqrt(d/2) of every row, a panel for each share m/n; with equal cluster weights no
    coreset of m <= n/2 lies left of 1."""
    rows = over_floor(results)
    shares = distinct(rows, "fraction")
    arms = in_order(set(rows["arm"]))
    figure = new_figure(3.0 * len(shares) + 1.6, 0.28 * len(arms) + 1.3)
    axes = figure.subplots(1, len(shares), squeeze=False, sharex=True, sharey=True)[0]
    for ax, share in zip(axes, shares, strict=True):
        _arm_lines(ax, rows.loc[rows["fraction"] == share], arms)
        ax.set(title=f"m = {share:g} n", xlabel="worst-case error / (A√(d/2))")
        if share <= 0.5:
            ax.axvspan(1e-6, 1, color="0.9", zorder=0)
        ax.axvline(1, color=GREY, linewidth=1.1, zorder=1)
    values = column(rows, "ratio")
    low, high = min(0.7, values.min() / 1.2), values.max() * 1.2
    axes[0].set_xlim(low, high)
    for ax, share in zip(axes, shares, strict=True):
        if share <= 0.5:
            ax.text(
                low**0.5, (len(arms) - 1) / 2, "below the floor", rotation=90, ha="center", va="center", color="0.45"
            )
    plain_ticks(axes[0], "x", [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= tick <= high])
    return figure


def _arm_lines(ax: Axes, rows: pd.DataFrame, arms: list[str]) -> None:
    for y, arm in enumerate(arms):
        values = column(rows.loc[rows["arm"] == arm], "ratio")
        style = look(arm)
        ax.plot(values, np.full(len(values), y), ".", color=style.color, alpha=0.35, markersize=4, markeredgewidth=0)
        if len(values):
            ax.plot(np.median(values), y, style.marker, color=style.color, markersize=6, zorder=3)
    log_axes(ax, y=False)
    ax.set_yticks(range(len(arms)), [look(arm).label for arm in arms])
    ax.set_ylim(len(arms) - 0.5, -0.5)


def antipodal(results: Results) -> Figure:
    """m(epsilon) against rho on the antipodal pair with values = keys, a panel for each epsilon, with the floor of
    unweighted subsets and the tilted bound."""
    rows = antipodal_rows(results)
    figure = new_figure(3.5 * len(EPSILONS) + 0.4, 3.4)
    axes = figure.subplots(1, len(EPSILONS), squeeze=False, sharey=True)[0]
    tilted = medians(rows, ["rho"], ["sigma", "n", "d"])
    rhos = column(tilted, "rho")
    places = list(zip(tilted["n"].astype(int).tolist(), rhos.tolist(), strict=True))
    for ax, epsilon in zip(axes, EPSILONS, strict=True):
        for arm in in_order(set(rows["arm"])):
            sizes = sizes_at(rows.loc[rows["arm"] == arm], ["rho"], [epsilon], everywhere=True)
            draw_sizes(ax, sizes, "rho", look(arm))
        floor = np.array([antipodal_floor(n, rho, epsilon) for n, rho in places])
        guide(ax, rhos, floor, r"floor of unweighted subsets, $e^{2\rho}(1-\varepsilon)/(1+\varepsilon)$")
        bound = np.sqrt(column(tilted, "d")) * np.exp(rhos * column(tilted, "sigma")) / epsilon
        guide(ax, rhos, bound, r"tilted bound with constant 1, $\sqrt{d}\,e^{\rho\sigma}/\varepsilon$", ":")
        log_axes(ax, x=False)
        plain_ticks(ax, "x", rhos.tolist())
        ax.set(title=f"antipodal, values = keys: ε = {epsilon:g}", xlabel="query radius ρ")
    axes[0].set_ylabel("size m(ε)")
    shared_legend(figure, axes)
    return figure
