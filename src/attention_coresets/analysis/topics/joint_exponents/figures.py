"""What is needed and what is enough on the hard instances, and what is left between."""

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import Look, in_order, look
from attention_coresets.analysis.figures.style import GREY, log_axes, new_figure, plain_ticks, shared_legend
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians
from attention_coresets.analysis.topics.joint_exponents.fits import SYMBOLS, joint, point
from attention_coresets.analysis.topics.joint_exponents.measures import coordinate_rows
from attention_coresets.analysis.topics.joint_exponents.rows import CONFIGURATION, EXPONENTS, KNOWS, WEIGHTS, designed

# by arm: elsewhere colours tell coreset models, of which there is one here
COLORS = {
    "uniform": "#d55e00",
    "kernel_halving_tilted": "#cc78bc",
    "walk_tilted": "#0173b2",
    "walk_tilted_kernel_swaps": "#56b4e9",
    "herding_tilted": "#029e73",
    KNOWS: "black",
}
MARKERS = {"herding_tilted": "P", "walk_tilted_kernel_swaps": "v"}


def own_look(arm: str) -> Look:
    """The arm's name without its coreset model, in a colour of its own."""
    usual = look(arm)
    name = usual.label.partition(" (")[0].replace(", knows the instance", "*")
    return replace(usual, label=name, color=COLORS.get(arm, usual.color), marker=MARKERS.get(arm, usual.marker))


def headline(results: Results) -> Figure:
    """Signed clusters, m = n/2. Left, size against sqrt(d) (e^rho - 1) / error: the floor that no coreset of equal
    cluster weights passes, and every construction, up to the largest instance. Right, the three exponents of each arm,
    fitted together in their finite-size form, beside the law, which is also what the floor itself reads."""
    figure = new_figure(9.2, 4.4)
    axes = list(figure.subplots(1, 2).flat)
    rows = designed(results, EXPONENTS)
    _sizes(axes[0], rows, coordinate_rows(results))
    _exponents(axes[1], rows)
    shared_legend(figure, axes)
    return figure


def sandwich(results: Results) -> Figure:
    """What is left between the floors and the best coresets on signed clusters: error over the floor for equal cluster
    weights against n, by arm, at m = n/2; and the best arm of each configuration over the floor for any weights."""
    figure = new_figure(8.8, 4.2)
    axes = list(figure.subplots(1, 2).flat)
    _over_floor(axes[0], designed(results, EXPONENTS))
    _any_weights(axes[1], designed(results, WEIGHTS, half=False))
    shared_legend(figure, axes)
    return figure


def _rate(rows: pd.DataFrame, error: str = "error") -> np.ndarray:
    return np.sqrt(column(rows, "d")) * column(rows, "a") / column(rows, error)


def _medians(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return medians(rows, [*CONFIGURATION, "size", "a", "iv"], names)


def _sizes(ax: Axes, rows: pd.DataFrame, large: pd.DataFrame) -> None:
    everything = _medians(pd.concat([rows, large]), ["error"])
    order = np.argsort(_rate(everything, "iv"))
    x, y = _rate(everything, "iv")[order], column(everything, "size")[order]
    ax.plot(x, y, "_", color="black", markersize=8, label="floor (iv): equal cluster weights need more")
    for arm in in_order(set(rows["arm"])):
        _points(ax, _medians(pd.concat([rows, large]).query("arm == @arm"), ["error"]), arm)
    log_axes(ax)
    ax.set(xlabel=r"$\sqrt{d}\,(e^{\rho}-1)/\varepsilon$, ε the error found", ylabel="size m = n/2")
    ax.set_title("The size that is needed, and what suffices (*: knows the instance)")


def _points(ax: Axes, found: pd.DataFrame, arm: str) -> None:
    style = own_look(arm)
    mark = {"color": style.color, "marker": style.marker, "markersize": 4, "linestyle": "none", "alpha": 0.75}
    ax.plot(_rate(found), column(found, "size"), label=style.label, **mark)


def _over_floor(ax: Axes, rows: pd.DataFrame) -> None:
    for arm in in_order(set(rows["arm"])):
        found, style = _medians(rows.loc[rows["arm"] == arm], ["over_iv"]), own_look(arm)
        jitter = np.exp(0.04 * np.sin(np.arange(len(found)) * 2.4))
        x = column(found, "n") * jitter
        mark = {"color": style.color, "marker": style.marker, "markersize": 4, "linestyle": "none", "alpha": 0.75}
        ax.plot(x, column(found, "over_iv"), label=style.label, **mark)
    ax.axhline(1, color="black", linewidth=1.1)
    log_axes(ax)
    plain_ticks(ax, "y", [1, 1.5, 2, 3, 5, 8])
    ax.set(xlabel="tokens n", ylabel="error over floor (iv)")
    ax.set_title("How far each construction stays above the floor")


def _exponents(ax: Axes, rows: pd.DataFrame) -> None:
    """A row for each arm and the control, the three exponents side by side, by the finite-size form."""
    arms = in_order(set(rows["arm"]))
    control = point(rows.loc[rows["arm"] == arms[0]], "iv", finite=True)
    for y, arm in enumerate(arms):
        found = joint(rows.loc[rows["arm"] == arm], finite=True).exponents
        for symbol, shade in zip(SYMBOLS, ("o", "s", "^"), strict=True):
            e, color = found[symbol], own_look(arm).color
            at = y + {"α": -0.22, "β": 0.0, "γ": 0.22}[symbol]
            ax.plot([e.low, e.high], [at, at], color=color, linewidth=1.4)
            ax.plot(e.value, at, shade, color=color, markersize=5)
            ax.annotate(symbol, (e.high, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5)
    for symbol in SYMBOLS:
        ax.axvline(control[symbol], color=GREY, linewidth=1.0, linestyle="--", zorder=0)
    ax.set_yticks(range(len(arms)), [own_look(arm).label for arm in arms])
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.set(xlabel="exponents, 95 %; dashed: the floor itself (½, 1, 1)")
    ax.set_title("The three exponents, fitted together")


def _any_weights(ax: Axes, rows: pd.DataFrame) -> None:
    rows = rows.dropna(subset=["over_v"])
    styles = zip(sorted(distinct(rows, "share"), reverse=True), ("o", "s", "^"), ("0.1", "0.4", "0.65"), strict=False)
    for share, marker, color in styles:
        x, best = [], []
        for at, group in groups(rows.loc[rows["share"] == share], CONFIGURATION):
            a = np.expm1(at["rho"])
            x.append(a / (at["clusters"] + a))
            best.append(min(column(medians(group, ["arm"], ["over_v"]), "over_v")))
        ax.plot(x, best, marker, color=color, label=f"best of all arms, m = {share:g} n", linestyle="none")
    ax.axhline(1, color="black", linewidth=1.1)
    ax.set(xlabel="γ = a / (r + a)", ylabel="error over floor (v), any weights ≥ 0")
    ax.set_title("The best coreset of any weights over its floor")
