"""Sizes m(epsilon) against the dimension and against the number of tokens."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import family, in_order, look
from attention_coresets.analysis.figures.sizes import (
    LATTICE,
    best_epsilon,
    draw_sizes,
    name_marks,
    sizes_at,
)
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
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.stats.sizes import INTERVAL
from attention_coresets.analysis.topics.rates.figures.slopes import fitted, slope_text

WALKS = ("walk_tilted", "walk_unweighted")
_ASIDE = 1.04  # arms stand side by side
_SQRT = r"$\propto\sqrt{d}$, the bound for walks"
_GROWTH = "The size grows no faster with the dimension d than the bound for walks, like √d"
_FLAT = "The size that a walk needs does not grow with the number of tokens n"


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
    title: str


def d_rate(results: Results) -> Figure:
    """m(epsilon) against the dimension, a panel for each family and rho, each arm at an epsilon of its own fit; theory
    says sqrt(d) for walks."""
    return _panels(results, Variable("d_rate", "d", "alpha", "α", "dimension d", 0.5, _SQRT, _GROWTH))


def n_independence(results: Results) -> Figure:
    """m(epsilon) against the number of tokens, a panel for each family and rho, each arm at an epsilon of its own fit;
    theory is flat."""
    return _panels(results, Variable("n_independence", "n", "nu", "ν", "tokens n", 0.0, "independent of n", _FLAT))


def _panels(results: Results, variable: Variable) -> Figure:
    fixed = ["cache", "n", "rho"] if variable.x == "d" else ["cache", "d", "rho"]
    panels = list(groups(results.rows(variable.experiment), fixed))
    figure, axes = panel_grid(len(panels), 2, (5.0, 3.1))
    for ax, (names, panel) in zip(axes, panels, strict=True):
        _panel(ax, results, variable, names, panel)
    headed(figure, variable.title)
    shared_legend(figure, axes)
    return figure


def _panel(ax: Axes, results: Results, variable: Variable, names: dict, panel: pd.DataFrame) -> None:
    values = np.array(distinct(panel, variable.x), dtype=float)
    arms = [names | {"arm": arm} for arm in in_order(set(panel["arm"]))]
    ends = [_arm(ax, results, variable, arm, panel.loc[panel["arm"] == arm["arm"]], k) for k, arm in enumerate(arms)]
    log_axes(ax)
    ax.set_xlim(values[0] * 0.85, values[-1] * (values[-1] / values[0]) ** 0.7)
    plain_ticks(ax, "x", values.tolist())
    ax.set(title=family(setting(names, "cache")), xlabel=variable.label, ylabel="size m(ε), tokens")
    label_ends(ax, [end for end in ends if end], gap=0.17)


def _arm(ax: Axes, results: Results, variable: Variable, names: dict, rows: pd.DataFrame, place: int) -> End | None:
    """One arm at the best resolved epsilon of its own fit, `place` steps aside; theory and the exponent only where two
    sizes are resolved, with the number of epsilons that the exponent rests on."""
    record = fitted(results, variable.experiment, **names)
    epsilons = record["epsilons"] if record else LATTICE
    epsilon = best_epsilon(rows, [variable.x], epsilons)
    sizes = sizes_at(rows, [variable.x], [epsilon])
    sizes = sizes.assign(**{variable.x: sizes[variable.x] * _ASIDE**place})
    draw_sizes(ax, sizes, variable.x, look(names["arm"]))
    name_marks(ax, sizes)
    inside = sizes.loc[sizes["status"] == INTERVAL]
    x, middle = column(inside, variable.x), column(inside, "middle")
    if len(inside) < 2:
        return None
    if names["arm"] in WALKS:  # what the bound is of
        level = np.exp(np.median(np.log(middle) - variable.power * np.log(x)))
        guide(ax, x, level * x**variable.power, variable.theory)
    text = slope_text(results, variable.experiment, variable.symbol, variable.sign, **names)
    drawn = f"ε = {epsilon:.2g}"
    text = f"{text}\n{drawn}; fit over {len(epsilons)} ε" if text else drawn
    return End(x[-1], middle[-1], text, look(names["arm"]).color)
