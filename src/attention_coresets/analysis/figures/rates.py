"""Rates: error against size, and sizes m(epsilon) against d and n."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import in_order, look
from attention_coresets.analysis.figures.sizes import best_epsilon, draw_sizes, quantile_curves, sizes_at
from attention_coresets.analysis.figures.style import (
    End,
    guide,
    label_ends,
    log_axes,
    panel_grid,
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
    """Worst-case error against size on clusters, a panel for each (n, d, rho): medians and 10-90 % bands over caches;
    open marks are sizes above n/4, which the fits leave out."""
    panels = list(groups(results.rows("epsilon_rate"), ["n", "d", "rho"]))
    figure, axes = panel_grid(len(panels), 2, (4.2, 2.7), share=True)
    for ax, (names, panel) in zip(axes, panels, strict=True):
        curves = [(arm, panel.loc[panel["arm"] == arm]) for arm in in_order(set(panel["arm"]))]
        ends = [_error_curve(ax, results, names, arm, curve) for arm, curve in curves]
        _error_guides(ax, panel)
        log_axes(ax)
        sizes = distinct(panel, "size")
        ax.set_xlim(sizes[0] * 0.85, sizes[-1] * (sizes[-1] / sizes[0]) ** 0.55)
        plain_ticks(ax, "x", sizes)
        ax.set(title=f"clusters, {setting(names)}", xlabel="coreset size m", ylabel="worst-case error")
        ax.label_outer()
        label_ends(ax, ends)
    shared_legend(figure, axes)
    return figure


def _error_curve(ax: Axes, results: Results, names: dict, arm: str, rows: pd.DataFrame) -> End:
    style = look(arm)
    x, (low, middle, high) = quantile_curves(rows, "error", (0.1, 0.5, 0.9))
    ax.fill_between(x, low, high, color=style.color, alpha=0.18, linewidth=0)
    ax.plot(x, middle, color=style.color, marker=style.marker, label=style.label, zorder=3)
    outside = x > names["n"] * Regime().max_fraction
    ax.plot(x[outside], middle[outside], style.marker, color=style.color, markerfacecolor="white", zorder=4)
    text = slope_text(results, "epsilon_rate", "gamma", "γ", arm=arm, **names)
    return End(float(x[-1]), float(middle[-1]), text, style.color)


def _error_guides(ax: Axes, panel: pd.DataFrame) -> None:
    """1/m below the best arm's first point, 1/sqrt(m) above the worst's."""
    first = panel.loc[panel["size"] == panel["size"].min()]
    errors = [float(np.median(column(group, "error"))) for _, group in groups(first, ["arm"])]
    x = np.array(distinct(panel, "size"), dtype=float)
    guide(ax, x, min(errors) * 0.6 * x[0] / x, r"$\propto 1/m$")
    guide(ax, x, max(errors) * 1.6 * np.sqrt(x[0] / x), r"$\propto 1/\sqrt{m}$", ":")


@dataclass(frozen=True)
class Variable:
    """What sizes are drawn against: the column x and theory's power of it."""

    experiment: str
    x: str
    symbol: str
    sign: str
    label: str
    power: float
    theory: str


def d_rate(results: Results) -> Figure:
    """m(epsilon) against the dimension, a panel for each family and rho; theory says sqrt(d) for walks."""
    return _panels(results, Variable("d_rate", "d", "alpha", "α", "dimension d", 0.5, r"$\propto\sqrt{d}$"))


def n_independence(results: Results) -> Figure:
    """m(epsilon) against the number of tokens, a panel for each family and rho; theory is flat."""
    return _panels(results, Variable("n_independence", "n", "nu", "ν", "tokens n", 0.0, "independent of n"))


def _panels(results: Results, variable: Variable) -> Figure:
    fixed = ["cache", "rho"] if variable.x == "d" else ["cache", "d", "rho"]
    panels = list(groups(results.rows(variable.experiment), fixed))
    figure, axes = panel_grid(len(panels), 3, (4.0, 2.9))
    for ax, (names, panel) in zip(axes, panels, strict=True):
        _panel(ax, results, variable, names, panel)
    shared_legend(figure, axes)
    return figure


def _panel(ax: Axes, results: Results, variable: Variable, names: dict, panel: pd.DataFrame) -> None:
    epsilon = best_epsilon(panel, [variable.x])
    sizes = sizes_at(panel, [variable.x], [epsilon])
    values = np.array(distinct(panel, variable.x), dtype=float)
    ends = []
    for arm in in_order(set(panel["arm"])):
        mine = sizes.loc[sizes["arm"] == arm]
        x, middle = column(mine, variable.x), column(mine, "middle")
        draw_sizes(ax, mine, variable.x, look(arm))
        level = np.exp(np.median(np.log(middle) - variable.power * np.log(x)))
        guide(ax, values, level * values**variable.power, variable.theory)
        text = slope_text(results, variable.experiment, variable.symbol, variable.sign, arm=arm, **names)
        ends.append(End(x[-1], middle[-1], text, look(arm).color))
    log_axes(ax)
    ax.set_xlim(values[0] * 0.85, values[-1] * (values[-1] / values[0]) ** 0.7)
    plain_ticks(ax, "x", values.tolist())
    ax.set(title=f"{setting(names, 'cache')}: ε = {epsilon:.2g}", xlabel=variable.label, ylabel="size m(ε)")
    label_ends(ax, ends)
