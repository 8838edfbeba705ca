"""Numbers and tables as Markdown, and the numbered blocks of a page that are generated."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from attention_coresets.analysis.summary import Estimate

_BLOCK = re.compile(r"(<!-- numbers:(?P<name>[\w-]+) -->\n).*?(<!-- /numbers:(?P=name) -->)", re.DOTALL)


def number(x: float) -> str:
    """Three significant digits; powers of ten below 0.001 and from 10 000; a dash for NaN."""
    if math.isnan(x):
        return "–"
    if x != 0 and not 1e-3 <= abs(x) < 1e4:
        mantissa, power = f"{x:.1e}".split("e")
        return f"{mantissa}e{int(power)}"
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"


def interval(found: Estimate) -> str:
    """ "1.02 [0.97, 1.08]"; without an interval the value alone."""
    if math.isnan(found.low):
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a pipe inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def block_names(text: str) -> list[str]:
    """Names between `<!-- numbers:NAME -->` and `<!-- /numbers:NAME -->`, in order."""
    return [found["name"] for found in _BLOCK.finditer(text)]


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """The page with each marked block replaced. ValueError names a block that nothing generates."""
    if unknown := [name for name in block_names(text) if name not in blocks]:
        raise ValueError(f"numbers:{unknown[0]} is no block that is generated; known: {', '.join(blocks)}")
    return _BLOCK.sub(lambda found: f"{found[1]}{blocks[found['name']]}\n{found[3]}", text)
