"""The language model: loss, divergence and facts found against tokens kept."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import in_order, look
from attention_coresets.analysis.figures.style import (
    GREY,
    log_axes,
    panel_grid,
    plain_ticks,
    shared_legend,
)
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, means, medians
from attention_coresets.analysis.topics.language_model.measures import LANGUAGE
from attention_coresets.analysis.topics.real_heads.caches import SEGMENT, named
from attention_coresets.analysis.topics.real_heads.figures import draw_line

_LINEAR, _LOSSES = 0.02, (0, 0.02, 0.05, 0.1, 0.3, 1, 3)  # up to where the axis of losses is linear, and its ticks
_ASIDE = 0.13  # how far the outermost arms stand from their size, in its logarithm


def real_language(results: Results) -> Figure:
    """Loss added, divergence and facts found against the share of the cache kept: means over segments of text, each
    segment a faint dot; arms stand side by side at every size, so that equal lines stay apart."""
    rows = named(results.rows(LANGUAGE))
    rows = rows.assign(added=rows["loss"] - rows["loss_full"])
    panels = [("added", "loss added, nats a token"), ("kl", "KL from the full cache, nats a token")]
    if not np.isnan(column(rows, "needle_found")).all():
        panels.append(("needle_found", "share of planted facts found"))
    figure, axes = panel_grid(len(panels), 3, (3.8, 3.2))
    for ax, (name, label) in zip(axes, panels, strict=True):
        _segments(ax, rows, name)
        log_axes(ax, y=name == "kl")
        if name == "added":  # some segments lose less than nothing
            ax.set_yscale("symlog", linthresh=_LINEAR, linscale=0.5)
            ax.set_ylim(min(0, column(rows, name).min()) - _LINEAR / 4, 1.4 * column(rows, name).max())
            plain_ticks(ax, "y", _LOSSES)
        plain_ticks(ax, "x", distinct(rows, "size"))
        ax.set(title=label, xlabel="tokens kept a KV head", ylabel=label.split(",")[0])
    if "needle_found" in dict(panels):
        full = float(np.mean(column(rows, "needle_found_full")))
        axes[-1].axhline(full, color=GREY, linestyle="--", linewidth=1.1, label="the full cache")
    shared_legend(figure, axes)
    return figure


def _segments(ax: Axes, rows: pd.DataFrame, name: str) -> None:
    """A line of means for each arm and a dot for each segment, arms of one size side by side."""
    arms = in_order(set(rows["arm"]))
    for aside, arm in zip(np.linspace(-_ASIDE, _ASIDE, len(arms)), arms, strict=True):
        found = medians(rows.loc[rows["arm"] == arm], [*SEGMENT, "size"], [name])
        x = column(found, "size") * np.exp(aside)
        ax.plot(x, column(found, name), ".", color=look(arm).color, alpha=0.5, markersize=5, markeredgewidth=0)
        mean = means(found, ["size"], [name])
        draw_line(ax, arm, column(mean, "size") * np.exp(aside), column(mean, name))
    count = len(rows[list(SEGMENT)].drop_duplicates())
    ax.plot([], [], ".", color=GREY, markersize=5, markeredgewidth=0, label=f"dots: segments of text ({count})")
