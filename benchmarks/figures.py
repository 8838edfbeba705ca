"""Time and memory against n, log-log: ours beside peers and limits, and every construction by its stated order."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_coresets import CORESETS
from attention_coresets.analysis.figures.style import (
    End,
    guide,
    label_ends,
    log_axes,
    panel_grid,
    plain_ticks,
    save,
    shared_legend,
    style,
)
from benchmarks.constructions import BASE, LEAST_MEMORY
from benchmarks.exponents import exponent
from benchmarks.records import LIMIT, Part, Row
from benchmarks.stated import STATED
from benchmarks.store import Measured

FIGURES = Path(__file__).resolve().parent.parent / "figures" / "benchmarks"
COLORS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#56b4e9", "#949494")
MARKERS = "osDPX*hp"
Looks = dict[str, tuple[str, str]]
PANELS = {"walk": "Gram–Schmidt walk", "halving": "kernel halving", "thin": "thinning", "compress": "Compress"}
GROUPS = {
    "eviction": "eviction heuristics (stated: linear in n)",
    "1": "stated: linear in n",
    "2": "stated: n²",
    "3": "stated: n³",
    "unstated": "no order stated",
}


def draw(measured: Measured, folder: Path = FIGURES) -> list[Path]:
    """NAME-peers and NAME-constructions as PNG and PDF, those that have something to show."""
    name = measured.name if measured.tier == "full" else f"{measured.name}-{measured.tier}"
    with style():
        made = {"peers": peers(measured.parts), "constructions": constructions(measured)}
        return [path for kind, figure in made.items() if figure for path in save(figure, folder, f"{name}-{kind}")]


def peers(parts: dict[str, Part]) -> Figure | None:
    """A panel for each comparison: one problem at a time, medians over repeats, bars from fastest to slowest."""
    shown = {title: parts[name].rows for name, title in PANELS.items() if name in parts}
    if not shown:
        return None
    figure, axes = panel_grid(len(shown), 2, (4.4, 3.1))
    looks = _looks(row.case for rows in shown.values() for row in rows)
    for ax, (title, rows) in zip(axes, shown.items(), strict=True):
        _lines(ax, [row for row in rows if row.heads == 1 and row.seconds is not None], looks)
        ax.set(title=title, xlabel="tokens n", ylabel="seconds")
    shared_legend(figure, axes)
    return figure


def constructions(measured: Measured) -> Figure | None:
    """A row of panels for each stated order in n: seconds, and peak memory beyond the input where it is not tiny."""
    parts, base = measured.parts, BASE[measured.tier]
    if "constructions" not in parts:
        return None
    rows = [row for row in parts["constructions"].rows if (row.m, row.d) == (base["m"], base["d"])]
    groups = [group for group in GROUPS if any(_group(row) == group for row in rows)]
    figure, axes = panel_grid(2 * len(groups), 2, (5.2, 3.4))
    looks = _looks(row.case for row in rows)
    limits = parts["limits"].rows if "limits" in parts else []
    for place, group in enumerate(groups):
        left, right = axes[2 * place : 2 * place + 2]
        mine = [row for row in rows if _group(row) == group]
        _lines(left, [*mine, *(limits if group in ("2", "3") else [])], looks)
        left.set(title=GROUPS[group], xlabel="tokens n", ylabel="seconds")
        _lines(right, [row for row in mine if (row.memory or 0) >= LEAST_MEMORY], looks, "memory")
        right.set(xlabel="tokens n", ylabel="peak memory, MiB")
    shared_legend(figure, axes)
    return figure


def _group(row: Row) -> str:
    """The row's panel: eviction heuristics apart, the others by their stated power of n."""
    name = row.case.split(",")[0]
    if name in CORESETS and CORESETS[name]().in_model_units:
        return "eviction"
    return f"{STATED[name].time['n']:g}" if name in STATED else "unstated"


def _looks(cases: Iterable[str]) -> Looks:
    """Colour and marker of each task, no two alike up to 64."""
    count = len(COLORS)
    return {
        case: (COLORS[k % count], MARKERS[(k + k // count) % len(MARKERS)])
        for k, case in enumerate(dict.fromkeys(cases))
    }


def _lines(ax: Axes, rows: Sequence[Row], looks: Looks, quantity: str = "seconds") -> None:
    """A line a task with its fitted exponent at the end; limits as grey guides behind."""
    ends, sizes, place = [], set(), 0
    for case in dict.fromkeys(row.case for row in rows):
        points = sorted(_points(row, quantity) for row in rows if row.case == case)
        points = [point for point in dict(zip([p[0] for p in points], points, strict=True)).values() if point[1] > 0]
        if not points:
            continue
        n, middle, low, high = np.array(points).T
        if next(row.who for row in rows if row.case == case) == LIMIT:
            guide(ax, n, middle, case, ("--", ":", "-.")[place % 3])
            place += 1
            continue
        color, marker = looks[case]
        ax.fill_between(n, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(n, middle, color=color, marker=marker, label=case, zorder=3)
        ends.append(End(float(n[-1]), float(middle[-1]), _slope(n, low), color))
        sizes |= set(n.tolist())
    log_axes(ax)
    if sizes:
        ax.set_xlim(min(sizes) * 0.85, max(sizes) * (max(sizes) / min(sizes)) ** 0.45 * 1.3)
        plain_ticks(ax, "x", sorted(sizes))
    label_ends(ax, ends)


def _points(row: Row, quantity: str) -> tuple[float, float, float, float]:
    if quantity == "memory":
        peak = (row.memory or 0) / 2**20
        return row.n, peak, peak, peak
    return row.n, row.seconds or 0.0, row.fastest or 0.0, row.slowest or 0.0


def _slope(n: np.ndarray, cost: np.ndarray) -> str:
    found = exponent(n.tolist(), cost.tolist())
    return "" if found is None else f"n^{found.value:.2f} ± {found.error:.2f}"
