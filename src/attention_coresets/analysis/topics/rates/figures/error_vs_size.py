"""Worst-case error against size."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import in_order, look
from attention_coresets.analysis.figures.sizes import (
    CACHES_BAND,
    draw_band,
    name_bands,
    quantile_curves,
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
from attention_coresets.analysis.stats.plan import Regime
from attention_coresets.analysis.topics.rates.figures.slopes import slope_text


def error_vs_size(results: Results) -> Figure:
    """Worst-case error against size on clusters, a panel for each (n, d, rho): medians and 10-90 % bands over caches;
    open marks are sizes above n/4, which the fits leave out."""
    panels = list(groups(results.rows("epsilon_rate"), ["n", "d", "rho"]))
    figure, axes = panel_grid(len(panels), 2, (4.2, 2.7), share=True)
    for ax, (names, panel) in zip(axes, panels, strict=True):
        curves = [(arm, panel.loc[panel["arm"] == arm]) for arm in in_order(set(panel["arm"]))]
        ends = [_error_curve(ax, results, names, arm, curve) for arm, curve in curves]
        _error_guides(ax, panel)
        name_bands(ax, CACHES_BAND)
        log_axes(ax)
        sizes = distinct(panel, "size")
        ax.set_xlim(sizes[0] * 0.85, sizes[-1] * (sizes[-1] / sizes[0]) ** 0.55)
        plain_ticks(ax, "x", sizes)
        ax.set(
            title=f"clusters, {setting(names)}",
            xlabel="coreset size m, tokens",
            ylabel="worst-case error",
        )
        ax.label_outer()
        label_ends(ax, ends, gap=0.13)  # one panel alone is low
    headed(figure, "A walk's error falls like 1/m, that of random draws only like 1/√m (γ: the size is like 1/ε^γ)")
    shared_legend(figure, axes)
    return figure


def _error_curve(ax: Axes, results: Results, names: dict, arm: str, rows: pd.DataFrame) -> End:
    style = look(arm)
    x, (low, middle, high) = quantile_curves(rows, "error", (0.1, 0.5, 0.9))
    draw_band(ax, x, low, high, style.color)
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
