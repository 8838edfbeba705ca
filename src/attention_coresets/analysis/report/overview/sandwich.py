"""The sandwich: what no coreset can beat, what the best one does, what constructions do, what the bound allows."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.style import GREY, log_axes, panel_grid, shared_legend
from attention_coresets.analysis.parts.constant import with_constants
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians
from attention_coresets.analysis.topics.hard_instances.signed_clusters import over_floor
from attention_coresets.analysis.topics.optimum.measures import EXPERIMENT as OPTIMUM
from attention_coresets.coresets.arms import TILTED, UNWEIGHTED
from attention_coresets.lower_bound import any_weights_floor, equal_weights_floor

_DIMENSIONS = [2**k for k in range(1, 8)]  # of the lower-bound curves, as many clusters as dimensions
_RHOS = 3


def sandwich(results: Results) -> Figure:
    """Size against sqrt(d) e^rho / error, a panel for each rho: the lower bounds on signed clusters (n = d^2, m = n/2),
    exact optima, the best construction on signed clusters, the tilted walk on every other family, and the line of the
    largest constant measured, over the sizes measured: no bound beyond them."""
    hard, easy = over_floor(results), with_constants(results.rows("constant"))
    easy = easy.loc[easy["arm"] == "walk_tilted"]
    rhos = distinct(hard, "rho")[:_RHOS]
    figure, axes = panel_grid(len(rhos), 3, (3.3, 3.6), share=True)
    for ax, rho in zip(axes, rhos, strict=True):
        _floors(ax, rho)
        _walks(ax, easy.loc[easy["rho"] == rho])
        _best(ax, hard.loc[hard["rho"] == rho])
        _optima(ax, results.rows(OPTIMUM), rho)
        _largest_constant(ax, easy.loc[easy["rho"] == rho])
        log_axes(ax)
        ax.set(title=f"ρ = {rho:g}", xlabel=r"$\sqrt{d}\,e^{\rho}/\varepsilon$")
    axes[0].set_ylabel("size m")
    shared_legend(figure, axes)
    return figure


def rate(d: float, rho: float, error: float) -> float:
    """sqrt(d) e^rho / error."""
    return math.sqrt(d) * math.exp(rho) / error


def _floors(ax: Axes, rho: float) -> None:
    kinds = (
        (equal_weights_floor, "--", "signed clusters, n = d²: floor, equal weights"),
        (any_weights_floor, "-", "signed clusters, n = d²: floor, any weights"),
    )
    for floor, line, label in kinds:
        x = [rate(float(d), rho, floor(d, d, d * d // 2, rho)) for d in _DIMENSIONS]
        ax.plot(x, [d * d / 2 for d in _DIMENSIONS], line, color="black", linewidth=1.3, label=label)


def _walks(ax: Axes, rows: pd.DataFrame) -> None:
    found = medians(rows, ["cache", "n", "d", "size", "rho"], ["error"])
    x = [rate(*p) for p in zip(column(found, "d"), column(found, "rho"), column(found, "error"), strict=True)]
    style = {"color": TILTED, "alpha": 0.35, "markersize": 3.5, "linestyle": "none"}
    ax.plot(x, column(found, "size"), marker="o", label="all families: tilted walk", **style)


def _best(ax: Axes, rows: pd.DataFrame) -> None:
    """Of each signed-clusters instance the arm of least median error at m = n/2, joined to the instance's own floor."""
    found = medians(rows.loc[rows["fraction"] == 0.5], ["n", "d", "clusters", "rho", "size", "arm"], ["error"])
    least = pd.DataFrame(found.groupby(["n", "d", "clusters", "rho", "size"], as_index=False)["error"].min())
    places = list(zip(*(column(least, name).tolist() for name in ("d", "clusters", "rho", "error")), strict=True))
    x = [rate(d, rho, error) for d, _, rho, error in places]
    floor = [rate(d, rho, equal_weights_floor(int(d), int(r), int(d * r) // 2, rho)) for d, r, rho, _ in places]
    size = column(least, "size")
    ax.hlines(size, x, floor, color="black", linewidth=0.8)
    ax.plot(floor, size, "|", color="black", markersize=7)
    label = "signed clusters: best construction, joined to its floor"
    ax.plot(x, size, "s", color=UNWEIGHTED, markersize=4, linestyle="none", label=label)


def _optima(ax: Axes, rows: pd.DataFrame, rho: float) -> None:
    """Exact optima with free weights, each cache its own mark."""
    rows = rows.loc[(rows["arm"] == "optimum_free") & (rows["rho"] == rho) & (rows["error"] > 1e-6)]
    # the instances that the floors are about
    proven = (rows["cache"] == "signed_clusters") & (rows["n"] <= rows["d"] ** 2) & (2 * rows["size"] == rows["n"])
    kinds = {
        True: ("signed clusters: exact optimum at m = n/2", "black"),
        False: ("other tiny caches: exact optimum", GREY),
    }
    for hard, (label, color) in kinds.items():
        part = rows.loc[proven == hard]
        found = [g for _, g in groups(part, ["cache", "n", "d", "rho", "size"])]
        x = [rate(float(g["d"].iloc[0]), rho, float(np.median(column(g, "error")))) for g in found]
        y = [g["size"].iloc[0] for g in found]
        ax.plot(x, y, "*", color=color, markersize=6, linestyle="none", label=label, zorder=3 if hard else 2)


def _largest_constant(ax: Axes, rows: pd.DataFrame) -> None:
    """m = constant sqrt(d) e^rho / error over the sizes at which the constant was measured."""
    if rows.empty:
        return
    constant = column(rows, "constant_rho").max()
    sizes = np.array([column(rows, "size").min(), column(rows, "size").max()])
    where = "; ".join(f"{name} = {', '.join(f'{value:g}' for value in distinct(rows, name))}" for name in ("n", "d"))
    label = f"largest constant measured ({where})"
    ax.plot(sizes / constant, sizes, color=GREY, linewidth=1.6, zorder=1, label=label)
    place = (sizes[-1] / constant, sizes[-1] * 1.2)
    ax.annotate(f"{constant:.2f} √d e^ρ/ε", place, color="0.35", ha="right", va="bottom", fontsize=7.5)
