"""Measured sizes m(epsilon) against one variable: intervals between grid sizes, open triangles where censored."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attention_coresets.analysis.figures.looks import Look
from attention_coresets.analysis.stats.crossings import crossings
from attention_coresets.analysis.stats.frames import column, groups
from attention_coresets.analysis.stats.plan import EPSILON_MAX, Regime, regime_rows
from attention_coresets.analysis.stats.sizes import INTERVAL, LEFT, RIGHT, size_table

BAND_ALPHA = 0.18
# status of a censored size -> its open triangle and what it says; used are the sizes inside the regime of the fits
CENSORED = {RIGHT: ("^", "above the largest size used"), LEFT: ("v", "at most the smallest size used")}
CACHES_BAND = "bands: 10 to 90 % of caches"
LATTICE = tuple((EPSILON_MAX * 2.0 ** (-np.arange(40) / 2)).tolist())


def sizes_at(
    rows: pd.DataFrame, by: Sequence[str], epsilons: Sequence[float], *, everywhere: bool = False
) -> pd.DataFrame:
    """The size whose median error over caches is at most epsilon, for each arm and combination of `by`.

    Columns of `size_table` and `middle` (see `crossings`). Sizes outside the regime of the fits count as not measured,
    unless `everywhere`.
    """
    if not everywhere:
        rows = rows.loc[regime_rows(rows, Regime())]
    keys = ["arm", *by]
    sizes = size_table(rows, list(epsilons), keys, max_size=None)
    curve = rows.groupby([*keys, "size"], as_index=False)["error"].quantile(0.5, interpolation="lower")
    return crossings(sizes, pd.DataFrame(curve), keys)


def best_epsilon(rows: pd.DataFrame, by: Sequence[str], epsilons: Sequence[float] = LATTICE) -> float:
    """Of `epsilons` the error that the measured sizes resolve for most arms and values; of equals the middle."""
    sizes = sizes_at(rows, by, epsilons)
    resolved = [int((sizes.loc[sizes["epsilon"] == e, "status"] == INTERVAL).sum()) for e in epsilons]
    best = np.flatnonzero(np.array(resolved) == max(resolved))
    return float(epsilons[best[len(best) // 2]])


def draw_sizes(ax: Axes, sizes: pd.DataFrame, x: str, look: Look, at: str = "middle") -> None:
    """One arm's sizes against the column x: a bar over each interval with a mark at its column `at`, open triangles at
    the finite end of a censored one."""
    inside = sizes.loc[sizes["status"] == INTERVAL]
    marks = column(inside, at)
    spread = np.stack([marks - column(inside, "lo"), column(inside, "hi") - marks]).clip(0)
    ax.errorbar(
        column(inside, x), marks, yerr=spread, color=look.color, marker=look.marker, linewidth=1.4,
        elinewidth=0.8, label=look.label, zorder=3,
    )  # fmt: skip
    for status, (marker, _) in CENSORED.items():
        off = sizes.loc[sizes["status"] == status]
        ax.plot(column(off, x), column(off, "middle"), marker, color=look.color, markerfacecolor="none", zorder=3)


def name_marks(ax: Axes, sizes: pd.DataFrame) -> None:
    """Entries of the legend for the bars of `draw_sizes` and for each kind of triangle that `sizes` has."""
    if INTERVAL in set(sizes["status"]):
        ax.plot([], [], "|", color="0.35", markersize=10, label="bars: the sizes tried between which m(ε) lies")
    for status, (marker, words) in CENSORED.items():
        if status in set(sizes["status"]):
            ax.plot([], [], marker, color="0.35", markerfacecolor="none", label=words)


def draw_band(ax: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> None:
    ax.fill_between(x, low, high, color=color, alpha=BAND_ALPHA, linewidth=0)


def name_bands(ax: Axes, words: str) -> None:
    """An entry of the legend for the bands of all colours."""
    ax.fill([], [], color="0.35", alpha=2 * BAND_ALPHA, linewidth=0, label=words)


def quantile_curves(rows: pd.DataFrame, name: str, shares: Sequence[float]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sizes, and at each share the quantile over the rows of each size."""
    grouped = [(names["size"], column(group, name)) for names, group in groups(rows, ["size"])]
    x = np.array([size for size, _ in grouped], dtype=float)
    return x, [np.array([np.quantile(values, share) for _, values in grouped]) for share in shares]
