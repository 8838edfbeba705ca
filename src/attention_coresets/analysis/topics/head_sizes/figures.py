"""Sizes that heads need against T, and what tells their errors."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.style import GREY, headed, log_axes, new_figure, plain_ticks
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.stats.sizes import INTERVAL, LEFT, RIGHT
from attention_coresets.analysis.topics.head_sizes.measures import needed, slopes, told
from attention_coresets.analysis.topics.head_sizes.plans import OURS, SIZES

EPSILONS = (0.2, 0.1, 0.05)
_LOOKS = {0.2: ("#56b4e9", "o"), 0.1: ("#0173b2", "s"), 0.05: ("#d55e00", "D")}


def head_sizes(results: Results) -> Figure:
    """Left: the size each head needs for three errors against sqrt(d) T / epsilon, both to scale, with a line of slope
    1. Right: how much of the variance of log error each measure explains in layers unseen."""
    figure = new_figure(9.2, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _sizes(left, results)
    _explained(right, results)
    headed(figure, "How large a coreset a head needs grows with the total sensitivity T of what it is asked")
    return figure


def _sizes(ax: Axes, results: Results) -> None:
    rows = results.rows(SIZES)
    found = needed(rows.loc[rows["arm"] == OURS], EPSILONS)
    x = np.sqrt(column(found, "d")) * column(found, "total_sensitivity") / column(found, "epsilon")
    at, sizes = column(found, "at"), distinct(rows, "size")
    for epsilon, (color, marker) in _LOOKS.items():
        for status, mark, face in ((INTERVAL, marker, color), (LEFT, "v", "none"), (RIGHT, "^", "none")):
            here = (found["epsilon"] == epsilon).to_numpy() & (found["status"] == status).to_numpy()
            style = {"color": color, "markerfacecolor": face, "markersize": 4, "alpha": 0.6}
            ax.plot(x[here], at[here], mark, label=f"ε = {epsilon:g}" if status == INTERVAL else None, **style)
    inside = (found["status"] == INTERVAL).to_numpy()
    if inside.any():
        ends = np.array([x[inside].min(), x[inside].max()])
        level = np.exp(np.mean(np.log(at[inside] / x[inside])))
        ax.plot(ends, level * ends, "--", color=GREY, linewidth=1.1, label="slope 1")
    ax.plot([], [], "^", color=GREY, markerfacecolor="none", markersize=4, label="more than the grid's largest")
    ax.plot([], [], "v", color=GREY, markerfacecolor="none", markersize=4, label="its smallest is enough")
    ax.set(ylim=(sizes[0] / 2, sizes[-1] * 2), xlabel="√d·T/ε", ylabel="tokens needed m")
    log_axes(ax)
    plain_ticks(ax, "y", sizes)
    fitted = ", ".join(f"{part.setting}: {part.estimate.value:.2f}" for part in slopes(results))
    ax.set_title(f"a mark a head and ε; {fitted}")
    ax.legend(fontsize=6.5, loc="lower right")


def _explained(ax: Axes, results: Results) -> None:
    found = told(results)
    ordered = sorted(found, key=lambda words: found[words].value)
    for y, words in enumerate(ordered):
        estimate = found[words]
        ax.plot([estimate.low, estimate.high], [y, y], color="#0173b2", linewidth=1.4)
        ax.plot(estimate.value, y, "o", color="#0173b2", markersize=5)
    ax.set_yticks(range(len(ordered)), ordered)
    ax.set(title="log error predicted, layers left out", xlabel="R² of log error, beside the size")
    ax.grid(True, axis="x", color="0.92", linewidth=0.6)
