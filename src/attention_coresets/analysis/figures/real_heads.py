"""Real heads: error against size at the model's own queries and at the worst query, and what the norms say of them."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import TILTED, UNWEIGHTED, in_order, look
from attention_coresets.analysis.figures.sizes import quantile_curves
from attention_coresets.analysis.figures.style import GREY, log_axes, panel_grid, plain_ticks, shared_legend
from attention_coresets.analysis.frames import column, distinct, medians
from attention_coresets.analysis.real_heads import ERRORS
from attention_coresets.analysis.results import Results
from attention_coresets.analysis.summary import REAL

HELDOUT = ("heldout_mean", "heldout_max")


def real_heads(results: Results) -> Figure:
    """Median error over heads against size with quartile bands: at held-out queries (mean, largest), and at the worst
    query of each ball a panel each; the last panel holds rho and log T of each head by layer."""
    rows, heads = results.rows("real_heads"), results.heads
    radii = distinct(rows, "rho")
    figure, axes = panel_grid(len(HELDOUT) + len(radii) + (heads is not None), 3, (3.6, 2.7))
    for ax, name in zip(axes, HELDOUT, strict=False):
        _heldout(ax, rows, name)
    for ax, rho in zip(axes[len(HELDOUT) :], radii, strict=False):
        _errors(ax, rows.loc[rows["rho"] == rho], "error")
        ax.set_title(f"worst query of the ball, ρ = {rho:g}")
    shared_legend(figure, axes[: len(HELDOUT) + len(radii)])
    if heads is not None:
        _geometry(axes[-1], heads)
    return figure


def _heldout(ax: Axes, rows: pd.DataFrame, name: str) -> None:
    """Only the walk looks at rho: its line with a band is for the largest radius asked for, broken lines for others."""
    *others, largest = distinct(rows, "rho")
    _errors(ax, rows.loc[rows["rho"] == largest], name)
    walk = look("walk_tilted")
    for rho, style in zip(others[::-1], ("--", ":", "-."), strict=False):
        mine = medians(rows.loc[(rows["rho"] == rho) & (rows["arm"] == "walk_tilted")], [*REAL, "size"], [name])
        x, (middle,) = quantile_curves(mine, name, (0.5,))
        ax.plot(x, middle, style, color=walk.color, linewidth=1.1, label=f"the walk, asked for ρ = {rho:g}")
    ax.set_title(ERRORS[name] + (f" (walk asked for ρ = {largest:g})" if others else ""))


def _errors(ax: Axes, rows: pd.DataFrame, name: str) -> None:
    per_head = medians(rows, [*REAL, "arm", "size"], [name])
    for arm in in_order(set(per_head["arm"])):
        style = look(arm)
        x, (low, middle, high) = quantile_curves(per_head.loc[per_head["arm"] == arm], name, (0.25, 0.5, 0.75))
        ax.fill_between(x, low, high, color=style.color, alpha=0.14, linewidth=0)
        ax.plot(x, middle, color=style.color, marker=style.marker, label=style.label, zorder=3)
    log_axes(ax)
    plain_ticks(ax, "x", distinct(rows, "size"))
    ax.set(xlabel="coreset size m", ylabel="error, values of norm ≤ 1")


def _geometry(ax: Axes, heads: pd.DataFrame) -> None:
    """rho by the norms, log T by the model's own queries: two marks a head, at its layer."""
    layers = column(heads, "layer")
    ax.plot(
        layers, column(heads, "rho_centred"), "s", color=UNWEIGHTED, alpha=0.8, label="ρ by the norms (centred keys)"
    )
    ax.plot(layers, column(heads, "log_total_sensitivity"), "o", color=TILTED, alpha=0.8, label="log T of its queries")
    ax.axhline(np.log(column(heads, "n").max()), color=GREY, linestyle="--", linewidth=1.1, label="log n")
    log_axes(ax, x=False)
    low, high = ax.get_ylim()
    ax.set(title="what the exponent could be", xlabel="layer", ylabel="nats", ylim=(low, high * 4))
    ax.legend(fontsize=7.5, loc="upper right")
