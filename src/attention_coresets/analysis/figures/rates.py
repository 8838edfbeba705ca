"""Rates: error against size, and sizes m(epsilon) against d, n and rho."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
from attention_coresets.analysis.frames import column, distinct, groups
from attention_coresets.analysis.measures import coefficient, setting
from attention_coresets.analysis.plan import Regime
from attention_coresets.analysis.results import Results


def slope_text(results: Results, law: str, symbol: str, sign: str, **fixed: object) -> str:
    """ "γ = 0.98 [0.95, 1.02]" from the record that has these columns fixed; empty where there is none."""
    for record in results.laws(law):
        if record["status"] == "fitted" and all(record["fixed"].get(k) == v for k, v in fixed.items()):
            found, _ = coefficient(record, symbol)
            return f"{sign} = {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return ""


def error_vs_size(results: Results) -> Figure:
    """Worst-case error against size on clusters, a panel for each (d, rho): medians, 10-90 % bands over caches."""
    rows = results.rows("epsilon_rate")
    panels = list(groups(rows, ["n", "d", "rho"]))
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(3.9 * columns, 2.7 * lines + 0.6)
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat
    for ax, (names, panel) in zip(axes, panels, strict=False):
        ends = [
            _error_curve(ax, results, names, arm, panel.loc[panel["arm"] == arm]) for arm in in_order(set(panel["arm"]))
        ]
        _error_guides(ax, panel)
        log_axes(ax)
        sizes = distinct(panel, "size")
        ax.set_xlim(sizes[0] * 0.85, sizes[-1] * 5)
        plain_ticks(ax, "x", sizes)
        ax.set_title(f"clusters, {setting(names)}")
        label_ends(ax, ends)
    figure.supxlabel("coreset size m")
    figure.supylabel("worst-case error")
    shared_legend(figure, figure.axes)
    return figure


def _error_curve(
    ax: Axes, results: Results, names: dict, arm: str, rows: pd.DataFrame
) -> tuple[float, float, str, str]:
    style = look(arm)
    quantiles = rows.groupby("size")["error"].quantile(np.array([0.1, 0.5, 0.9])).unstack()
    x = quantiles.index.to_numpy(dtype=float)
    low, middle, high = (quantiles[q].to_numpy(dtype=float) for q in (0.1, 0.5, 0.9))
    ax.fill_between(x, low, high, color=style.color, alpha=0.18, linewidth=0)
    ax.plot(x, middle, color=style.color, marker=style.marker, label=style.label, zorder=3)
    outside = x > names["n"] * Regime().max_fraction
    ax.plot(x[outside], middle[outside], style.marker, color=style.color, markerfacecolor="white", zorder=4)
    text = slope_text(results, "epsilon_rate", "gamma", "γ", arm=arm, **names)
    return float(x[-1]), float(middle[-1]), text, style.color


def _error_guides(ax: Axes, panel: pd.DataFrame) -> None:
    """1/m through the best arm's first point, 1/sqrt(m) through the worst's."""
    first = panel.loc[panel["size"] == panel["size"].min()].groupby("arm")["error"].median().to_numpy(dtype=float)
    x = np.array(distinct(panel, "size"), dtype=float)
    guide(ax, x, first.min() * 0.7 * x[0] / x, "∝ 1/m")
    guide(ax, x, first.max() * 1.4 * np.sqrt(x[0] / x), "∝ 1/√m", ":")


def d_rate(results: Results) -> Figure:
    """m(epsilon) against the dimension, a panel for each family and rho, with sqrt(d)."""
    return _size_panels(results, "d_rate", "d", "alpha", "α", "dimension d", lambda d: np.sqrt(d), "∝ √d")


def n_independence(results: Results) -> Figure:
    """m(epsilon) against the number of tokens, a panel for each family and rho; theory is flat."""
    return _size_panels(results, "n_independence", "n", "nu", "ν", "tokens n", lambda n: np.ones_like(n), "flat")


def _offset(sizes: pd.DataFrame, law: np.ndarray) -> float:
    """What moves a law onto the middle of an arm's sizes."""
    return float(np.exp(np.median(np.log(column(sizes, "middle") / law))))


def _size_panels(
    results: Results, experiment: str, x: str, symbol: str, sign: str, label: str, law, law_label: str
) -> Figure:
    rows = results.rows(experiment)
    by = ["cache", "rho"] if x == "d" else ["cache", "d", "rho"]
    panels = list(groups(rows, by))
    figure = new_figure(3.7 * len(panels) + 0.4, 3.4)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (names, panel) in zip(axes, panels, strict=True):
        epsilon = best_epsilon(panel, [x])
        sizes = sizes_at(panel, [x], [epsilon], Regime())
        values = np.array(distinct(panel, x), dtype=float)
        ends = []
        for arm in in_order(set(panel["arm"])):
            mine = sizes.loc[sizes["arm"] == arm]
            draw_sizes(ax, mine, x, look(arm))
            middle = column(mine, "middle")
            guide(ax, values, law(values) * _offset(mine, law(column(mine, x))), law_label)
            text = slope_text(results, experiment, symbol, sign, arm=arm, **names)
            ends.append((values[-1], middle[-1], text, look(arm).color))
        log_axes(ax)
        ax.set_xlim(values[0] * 0.85, values[-1] * (values[-1] / values[0]) ** 0.62)
        plain_ticks(ax, "x", values)
        ax.set(title=f"{setting(names, 'cache')}: ε = {epsilon:.2g}", xlabel=label)
        label_ends(ax, ends)
    axes[0].set_ylabel("size m(ε)")
    shared_legend(figure, axes, 4)
    return figure
