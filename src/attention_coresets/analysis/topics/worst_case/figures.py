"""How far the ceilings lie above the worst query found, by family, dimension and rho."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import family
from attention_coresets.analysis.figures.style import GREY, headed, log_axes, panel_grid, plain_ticks, shared_legend
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.worst_case.measures import JUDGED
from attention_coresets.coresets.arms import TILTED, UNWEIGHTED

_KINDS = (
    ("ceiling_kernel", "kernel certificate", TILTED, "o"),
    ("ceiling_taylor", "Taylor certificate", UNWEIGHTED, "s"),
    ("branch_upper", "branch and bound (d ≤ 4)", "black", "_"),
)

_MOST = 200


def ceilings(results: Results) -> Figure:
    """Ceiling over ascent of every coreset of the tilted walk, a panel for each family, d across, rho by its shade."""
    rows = results.rows(JUDGED)
    rows = rows.loc[rows["arm"] == "walk_tilted"]
    families = distinct(rows, "cache")
    figure, axes = panel_grid(len(families), 3, (2.9, 2.4), share=True)
    dimensions, rhos = distinct(rows, "d"), distinct(rows, "rho")
    for ax, cache in zip(axes, families, strict=True):
        _family(ax, rows.loc[rows["cache"] == cache], dimensions, rhos)
        ax.set(title=family(cache), xlabel="d; left to right ρ = " + ", ".join(f"{rho:g}" for rho in rhos))
        ax.set_xticks(range(len(dimensions)), [str(d) for d in dimensions])
        ax.tick_params(labelbottom=True)
    axes[0].set_ylim(0.9, None)
    axes[0].plot([], [], " ", label=f"ceilings above {_MOST} times are left out")
    for ax in axes[::3]:
        ax.set_ylabel("ceiling / worst error found")
    plain_ticks(axes[0], "y", [1, 1.5, 2, 3, 5, 10, 20, 50, 100])
    headed(
        figure, "How far proven ceilings of the error lie above the worst error found (1: the search found the worst)"
    )
    shared_legend(figure, axes)
    return figure


def _family(ax: Axes, rows, dimensions: list, rhos: list) -> None:
    for names, group in groups(rows, ["d", "rho"]):
        place = dimensions.index(names["d"]) + 0.25 * (rhos.index(names["rho"]) - (len(rhos) - 1) / 2)
        for kind, label, color, marker in _KINDS:
            ratio = column(group, kind) / column(group, "error")
            ratio = ratio[np.isfinite(ratio) & (ratio < _MOST)]
            style = {"color": color, "linestyle": "none", "markersize": 4 if marker != "_" else 7, "alpha": 0.8}
            ax.plot(np.full(len(ratio), place), ratio, marker=marker, label=label, **style)
    ax.axhline(1, color=GREY, linewidth=1, zorder=0)
    log_axes(ax, x=False)
