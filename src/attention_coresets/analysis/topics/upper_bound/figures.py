"""The constant of every row of the tilted walk."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.style import GREY, headed, log_axes, panel_grid, plain_ticks, shared_legend
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.upper_bound.measures import CONSTANT, EXPERIMENT, every_walk
from attention_coresets.analysis.topics.upper_bound.tolerances import BANDS
from attention_coresets.coresets.arms import TILTED

_LEAST = 1e-3  # equal keys and many tokens err next to nothing: such rows stand at the lower edge


def upper_bound(results: Results) -> Figure:
    """m err / (sqrt(d) e^{rho sigma}) of every synthetic row of the tilted walk against d, a panel for each rho of the
    experiment: largest and median, and the limit of the claim."""
    rows = every_walk(results)
    rows = rows.loc[rows["cache"] != "model"]
    rhos = distinct(results.rows(EXPERIMENT), "rho")
    figure, axes = panel_grid(len(rhos), 4, (2.9, 2.9), share=True)
    ds = distinct(rows, "d")
    for ax, rho in zip(axes, rhos, strict=True):
        part = rows.loc[rows["rho"] == rho]
        ax.plot(
            column(part, "d"), np.maximum(column(part, CONSTANT), _LEAST), ".", color=GREY, alpha=0.25, markersize=3
        )
        _line(ax, part, "max", "o", "largest at this d")
        _line(ax, part, "median", "s", "median; grey dots: every coreset")
        limit = BANDS["constant_sigma"].high
        ax.axhline(limit, color="black", linestyle="--", linewidth=1.1, label=f"limit of the claim, {limit:g}")
        log_axes(ax)
        ax.set_ylim(_LEAST * 0.8, 3)
        plain_ticks(ax, "x", ds)
        ax.set(title=f"ρ = {rho:g}", xlabel="dimension d")
        ax.label_outer()
    axes[0].set_ylabel(r"$m\cdot\mathrm{err}\,/\,(\sqrt{d}\,e^{\rho\sigma})$")
    headed(
        figure,
        "The tilted walk's size × error, divided by √d e^(ρσ), does not grow with the dimension d",
    )
    shared_legend(figure, axes)
    return figure


def _line(ax: Axes, rows: pd.DataFrame, statistic: str, marker: str, label: str) -> None:
    each = [(names["d"], column(group, CONSTANT)) for names, group in groups(rows, ["d"])]
    pick = {"max": np.max, "median": np.median}[statistic]
    x, y = [d for d, _ in each], [float(pick(values)) for _, values in each]
    ax.plot(x, y, marker=marker, color=TILTED, alpha=1.0 if statistic == "max" else 0.5, markersize=4, label=label)
