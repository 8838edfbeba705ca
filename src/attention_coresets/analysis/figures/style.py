"""How every figure looks: axes, grey guides, labelled lines, legends, file formats."""

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from PIL import Image

RC: dict[Any, Any] = {
    "pdf.fonttype": 42,  # fonts embedded as TrueType: text stays text
    "ps.fonttype": 42,
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}
PLAIN_DECADES = 1.7
GREY = "0.55"


def style() -> AbstractContextManager[None]:
    """The context in which a figure is made and saved."""
    return matplotlib.rc_context(RC)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, apart from pyplot's global state."""
    return Figure(figsize=(width, height), layout="constrained")


def headed(figure: Figure, title: str) -> None:
    """Writes above all panels, at the left and broken into lines, what the figure shows."""
    text = textwrap.fill(title, int(11.5 * figure.get_figwidth()))
    figure.suptitle(text, x=0.01, ha="left", fontsize=10, fontweight="bold")


def panel_grid(
    count: int, columns: int, size: tuple[float, float], *, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each of `size` inches, in rows of at most `columns`, with room for a legend below."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = new_figure(size[0] * columns, size[1] * lines + 0.6)
    axes: list[Axes] = list(figure.subplots(lines, columns, squeeze=False, sharex=share, sharey=share).flat)
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


def log_axes(ax: Axes, *, x: bool = True, y: bool = True) -> None:
    """Log scales with decades as powers of ten, or plain 1-2-5 ticks where fewer than two decades are shown."""
    for wanted, name in ((x, "x"), (y, "y")):
        if wanted:
            _log_axis(ax, name)
    ax.grid(True, which="major", color="0.92", linewidth=0.6)


def _log_axis(ax: Axes, name: str) -> None:
    axis, limits = (ax.xaxis, ax.get_xlim) if name == "x" else (ax.yaxis, ax.get_ylim)
    ax.set(**{f"{name}scale": "log"})

    def decades() -> float:
        low, high = limits()
        return math.log10(high / low)

    def power(value: float, _: int) -> str:
        return f"{value:g}" if decades() < PLAIN_DECADES else f"$10^{{{round(math.log10(value))}}}$"

    axis.set_major_formatter(FuncFormatter(power))
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if decades() < PLAIN_DECADES else ""))


def plain_ticks(ax: Axes, axis: str, values: Sequence[float | int]) -> None:
    """Ticks at the measured values alone, in plain numbers; of many, every second."""
    shown = list(values)[:: 1 + (len(values) - 1) // 7]
    one = ax.xaxis if axis == "x" else ax.yaxis
    one.set_major_locator(FixedLocator(shown))
    one.set_minor_locator(NullLocator())
    one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def guide(ax: Axes, x: np.ndarray, y: np.ndarray, label: str, style: str = "--") -> None:
    """Theory: a grey line behind the data with its formula in the legend."""
    ax.plot(x, y, style, color=GREY, linewidth=1.1, zorder=1, label=label)


class End(NamedTuple):
    """A text for the right end (x, y) of a line."""

    x: float
    y: float
    text: str
    color: str


def label_ends(ax: Axes, ends: Sequence[End], gap: float = 0.07) -> None:
    """Writes the texts right of their lines' ends on a log y-axis, pushed apart where they would collide.

    `gap` is the least distance, as a share of the axes' height. Call it when the limits are final.
    """
    low, high = np.log(ax.get_ylim())
    shown = sorted((end for end in ends if end.text), key=lambda end: end.y)
    heights: list[float] = []
    for end in shown:
        wanted = float((np.log(end.y) - low) / (high - low))
        heights.append(max(wanted, heights[-1] + gap) if heights else wanted)
    over = max(0.0, heights[-1] - 0.98) if heights else 0.0
    for end, height in zip(shown, heights, strict=True):
        ax.annotate(
            end.text,
            (end.x, height - over),
            xytext=(5, 0),
            textcoords="offset points",
            xycoords=ax.get_xaxis_transform(),
            color=end.color,
            va="center",
            fontsize=7.5,
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8},
        )


def shared_legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend under the panels, each entry once, in as many columns as the figure is wide."""
    entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    columns = max(1, min(len(entries), int(figure.get_figwidth() / 2.8)))
    figure.legend([*entries.values()], [*entries], loc="outside lower center", ncols=columns)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """NAME.png (150 dpi, 256 colours: small enough to commit) and NAME.pdf; the bytes do not depend on the time."""
    folder.mkdir(parents=True, exist_ok=True)
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    with io.BytesIO() as buffer:
        figure.savefig(buffer, dpi=150, format="png")
        Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(png, optimize=True)
    figure.savefig(pdf, metadata={"CreationDate": None})
    return [png, pdf]
