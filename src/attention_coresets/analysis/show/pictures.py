"""Two figures of any sweep: error against size, and size against 1/epsilon with the fitted laws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import Look, looks
from attention_coresets.analysis.figures.sizes import draw_sizes, name_marks
from attention_coresets.analysis.figures.style import log_axes, panel_grid, plain_ticks, shared_legend
from attention_coresets.analysis.show import numbers
from attention_coresets.analysis.show.shown import Shown
from attention_coresets.analysis.show.text import title
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.stats.sizes import INTERVAL

MOST_ARMS, MOST_PANELS = 10, 12
_COLUMNS, _PANEL = 3, (3.3, 2.7)


def drawn(shown: Shown, by: Sequence[str]) -> tuple[pd.DataFrame, Sequence[str]]:
    """The rows and the columns of the panels: the MOST_ARMS best arms, all settings in one panel where they are more
    than MOST_PANELS."""
    best = numbers.ranked(numbers.errors(shown.rows, by))[:MOST_ARMS]
    rows = shown.rows.loc[shown.rows["arm"].isin(best)]
    many = bool(by) and len(rows[list(by)].drop_duplicates()) > MOST_PANELS
    return rows, [] if many else by


def errors(rows: pd.DataFrame, by: Sequence[str]) -> Figure:
    """Median error over units with its 95 % interval against size, a panel for each combination of `by`."""
    found = numbers.errors(rows, by)
    panels = list(numbers.apart(found, by))
    figure, axes = panel_grid(len(panels), _COLUMNS, _PANEL, share=True)
    for ax, (names, panel) in zip(axes, panels, strict=True):
        for arm, style in looks(set(found["arm"])).items():
            _line(ax, panel.loc[panel["arm"] == arm], style)
        log_axes(ax)
        plain_ticks(ax, "x", distinct(found, "size"))
        ax.set(title=title(names), xlabel="size m", ylabel="worst-case error")
        ax.label_outer()
    shared_legend(figure, axes)
    return figure


def _line(ax: Axes, mine: pd.DataFrame, style: Look) -> None:
    value = column(mine, "error")
    ends = [column(mine, "low"), column(mine, "high")]
    spread = np.nan_to_num(np.stack([value - ends[0], ends[1] - value])).clip(0)
    ax.errorbar(
        column(mine, "size"), value, yerr=spread, color=style.color, marker=style.marker, elinewidth=0.8,
        label=style.label,
    )  # fmt: skip


def sizes(rows: pd.DataFrame, by: Sequence[str], records: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Sizes against 1/epsilon, a panel for each combination of `by`; dashed the law over the epsilons that the arm
    reaches, where the panel has one setting. None where no error is reached between the sizes measured."""
    asked = numbers.epsilons(rows, by, most=8)
    if not asked:
        return None
    found = numbers.sizes(rows, by, asked).assign(inverse=lambda sizes: 1 / sizes["epsilon"])
    panels = list(numbers.apart(found, by))
    figure, axes = panel_grid(len(panels), _COLUMNS, _PANEL, share=True)
    for ax, (names, panel) in zip(axes, panels, strict=True):
        here = numbers.where(rows, names)
        for arm, style in looks(set(found["arm"])).items():
            mine = panel.loc[panel["arm"] == arm]
            draw_sizes(ax, mine, "inverse", style)
            reached = column(mine.loc[mine["status"] == INTERVAL], "epsilon")
            law = numbers.predicted(here.loc[here["arm"] == arm], records, reached)
            if law is not None:
                ax.plot(1 / reached, law, "--", color=style.color, linewidth=1, zorder=2)
        name_marks(ax, panel)
        log_axes(ax)
        ax.set(title=title(names), xlabel="1/ε", ylabel="size m(ε)")
        ax.label_outer()
    shared_legend(figure, axes)
    return figure
