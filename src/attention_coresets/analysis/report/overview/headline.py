"""The result in one figure: measured sizes against sqrt(d) e^{rho sigma} / epsilon, between the bound and the floor."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import look
from attention_coresets.analysis.figures.sizes import CENSORED, LATTICE, name_censored, sizes_at
from attention_coresets.analysis.figures.style import End, guide, label_ends, log_axes, new_figure, shared_legend
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.bootstrap import bootstrap
from attention_coresets.analysis.stats.frames import column, groups, medians
from attention_coresets.analysis.stats.power_law import fit
from attention_coresets.analysis.stats.sizes import INTERVAL, LEFT, RIGHT
from attention_coresets.analysis.topics.hard_instances.signed_clusters import over_floor
from attention_coresets.lower_bound import equal_weights_floor

EXPERIMENTS = ("epsilon_rate", "d_rate", "rho_rate", "n_independence")
ARMS = ("uniform", "walk_tilted")
# experiments differ in their sizes and in their number of caches
_PLACE = ["experiment", "cache", "cache_params", "n", "d", "rho"]


def headline(results: Results) -> Figure:
    """Sizes m(epsilon) of the tilted walk and of uniform subsets, every synthetic family, d, rho and epsilon measured,
    against the tilted bound with constant 1, its sigma for both arms; below the dashes, of signed clusters, no
    coreset with equal cluster weights exists. Open triangles are censored sizes, one a configuration."""
    figure = new_figure(6.6, 4.8)
    ax = figure.subplots()
    drawn = [(arm, sizes) for arm in ARMS if len(sizes := _sizes(results, arm))]
    ends = [end for arm, sizes in drawn if (end := _arm(ax, arm, sizes))]
    _floor(ax, results)
    log_axes(ax)
    if drawn:
        _frame(ax, drawn, ends)
    ax.set(
        xlabel=r"$\sqrt{d}\,e^{\rho\sigma}/\varepsilon$, with the tilt's σ for both arms",
        ylabel="smallest size m(ε) with median error at most ε",
    )
    label_ends(ax, ends, gap=0.1)
    shared_legend(figure, [ax])
    return figure


def _frame(ax: Axes, drawn: list[tuple[str, pd.DataFrame]], ends: list[End]) -> None:
    """The bound, and limits that hold every mark and leave room for the labels on the right."""
    shown = pd.concat([part for _, sizes in drawn for part in _drawn(sizes).values()])
    bounds, heights = column(shown, "bound"), column(shown, "middle")
    x = np.array([bounds.min() / 1.5, bounds.max() * 1.5])
    top = max([heights.max() * 3, *(end.y * 2 for end in ends)])
    guide(ax, x, x, r"bound with constant 1: $m = \sqrt{d}\,e^{\rho\sigma}/\varepsilon$")
    ax.set(xlim=(x[0], x[1] * 2), ylim=(heights.min() / 2.5, top))
    name_censored(ax, shown)


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


def _drawn(sizes: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By status the sizes that get a mark: all resolved ones, and of each configuration's censored ones the nearest."""
    sizes = sizes.sort_values("epsilon")
    parts = {status: sizes.loc[sizes["status"] == status] for status in (INTERVAL, RIGHT, LEFT)}
    return parts | {RIGHT: parts[RIGHT].groupby(_PLACE).tail(1), LEFT: parts[LEFT].groupby(_PLACE).head(1)}


def _arm(ax: Axes, arm: str, sizes: pd.DataFrame) -> End | None:
    """Points, the nearest censored sizes of each configuration as triangles, and the fitted line with its label."""
    style, shown = look(arm), _drawn(sizes)
    inside = shown[INTERVAL]
    marks: dict[str, Any] = {"color": style.color, "linestyle": "none", "markersize": 3.8, "alpha": 0.5}
    ax.plot(column(inside, "bound"), column(inside, "middle"), marker=style.marker, label=style.label, **marks)
    for status, (marker, _) in CENSORED.items():
        off = shown[status]
        ax.plot(column(off, "bound"), column(off, "middle"), marker=marker, markerfacecolor="none", **marks)
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
    """A dash at (sqrt(d) e^{rho sigma} / epsilon, n/2) for each instance, epsilon its floor (iv) as in `sandwich`."""
    rows = over_floor(results)
    if rows.empty:
        return
    x, y = [], []
    for at, group in groups(rows, ["n", "d", "clusters", "rho"]):
        floor = equal_weights_floor(at["d"], at["clusters"], at["n"] // 2, at["rho"])
        x.append(at["d"] ** 0.5 * np.exp(at["rho"] * column(group, "sigma").mean()) / floor)
        y.append(at["n"] / 2)
    label = "signed clusters: proven to need more (equal cluster weights)"
    ax.plot(x, y, "_", color="black", markersize=9, markeredgewidth=1.6, label=label)
