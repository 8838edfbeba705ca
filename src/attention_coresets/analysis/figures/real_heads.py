"""Real heads: error against size at the model's own queries and at the worst query, and what the norms say of them."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.style import (
    GREY,
    in_order,
    log_axes,
    look,
    new_figure,
    plain_ticks,
    shared_legend,
)
from attention_coresets.analysis.frames import column, distinct, medians
from attention_coresets.analysis.real_heads import ERRORS
from attention_coresets.analysis.results import Results
from attention_coresets.analysis.summary import REAL

HELDOUT = ("heldout_mean", "heldout_max")


def real_heads(results: Results) -> Figure:
    """Median error over heads against size, quartile bands, one panel a kind of error; then rho and log T by layer."""
    rows = results.rows("real_heads")
    radii = distinct(rows, "rho")
    heads = results.heads
    panels = 2 + len(radii) + (heads is not None)
    figure = new_figure(3.1 * panels, 3.3)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for ax, name in zip(axes, HELDOUT, strict=False):
        _errors(ax, rows, name, ERRORS[name])
    for ax, rho in zip(axes[2:], radii, strict=False):
        _errors(ax, rows.loc[rows["rho"] == rho], "error", f"worst query of the ball, ρ = {rho:g}")
    axes[0].set_ylabel("error (values scaled to norm ≤ 1)")
    shared_legend(figure, axes[:-1] if heads is not None else axes, 4)
    if heads is not None:
        _geometry(axes[-1], heads)
    return figure


def _errors(ax: Axes, rows: pd.DataFrame, name: str, title: str) -> None:
    per_head = medians(rows, [*REAL, "arm", "size"], [name])
    for arm in in_order(set(per_head["arm"])):
        style = look(arm)
        spread = (
            per_head.loc[per_head["arm"] == arm].groupby("size")[name].quantile(np.array([0.25, 0.5, 0.75])).unstack()
        )
        x = spread.index.to_numpy(dtype=float)
        low, middle, high = (spread[q].to_numpy(dtype=float) for q in (0.25, 0.5, 0.75))
        ax.fill_between(x, low, high, color=style.color, alpha=0.18, linewidth=0)
        ax.plot(x, middle, color=style.color, marker=style.marker, label=style.label, zorder=3)
    log_axes(ax)
    plain_ticks(ax, "x", distinct(rows, "size"))
    ax.set(title=title, xlabel="coreset size m")


def _geometry(ax: Axes, heads: pd.DataFrame) -> None:
    """rho by the norms against log T by the model's own queries: each head a mark at its layer."""
    layers = column(heads, "layer")
    ax.plot(layers, column(heads, "rho_centred"), "s", color="#de8f05", alpha=0.8, label="ρ (centred keys)")
    ax.plot(layers, column(heads, "log_total_sensitivity"), "o", color="#0173b2", alpha=0.8, label="log T")
    ax.axhline(np.log(column(heads, "n").max()), color=GREY, linestyle="--", linewidth=1.1, label="log n")
    log_axes(ax, x=False)
    low, high = ax.get_ylim()
    plain_ticks(ax, "y", [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200) if low <= tick <= high])
    ax.set(title="what the norms and the queries say", xlabel="layer", ylabel="exponent, nats")
    ax.legend(fontsize=7.5, loc="center right")
