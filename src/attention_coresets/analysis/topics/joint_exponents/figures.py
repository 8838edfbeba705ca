"""What is needed and what is enough on the hard instances, and what is left between."""

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.lines import name_lines, strip
from attention_coresets.analysis.figures.looks import Look, in_order, look
from attention_coresets.analysis.figures.style import GREY, headed, log_axes, new_figure, plain_ticks
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians
from attention_coresets.analysis.topics.joint_exponents.fits import SYMBOLS, joint, point
from attention_coresets.analysis.topics.joint_exponents.measures import coordinate_rows
from attention_coresets.analysis.topics.joint_exponents.rows import (
    CONFIGURATION,
    EXPONENTS,
    KNOWS,
    RATIOS,
    WEIGHTS,
    designed,
)

# by arm: elsewhere colours tell coreset models, of which there is one here
COLORS = {
    "uniform": "#d55e00",
    "kernel_halving_tilted": "#cc78bc",
    "walk_tilted": "#0173b2",
    "walk_tilted_kernel_swaps": "#56b4e9",
    "herding_tilted": "#029e73",
    KNOWS: "black",
}
# by clusters per dimension, few to many
SHADES = {0.125: "#a6611a", 0.25: "#d98f2b", 0.5: "#4f9d9d", 1.0: "#01665e"}
MARKERS = {"herding_tilted": "P", "walk_tilted_kernel_swaps": "v"}


def own_look(arm: str) -> Look:
    """The arm's name without its coreset model, in a colour of its own."""
    usual = look(arm)
    name = usual.label.partition(" (")[0].replace(", knows the instance", ",\ntold the clusters")
    return replace(usual, label=name, color=COLORS.get(arm, usual.color), marker=MARKERS.get(arm, usual.marker))


def headline(results: Results) -> Figure:
    """Signed clusters, m = n/2. Left, size against sqrt(d) (e^rho - 1) / error: the floor that no coreset of equal
    cluster weights passes, and every construction, up to the largest instance. Right, the three exponents of each arm,
    fitted together in their finite-size form, beside the law, which is also what the floor itself reads."""
    figure = new_figure(9.6, 4.6)
    axes = list(figure.subplots(1, 2).flat)
    rows = designed(results, EXPONENTS)
    _sizes(axes[0], rows, coordinate_rows(results))
    _exponents(axes[1], rows)
    headed(
        figure,
        "Caches made to be hard (signed clusters): the least error for equal cluster weights (the floor, black), and"
        " what constructions reach",
    )
    return figure


def sandwich(results: Results) -> Figure:
    """What is left between the floors and the best coresets on signed clusters: error over the floor for equal cluster
    weights at m = n/2, a line for each arm; and the best arm's over the floor for any weights, a line for each share.
    Dots are instances, medians over caches; large marks their medians."""
    figure = new_figure(8.8, 3.4)
    axes = list(figure.subplots(1, 2).flat)
    _over_floor(axes[0], designed(results, EXPONENTS))
    _any_weights(axes[1], designed(results, WEIGHTS, half=False))
    headed(
        figure,
        "Hard caches: error over the floor for equal cluster weights (left) and for any weights (right);"
        " at 1 nothing is left to gain",
    )
    return figure


def ratios(results: Results) -> Figure:
    """Error over the floor against d, a line for each number of clusters per dimension, named in the first panel. A
    level line follows the floor, whose size is like √d/ε. A panel for each construction; medians over instances."""
    rows = designed(results, RATIOS)
    figure = new_figure(9.6, 3.4)
    arms = list(groups(rows, ["arm"]))
    axes = list(figure.subplots(1, len(arms), squeeze=False).flat)
    for ax, (names, own) in zip(axes, arms, strict=True):
        for at, part in groups(own, ["ratio", "rho"]):
            _along_d(ax, part, at["ratio"], at["rho"], named=ax is axes[0])
        log_axes(ax)
        plain_ticks(ax, "x", [8, 16, 32, 64, 128, 256])
        plain_ticks(ax, "y", [1, 1.2, 1.5, 2, 2.5])
        ax.set(xlabel="dimension d", xlim=(7, 560), ylim=(0.98, 2.8))
        ax.set_title(own_look(names["arm"]).label)
    axes[0].set(ylabel="error / floor for equal cluster weights")
    headed(
        figure,
        "Hard caches with clusters in proportion to d: the error over the floor changes little as d grows"
        " (solid ρ = ½, dashed ρ = 1)",
    )
    return figure


