"""What the upper bound leaves open: its constant."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.lines import name_lines, strip
from attention_coresets.analysis.figures.looks import family, in_order, look
from attention_coresets.analysis.figures.style import GREY, headed, log_axes, new_figure, shared_legend
from attention_coresets.analysis.parts.constant import with_constants
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups

ISSUE_LIMIT = 0.7  # what m err / (sqrt(d) e^rho) of the tilted walk was asked to stay below


def constant(results: Results) -> Figure:
    """m err / (sqrt(d) e^{rho sigma}) and with e^rho of every cache and size, a column for each rho, a row for each
    family; large marks are medians."""
    rows = with_constants(results.rows("constant"))
    rhos, families = distinct(rows, "rho"), distinct(rows, "cache")
    figure = new_figure(3.2 * len(rhos) + 1.2, 2 * (0.42 * len(families) + 0.9) + 0.4)
    axes = figure.subplots(2, len(rhos), squeeze=False, sharex=True, sharey=True)
    sigma, rho_only = (rf"$m\cdot\mathrm{{err}}\,/\,(\sqrt{{d}}\,e^{{{x}}})$" for x in (r"\rho\sigma", r"\rho"))
    kinds = (
        ("constant_sigma", sigma, 1.0, "size = √d e^(ρσ)/ε"),
        ("constant_rho", rho_only, ISSUE_LIMIT, "limit set for the tilted walk"),
    )
    for line, (name, label, limit, said) in zip(axes, kinds, strict=True):
        for ax, rho in zip(line, rhos, strict=True):
            _strips(ax, rows.loc[rows["rho"] == rho], name, "cache", families)
            ax.axvline(limit, color=GREY, linestyle="--", linewidth=1.1, zorder=1)
            words = f"{limit:g}: {said}"
            ax.annotate(
                words, (limit, 1), xycoords=ax.get_xaxis_transform(), color="0.4", ha="center", va="bottom", fontsize=7
            )
            ax.set_title(f"ρ = {rho:g}", pad=14)
            ax.set(xlabel=label)
            ax.tick_params(labelbottom=True)
    headed(
        figure,
        "At d = 8 the tilted walk needs fewer tokens than √d e^(ρσ)/ε on every family, in the median"
        " (further left: fewer)",
    )
    shared_legend(figure, axes.flat)
    return figure


def _strips(ax: Axes, rows: pd.DataFrame, name: str, by: str, lines: list[str]) -> None:
    """A line for each value of `by`: small dots for rows, a large mark for each arm's median, arms side by side."""
    arms = in_order(set(rows["arm"]))
    for names, group in groups(rows, [by, "arm"]):
        style = look(names["arm"])
        y = lines.index(names[by]) + 0.22 * (arms.index(names["arm"]) - (len(arms) - 1) / 2)
        strip(ax, y, column(group, name), style, style.label)
    log_axes(ax, y=False)
    name_lines(ax, [family(line) for line in lines])
