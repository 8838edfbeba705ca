"""Real heads: error against size by class of head, and what the exponent could be layer by layer."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets.analysis.figures.looks import TILTED, UNWEIGHTED, Look, in_order, look
from attention_coresets.analysis.figures.sizes import draw_band, name_bands, quantile_curves
from attention_coresets.analysis.figures.style import (
    GREY,
    headed,
    log_axes,
    new_figure,
    panel_grid,
    plain_ticks,
    shared_legend,
)
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians
from attention_coresets.analysis.topics.real_heads.caches import (
    ERRORS,
    HEAD,
    HEADS,
    HEURISTICS,
    OURS,
    has_sink,
    named,
)

SHOWN = (*HEURISTICS, "sinks_uniform", "walk_tilted", "query_walk", OURS)
COLUMNS = ("heldout_mean", "heldout_p99", "error")
_THICK = ("walk_tilted", "query_walk", OURS)


def real_errors(results: Results) -> Figure:
    """Median error over heads against size: a row of panels for heads with an attention sink and one for the others;
    ours has a band over the middle half of the heads."""
    rows = named(results.rows(HEADS))
    rows = rows.loc[rows["arm"].isin(SHOWN)]
    sink = has_sink(rows)
    classes = [
        (words, part) for words, part in (("attention sink", rows.loc[sink]), ("no sink", rows.loc[~sink])) if len(part)
    ]
    figure, axes = panel_grid(len(classes) * len(COLUMNS), len(COLUMNS), (3.4, 2.7))
    for place, ax in enumerate(axes):
        words, part = classes[place // len(COLUMNS)]
        name = COLUMNS[place % len(COLUMNS)]
        _errors(ax, part, name)
        ax.set_title(f"{ERRORS[name]}\n{words}: {len(part[list(HEAD)].drop_duplicates())} heads")
    headed(figure, "Real heads: tokens and weights fitted to the model's own queries err least at its later queries")
    shared_legend(figure, axes)
    return figure


def _errors(ax: Axes, rows: pd.DataFrame, name: str) -> None:
    per_head = medians(rows, [*HEAD, "arm", "size"], [name])
    for arm in in_order(set(per_head["arm"])):
        x, (low, middle, high) = quantile_curves(per_head.loc[per_head["arm"] == arm], name, (0.25, 0.5, 0.75))
        _draw_line(ax, arm, x, middle)
        if arm == OURS:
            draw_band(ax, x, low, high, look(arm).color)
    name_bands(ax, "band: ours, middle half of the heads")
    log_axes(ax)
    plain_ticks(ax, "x", distinct(rows, "size"))
    ax.set(xlabel="tokens kept m", ylabel="error, values of norm ≤ 1")


def real_geometry(results: Results) -> Figure:
    """What the exponent could be: by the norms, by the logits, by T and Gamma, layer by layer; and maps of log T."""
    heads = results.heads
    assert heads is not None, "scripts/figures.py asks for heads.parquet"
    texts = distinct(heads, "text")
    figure = new_figure(9.6, 3.6 + 0.9 * len(texts))
    grid = figure.add_gridspec(1 + len(texts), 2, height_ratios=[3.2] + [0.9] * len(texts))
    _exponents(figure.add_subplot(grid[0, 0]), heads)
    _covered(figure.add_subplot(grid[0, 1]), heads)
    low, high = column(heads, "log_total_sensitivity").min(), column(heads, "log_total_sensitivity").max()
    for row, (names, part) in enumerate(groups(heads, ["text"])):
        ax = figure.add_subplot(grid[1 + row, :])
        table = part.pivot_table(index="kv_head", columns="layer", values="log_total_sensitivity")
        image = ax.imshow(table.to_numpy(), aspect="auto", cmap="viridis", vmin=low, vmax=high)
        ax.set(title=f"log T of each head, text: {names['text']}", ylabel="KV head", yticks=range(len(table)))
        ax.set_xticks(range(0, table.shape[1], 2), [f"{layer:g}" for layer in table.columns[::2]])
        figure.colorbar(image, ax=ax, pad=0.01, label="nats")
    headed(figure, "What a head's queries do look at (log T) is far less than what the norms allow (ρ)")
    figure.axes[-2].set_xlabel("layer")  # the last map's; its colour bar is the last
    return figure


_CURVES = (
    ("rho_uncentred", "ρ, keys as they are", "#949494", "s"),
    ("rho_centred", "ρ, keys centred", UNWEIGHTED, "s"),
    ("rho_query_linear", "ρ, best map, queries centred", "#ca9161", "s"),
    ("exponent_query_linear", "ρσ of the tilt there", "#cc78bc", "P"),
    ("half_range", "half-range of logits", "#56b4e9", "d"),
    ("log_gamma", "log Γ, 512 calibration queries", "#029e73", "D"),
    ("log_gamma_sensitivity", "log T, the same 512", "black", "o"),
    ("log_total_sensitivity", "log T, all calibration queries", TILTED, "o"),
)


def _exponents(ax: Axes, heads: pd.DataFrame) -> None:
    """Median over KV heads and texts of each candidate, by layer."""
    heads = heads.assign(**{f"log_{name}": np.log(heads[name]) for name in ("gamma", "gamma_sensitivity")})
    for name, label, color, marker in _CURVES:
        by_layer = medians(heads, ["layer"], [name])
        ax.plot(
            column(by_layer, "layer"), column(by_layer, name), color=color, marker=marker, label=label, markersize=3
        )
    ax.axhline(np.log(column(heads, "n").max()), color=GREY, linestyle="--", linewidth=1.1, label="log n")
    log_axes(ax, x=False)
    low, high = ax.get_ylim()
    ax.set(title="what the exponent could be (median over heads)", xlabel="layer", ylabel="nats", ylim=(low, high * 6))
    ax.legend(fontsize=6.5, loc="upper right", ncols=2)


def _covered(ax: Axes, heads: pd.DataFrame) -> None:
    """Attention of held-out queries on tokens that calibration underestimates, a mark a head, and the sink's weight."""
    for name, label, color, marker in (
        ("sink_weight", "weight of the first token", GREY, "s"),
        ("uncovered_2", "on tokens underrated 2 times", TILTED, "o"),
        ("uncovered_10", "on tokens underrated 10 times", UNWEIGHTED, "D"),
    ):
        ax.plot(column(heads, "layer"), column(heads, name), marker, color=color, label=label, markersize=3, alpha=0.7)
    ax.set(title="share of later queries' attention, a mark a head", xlabel="layer", ylabel="share", ylim=(-0.02, 1.05))
    ax.legend(fontsize=6.5, loc="center left")


def _own_look(arm: str) -> Look:
    """The look of an arm, but for sinks + uniform, whose green would be taken for ours."""
    return replace(look(arm), color="#332288") if arm == "sinks_uniform" else look(arm)


def _draw_line(ax: Axes, arm: str, x: Sequence[float] | np.ndarray, y: np.ndarray) -> None:
    """One arm's line, thick if the figure is about it."""
    style, thick = _own_look(arm), arm in _THICK
    ax.plot(
        x, y, color=style.color, marker=style.marker, label=style.label, zorder=4 if thick else 3,
        linewidth=2.0 if thick else 0.9, markersize=4.5 if thick else 3.5,
    )  # fmt: skip