def _along_d(ax: Axes, rows: pd.DataFrame, ratio: float, rho: float, named: bool) -> None:
    found = medians(rows, ["d"], ["over_iv"])
    color = SHADES.get(ratio, GREY)
    ax.plot(found["d"], found["over_iv"], "o-" if rho == 0.5 else "s--", color=color, markersize=4)
    if rho == 0.5 and named:
        words = f"r = d/{1 / ratio:.0f}" if ratio < 1 else "r = d"
        end = (found["d"].iloc[-1], found["over_iv"].iloc[-1])
        ax.annotate(words, end, xytext=(5, 0), textcoords="offset points", va="center", color=color, fontsize=7.5)


def _rate(rows: pd.DataFrame, error: str = "error") -> np.ndarray:
    return np.sqrt(column(rows, "d")) * column(rows, "a") / column(rows, error)


def _medians(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return medians(rows, [*CONFIGURATION, "size", "a", "iv"], names)


def _sizes(ax: Axes, rows: pd.DataFrame, large: pd.DataFrame) -> None:
    everything = _medians(pd.concat([rows, large]), ["error"])
    floors = pd.Series(_rate(everything, "iv")).groupby(column(everything, "size")).agg(["min", "max"])
    words = "floor: no coreset errs less\n(equal cluster weights)"
    ax.fill_betweenx(floors.index, floors["min"], floors["max"], color="black", linewidth=1, label=words)
    others = [arm for arm in in_order(set(rows["arm"])) if arm != KNOWS]
    apart = {arm: 1.08**k for k, arm in enumerate(reversed(others))}  # upwards: never nearer to the floor
    for arm in [*others, KNOWS]:
        _points(ax, _medians(pd.concat([rows, large]).query("arm == @arm"), ["error"]), arm, apart.get(arm, 1))
    log_axes(ax)
    ax.set(xlabel=r"$\sqrt{d}\,(e^{\rho}-1)\,/\,$error  (to the right: less error)", ylabel="size m = n/2, tokens")
    ax.set_title("Half of the tokens kept; a mark for each d and ρ")
    words = "marks of one size lie apart,\nthe lowest at m."
    largest = distinct(rows, "size")[-1]
    if distinct(large, "size")[-1:] > [largest]:
        words += f"\nAbove m = {largest:g} only the\ncoordinate subset was run."
    ax.text(0.97, 0.03, words, transform=ax.transAxes, ha="right", va="bottom", fontsize=7, color=GREY)
    ax.legend(loc="upper left", fontsize=7)


def _points(ax: Axes, found: pd.DataFrame, arm: str, factor: float) -> None:
    """Sizes times the factor, so that arms of one size and error do not hide each other."""
    style = own_look(arm)
    mark = {"color": style.color, "marker": style.marker, "markersize": 4, "linestyle": "none", "alpha": 0.75}
    if arm == KNOWS:  # on the floor, and below the others, which it would hide
        mark |= {"markerfacecolor": "white", "markersize": 5, "alpha": 1, "zorder": 1.9}
    ax.plot(_rate(found), column(found, "size") * factor, label=style.label, **mark)


def _over_floor(ax: Axes, rows: pd.DataFrame) -> None:
    arms = in_order(set(rows["arm"]))
    for y, arm in enumerate(arms):
        strip(ax, y, column(_medians(rows.loc[rows["arm"] == arm], ["over_iv"]), "over_iv"), own_look(arm))
    ax.axvline(1, color="black", linewidth=1.1)
    log_axes(ax, y=False)
    plain_ticks(ax, "x", [1, 1.5, 2, 3, 5, 8])
    name_lines(ax, [own_look(arm).label for arm in arms])
    ax.set(xlabel="error / floor for equal cluster weights")
    ax.set_title("Each construction, half of the tokens kept")


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
    name_lines(ax, [own_look(arm).label for arm in arms])
    ax.axvline(2, color=GREY, linewidth=1.0, linestyle=":", zorder=0)
    ax.text(1.98, len(arms) - 0.6, "γ of random\nsampling", fontsize=7, color="0.4", ha="right")
    ax.set(xlabel="exponent α of d, β of $e^{\\rho}-1$, γ of 1/ε; 95 % intervals\ndashed: the floor's (½, 1, 1)")
    ax.set_title("The three exponents, fitted together")


def _any_weights(ax: Axes, rows: pd.DataFrame) -> None:
    rows = rows.dropna(subset=["over_v"])
    shares = sorted(distinct(rows, "share"), reverse=True)
    for y, share in enumerate(shares):
        by_instance = groups(rows.loc[rows["share"] == share], CONFIGURATION)
        best = [min(column(medians(group, ["arm"], ["over_v"]), "over_v")) for _, group in by_instance]
        strip(ax, y, np.array(best), Look("", "0.2", "o"))
    ax.axvline(1, color="black", linewidth=1.1)
    name_lines(ax, [f"m = {share:g} n" for share in shares])
    ax.set(xlabel="error / floor for any weights ≥ 0")
    ax.set_title("The best of all constructions")
