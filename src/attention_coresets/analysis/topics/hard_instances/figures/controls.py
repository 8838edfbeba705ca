"""The controls: error against size where e^rho plays no part, or less of one."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import family, in_order, look
from attention_coresets.analysis.figures.sizes import (
    CACHES_BAND,
    draw_band,
    name_bands,
    quantile_curves,
)
from attention_coresets.analysis.figures.style import (
    guide,
    headed,
    log_axes,
    panel_grid,
    plain_ticks,
    shared_legend,
)
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups

_EQUAL = 1e-3  # errors this close, of their size, are drawn once
_OPEN = {"walk_unweighted": {"linestyle": "--", "markerfacecolor": "none", "markersize": 7}}  # where it hides another


def controls(results: Results) -> Figure:
    """Error against size where theory has no e^rho (equal keys) and where it lies between (product): a panel for each
    family and rho, medians and 10-90 % bands over caches; a family whose errors do not change with rho has one for all.
    The unweighted walk is dashed and open, for it often equals the tilted one."""
    rows = results.rows("lower_bound_controls")
    panels = [part for _, group in groups(rows, ["cache", "n", "d"]) for part in _apart(group)]
    figure, axes = panel_grid(len(panels), min(len(panels), 4), (2.7, 2.6), share=True)
    for ax, (names, panel) in zip(axes, panels, strict=True):
        for arm in in_order(set(panel["arm"])):
            style = look(arm)
            x, (low, middle, high) = quantile_curves(panel.loc[panel["arm"] == arm], "error", (0.1, 0.5, 0.9))
            draw_band(ax, x, low, high, style.color)
            how: dict[str, Any] = {"color": style.color, "marker": style.marker} | _OPEN.get(arm, {})
            ax.plot(x, middle, label=style.label, zorder=3, **how)
        sizes = column(panel, "size")
        sizes = np.array([sizes.min(), sizes.max()])
        guide(ax, sizes, np.sqrt(names["d"]) / sizes, r"$\sqrt{d}/m$: the bound for walks without $\rho$")
        guide(ax, sizes, np.sqrt(1 / sizes - 1 / names["n"]), r"$\sqrt{1/m-1/n}$: random draws of equal keys", ":")
        name_bands(ax, CACHES_BAND)
        log_axes(ax)
        plain_ticks(ax, "x", distinct(panel, "size"))
        ax.set(title=f"{family(names['cache'])}, d = {names['d']}, ρ = {names['rho']}")
        ax.set(xlabel="coreset size m, tokens", ylabel="worst-case error")
        ax.label_outer()
    headed(
        figure,
        "Controls: with equal keys the error does not depend on the query radius ρ; on product caches it grows with ρ",
    )
    shared_legend(figure, axes)
    return figure


def _apart(rows: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """Names and rows of the panels of one family: one for each rho, or one for all where no error depends on it."""
    parts = list(groups(rows, ["cache", "n", "d", "rho"]))
    errors = [np.sort(column(part, "error")) for _, part in parts]
    if all(len(other) == len(errors[0]) and np.allclose(other, errors[0], rtol=_EQUAL) for other in errors):
        names, part = parts[0]
        return [(names | {"rho": ", ".join(f"{rho:g}" for rho in distinct(rows, "rho"))}, part)]
    return [(names | {"rho": f"{names['rho']:g}"}, part) for names, part in parts]
