"""The controls: error against size where e^rho plays no part, or less of one."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import in_order, look
from attention_coresets.analysis.figures.sizes import (
    CACHES_BAND,
    draw_band,
    name_bands,
    quantile_curves,
)
from attention_coresets.analysis.figures.style import (
    guide,
    log_axes,
    panel_grid,
    plain_ticks,
    shared_legend,
)
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups

_OPEN = {"walk_unweighted": {"linestyle": "--", "markerfacecolor": "none", "markersize": 7}}  # where it hides another


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
