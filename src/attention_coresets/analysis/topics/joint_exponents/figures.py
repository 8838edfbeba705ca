"""What is needed and what is enough on the hard instances, in one figure."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import in_order, look
from attention_coresets.analysis.figures.style import GREY, log_axes, new_figure, plain_ticks, shared_legend
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians
from attention_coresets.analysis.topics.joint_exponents.fits import SYMBOLS, THEOREM, joint, point
from attention_coresets.analysis.topics.joint_exponents.measures import coordinate_rows
from attention_coresets.analysis.topics.joint_exponents.rows import CONFIGURATION, EXPONENTS, KNOWS, WEIGHTS, designed


def joint_exponents(results: Results) -> Figure:
    """Four panels on signed clusters. Size against sqrt(d) (e^rho - 1) / error: the floor that no coreset of equal
    cluster weights passes, and every construction. Error over that floor. The three exponents, fitted together, beside
    the floor's own. The best coreset of any weights over the floor for any weights."""
    figure = new_figure(8.6, 7.6)
    axes = list(figure.subplots(2, 2).flat)
    rows, large = designed(results, EXPONENTS), coordinate_rows(results)
    _sizes(axes[0], rows, large)
    _over_floor(axes[1], rows)
    _exponents(axes[2], rows)
    _any_weights(axes[3], designed(results, WEIGHTS, half=False))
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
    ax.set_title("The size that is needed, and what suffices")


def _points(ax: Axes, found: pd.DataFrame, arm: str) -> None:
    style = look(arm)
    mark = {"color": style.color, "marker": style.marker, "markersize": 4, "linestyle": "none", "alpha": 0.75}
    ax.plot(_rate(found), column(found, "size"), label=style.label, **mark)


def _over_floor(ax: Axes, rows: pd.DataFrame) -> None:
    for arm in in_order(set(rows["arm"])):
        found, style = _medians(rows.loc[rows["arm"] == arm], ["over_iv"]), look(arm)
        jitter = np.exp(0.04 * np.sin(np.arange(len(found)) * 2.4))
        x = column(found, "n") * jitter
        ax.plot(x, column(found, "over_iv"), style.marker, color=style.color, markersize=4, alpha=0.75)
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
            e, color = found[symbol], look(arm).color
            at = y + {"α": -0.22, "β": 0.0, "γ": 0.22}[symbol]
            ax.plot([e.low, e.high], [at, at], color=color, linewidth=1.4)
            ax.plot(e.value, at, shade, color=color, markersize=5)
            ax.annotate(symbol, (e.high, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5)
    for symbol in SYMBOLS:
        ax.axvline(control[symbol], color=GREY, linewidth=1.0, linestyle="--", zorder=0)
    ax.set_yticks(range(len(arms)), [look(arm).label for arm in arms])
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ends = ", ".join(f"{s} = {THEOREM[s]:g}" for s in SYMBOLS)
    ax.set(xlabel=f"exponents, 95 %; dashed: the law and the floor itself ({ends})")
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
    ax.set_title(f"What free weights leave ({KNOWS.replace('_', ' ')} among the arms)")
