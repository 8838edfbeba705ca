"""Numbers and tables as Markdown, and the numbered blocks of a page that are generated."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from attention_coresets.analysis.stats.estimates import Estimate

# on lines of its own, or inside a line
_BLOCK = re.compile(
    r"(<!-- numbers:(?P<name>[\w-]+) -->)(?P<own>\n?)(?P<content>.*?)(<!-- /numbers:(?P=name) -->)", re.DOTALL
)
_STARTS_A_LINE = re.compile(r"^[ \t]*(?:[-*] )?<!-- numbers:(?P<name>[\w-]+) -->(?!\n)", re.MULTILINE)

_ROUNDING = 1e-14  # what is smaller, a slope of equal numbers say, is rounding: each processor has its own digits


def number(x: float) -> str:
    """Three significant digits; powers of ten below 0.001 and from 10 000; 0 below 1e-14; a dash for NaN."""
    if math.isnan(x):
        return "–"
    if abs(x) < _ROUNDING:
        return "0"
    if not 1e-3 <= abs(x) < 1e4:
        mantissa, power = f"{x:.1e}".split("e")
        return f"{mantissa}e{int(power)}"
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"


def interval(found: Estimate) -> str:
    """ "1.02 [0.97, 1.08]"; the value alone without an interval, or where all that it would be of have the same."""
    if math.isnan(found.low) or found.low == found.high:
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def size_between(lo: float, hi: float) -> str:
    """A size known up to the grid: "(64, 128]"; "≤ 32" and "> 256" where it lies outside the sizes measured."""
    if math.isinf(hi):
        return f"> {lo:g}"
    return f"≤ {hi:g}" if lo == 0 else f"({lo:g}, {hi:g}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a pipe inside a cell is escaped."""
    lines = [head, ["-"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def block_names(text: str) -> list[str]:
    """Names between `<!-- numbers:NAME -->` and `<!-- /numbers:NAME -->`, in order."""
    return [found["name"] for found in _BLOCK.finditer(text)]


def contents(text: str) -> dict[str, str]:
    """What each block holds now."""
    return {found["name"]: found["content"].strip("\n") for found in _BLOCK.finditer(text)}


def without_blocks(text: str) -> str:
    """The page with its blocks blanked out, markers too: every other character keeps its place and line."""
    return _BLOCK.sub(lambda found: blanked(found[0]), text)


def blanked(text: str) -> str:
    """Spaces in place of everything but line ends."""
    return re.sub(r"[^\n]", " ", text)


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """The page with each marked block replaced: what stands between its markers, which are on lines of their own or,
    for a few words, inside a line. ValueError names a block that nothing generates, and one inside a line that it
    begins: Markdown takes such a line for HTML."""
    if unknown := [name for name in block_names(text) if name not in blocks]:
        raise ValueError(f"numbers:{unknown[0]} is no block that is generated; known: {', '.join(blocks)}")
    if first := _STARTS_A_LINE.search(text):
        raise ValueError(f"numbers:{first['name']} begins a line: put a word before it, or the marker on its own line")
    return _BLOCK.sub(lambda found: f"{found[1]}{found['own']}{blocks[found['name']]}{found['own']}{found[5]}", text)
