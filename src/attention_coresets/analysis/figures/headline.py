"""The result in one figure: measured sizes against sqrt(d) e^{rho sigma} / epsilon, between the bound and the floor."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.bootstrap import bootstrap
from attention_coresets.analysis.figures.looks import look
from attention_coresets.analysis.figures.sizes import LATTICE, sizes_at
from attention_coresets.analysis.figures.style import End, guide, label_ends, log_axes, new_figure, shared_legend
from attention_coresets.analysis.fits import fit
from attention_coresets.analysis.frames import column, groups, medians
from attention_coresets.analysis.hard_instances import over_floor
from attention_coresets.analysis.results import Results
from attention_coresets.analysis.sizes import INTERVAL, LEFT, RIGHT
from attention_coresets.theory import signed_clusters_floor

EXPERIMENTS = ("epsilon_rate", "d_rate", "rho_rate", "n_independence")
ARMS = ("uniform", "walk_tilted")
# experiments differ in their sizes and in their number of caches
_PLACE = ["experiment", "cache", "cache_params", "n", "d", "rho"]


def headline(results: Results) -> Figure:
    """Sizes m(epsilon) of the tilted walk and of uniform subsets, every synthetic family, d, rho and epsilon measured,
    against the tilted bound with constant 1; below the dashes, of signed clusters, no
    coreset with equal cluster weights exists."""
    figure = new_figure(6.6, 4.8)
    ax = figure.subplots()
    drawn = [(arm, sizes) for arm in ARMS if len(sizes := _sizes(results, arm))]
    ends = [end for arm, sizes in drawn if (end := _arm(ax, arm, sizes))]
    _floor(ax, results)
    log_axes(ax)
    if drawn:
        _frame(ax, drawn)
    ax.set(xlabel=r"$\sqrt{d}\,e^{\rho\sigma}/\varepsilon$", ylabel="smallest size m(ε) with median error at most ε")
    label_ends(ax, ends, gap=0.1)
    shared_legend(figure, [ax])
    return figure


def _frame(ax: Axes, drawn: list[tuple[str, pd.DataFrame]]) -> None:
    """The bound, and limits that hold every mark and leave room for the labels on the right."""
    shown = pd.concat([sizes.loc[sizes["status"] != LEFT] for _, sizes in drawn])
    bounds, heights = column(shown, "bound"), column(shown, "middle")
    x = np.array([bounds.min() / 1.5, bounds.max() * 1.5])
    guide(ax, x, x, r"bound with constant 1: $m = \sqrt{d}\,e^{\rho\sigma}/\varepsilon$")
    ax.set(xlim=(x[0], x[1] * 2), ylim=(heights.min() / 2, heights.max() * 3))


def _sizes(results: Results, arm: str) -> pd.DataFrame:
    """Sizes of one arm at each epsilon that some cache family resolves, and bound = sqrt(d) e^{rho sigma} / epsilon."""
    table = results.table
    rows = table.loc[table["experiment"].isin(EXPERIMENTS) & (table["arm"] == arm)]
    if rows.empty:
        return rows
    sizes = sizes_at(rows, _PLACE, LATTICE[::2]).merge(medians(rows, _PLACE, ["sigma"]), on=_PLACE)
    resolved = column(sizes.loc[sizes["status"] == INTERVAL], "epsilon")
    if len(resolved) == 0:
        return sizes.iloc[:0]
    sizes = sizes.loc[column(sizes, "epsilon") >= resolved.min()]
    exponents = column(sizes, "rho") * column(sizes, "sigma")
    return sizes.assign(bound=np.sqrt(column(sizes, "d")) * np.exp(exponents) / column(sizes, "epsilon"))


def _arm(ax: Axes, arm: str, sizes: pd.DataFrame) -> End | None:
    """Points, the first censored epsilon of each configuration as a triangle, and the fitted line with its label."""
    style = look(arm)
    inside = sizes.loc[sizes["status"] == INTERVAL]
    beyond = sizes.loc[sizes["status"] == RIGHT].sort_values("epsilon").groupby(_PLACE).tail(1)
    marks: dict[str, Any] = {"color": style.color, "linestyle": "none", "markersize": 3.8, "alpha": 0.5}
    ax.plot(column(inside, "bound"), column(inside, "middle"), marker=style.marker, label=style.label, **marks)
    ax.plot(column(beyond, "bound"), column(beyond, "middle"), marker="^", markerfacecolor="none", **marks)
    features = {"slope": np.log(column(sizes, "bound"))}
    try:
        law = fit(sizes, features, clusters=_PLACE).coefficients
        low, high = bootstrap(sizes, features, np.random.default_rng(0), clusters=_PLACE)["slope"]
    except ValueError:  # too few configurations for a line: the points stand alone
        return None
    x = np.array([column(inside, "bound").min(), column(inside, "bound").max()])
    y = np.exp(law["const"]) * x ** law["slope"]
    ax.plot(x, y, color=style.color, linewidth=1.6)
    return End(float(x[-1]), float(y[-1]), f"slope {law['slope']:.2f}\n[{low:.2f}, {high:.2f}]", style.color)


def _floor(ax: Axes, results: Results) -> None:
    """A dash at (sqrt(d) e^{rho sigma} / epsilon, n/2) for each instance, epsilon the floor at m = n/2."""
    rows = over_floor(results)
    if rows.empty:
        return
    x, y = [], []
    for at, group in groups(rows, ["n", "d", "clusters", "rho"]):
        floor = signed_clusters_floor(at["d"], at["clusters"], at["rho"])
        x.append(at["d"] ** 0.5 * np.exp(at["rho"] * column(group, "sigma").mean()) / floor)
        y.append(at["n"] / 2)
    label = "signed clusters: proven to need more (equal cluster weights)"
    ax.plot(x, y, "_", color="black", markersize=9, markeredgewidth=1.6, label=label)
