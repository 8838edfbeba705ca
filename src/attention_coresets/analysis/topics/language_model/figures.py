"""The language model: loss, divergence and facts found by each arm, at each number of tokens kept."""

import numpy as np
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.lines import means_by_size, name_lines
from attention_coresets.analysis.figures.looks import look
from attention_coresets.analysis.figures.style import GREY, headed, log_axes, new_figure, plain_ticks, shared_legend
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, medians
from attention_coresets.analysis.topics.language_model.measures import LANGUAGE
from attention_coresets.analysis.topics.real_heads.caches import SEGMENT, named

_LINEAR, _LOSSES = 0.02, (0, 0.02, 0.1, 0.3, 1, 3)  # up to where the axis of losses is linear, and its ticks
_LINE = 0.3  # inches


def real_language(results: Results) -> Figure:
    """Loss added, divergence and facts found, a line for each arm, the least divergence first, and on it the mean over
    segments of text at each number of tokens kept; each segment is a faint dot."""
    rows = named(results.rows(LANGUAGE))
    rows = rows.assign(added=rows["loss"] - rows["loss_full"])
    rows = medians(rows, [*SEGMENT, "n", "arm", "size"], ["added", "kl", "needle_found", "needle_found_full"])
    panels = [("added", "loss added, nats a token"), ("kl", "KL from the full cache, nats a token")]
    if np.isfinite(column(rows, "needle_found")).any():
        panels.append(("needle_found", "share of planted facts found"))
    arms = sorted(distinct(rows, "arm"), key=lambda arm: (column(rows.loc[rows["arm"] == arm], "kl").mean(), arm))
    sizes = {size: f"{size} tokens kept of {column(rows, 'n').max():g}" for size in distinct(rows, "size")[::-1]}
    figure = new_figure(10.2, _LINE * len(arms) + 1.5)
    axes = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
    for ax, (name, label) in zip(axes, panels, strict=True):
        means_by_size(ax, rows, name, arms, sizes)
        log_axes(ax, x=name == "kl", y=False)
        if name == "added":  # some segments lose less than nothing
            ax.set_xscale("symlog", linthresh=_LINEAR, linscale=0.5)
            ax.set_xlim(min(0, column(rows, name).min()) - _LINEAR / 4, 1.4 * column(rows, name).max())
            plain_ticks(ax, "x", _LOSSES)
        ax.set(xlabel=label)
    name_lines(axes[0], [look(arm).label for arm in arms])
    if len(panels) > 2:
        full = float(np.mean(column(rows, "needle_found_full")))
        axes[-1].axvline(full, color=GREY, linestyle="--", linewidth=1.1, label="the full cache")
    count = len(rows[list(SEGMENT)].drop_duplicates())
    axes[0].plot([], [], ".", color=GREY, markersize=5, markeredgewidth=0, label=f"faint: single texts ({count})")
    headed(
        figure,
        "A language model on coresets: loss and divergence added (further left is better), and planted facts found",
    )
    shared_legend(figure, axes)
    return figure
