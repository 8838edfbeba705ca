"""The antipodal pair: sizes against rho, the floor of unweighted subsets and the tilted bound."""

import numpy as np
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import in_order, look
from attention_coresets.analysis.figures.sizes import (
    draw_sizes,
    name_marks,
    sizes_at,
)
from attention_coresets.analysis.figures.style import (
    guide,
    headed,
    log_axes,
    new_figure,
    plain_ticks,
    shared_legend,
)
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, medians
from attention_coresets.analysis.stats.sizes import LEFT
from attention_coresets.analysis.topics.hard_instances.antipodal import EPSILONS, antipodal_floor, antipodal_rows

_ASIDE = 0.03  # in rho, to the left: the floor grows with rho
_FLOOR = r"floor of unweighted subsets, $\approx e^{2\rho}$"


def antipodal(results: Results) -> Figure:
    """m(epsilon) against rho on the antipodal pair with values = keys, a panel for each epsilon, with the floor of
    unweighted subsets and the tilted bound. Bars hold m(epsilon), marks are at their upper ends: sizes that were seen
    to do, so that none lies below a proven floor. Arms stand side by side, the last left of the floor's rho."""
    rows = antipodal_rows(results)
    figure = new_figure(3.5 * len(EPSILONS) + 0.4, 3.8)
    axes = figure.subplots(1, len(EPSILONS), squeeze=False, sharey=True)[0]
    tilted = medians(rows, ["rho"], ["sigma", "n", "d"])
    rhos = column(tilted, "rho")
    places = list(zip(tilted["n"].astype(int).tolist(), rhos.tolist(), strict=True))
    for ax, epsilon in zip(axes, EPSILONS, strict=True):
        for place, arm in enumerate(in_order(set(rows["arm"]))):
            sizes = sizes_at(rows.loc[rows["arm"] == arm], ["rho"], [epsilon], everywhere=True)
            sizes = sizes.assign(rho=sizes["rho"] - _ASIDE * place)
            draw_sizes(ax, sizes, "rho", look(arm), at="hi")
            small = sizes.loc[sizes["status"] == LEFT]
            ax.plot(column(small, "rho"), column(small, "middle"), color=look(arm).color, linewidth=0.8, linestyle=":")
            name_marks(ax, sizes)
        floor = np.array([antipodal_floor(n, rho, epsilon) or np.nan for n, rho in places])
        guide(ax, rhos, floor, _FLOOR)
        bound = np.sqrt(column(tilted, "d")) * np.exp(rhos * column(tilted, "sigma")) / epsilon
        guide(ax, rhos, bound, r"tilted bound $\sqrt{d}\,e^{\rho\sigma}/\varepsilon$", ":")
        log_axes(ax, x=False)
        plain_ticks(ax, "x", rhos.tolist())
        ax.set(title=f"error ε = {epsilon:g}", xlabel="query radius ρ")
    axes[0].set_ylabel("size m(ε), tokens")
    headed(
        figure,
        "Keys in two opposite points: without weights a subset needs a size like e^(2ρ), with weights a few tokens do",
    )
    shared_legend(figure, axes)
    return figure
