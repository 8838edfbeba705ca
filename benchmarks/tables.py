"""Results as tables: cells for the terminal, and the same as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attention_coresets.analysis.parts.markdown import number, table
from benchmarks.records import Part, Ratio, Row

Table = tuple[list[str], list[list[str]]]  # head, lines


def seconds(x: float | None) -> str:
    """Three digits with the unit that suits: "1.23 s", "15.8 ms", "420 µs"."""
    if x is None:
        return "–"
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if x >= size:
            return f"{number(x / size)} {unit}"
    return f"{number(x * 1e6)} µs"


def size(x: float | None) -> str:
    """Bytes as KiB, MiB or GiB."""
    if x is None:
        return "–"
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if x >= 2**power:
            return f"{number(x / 2**power)} {unit}"
    return f"{number(x / 2**10)} KiB"


def rate(x: float | None) -> str:
    """Operations a second, in units of 10^9."""
    return "–" if x is None else number(x / 1e9)


def ratios(found: Iterable[Ratio]) -> Table:
    """What was compared, the median with its range over rounds, the target and whether it is met."""
    head = ["Comparison", "Median [range]", "Target", "Verdict"]
    return head, [[one.name, _spread(one), one.target or "–", _verdict(one)] for one in found]


def _spread(one: Ratio) -> str:
    if one.value is None:
        return "–"
    if one.low is None or one.high is None or one.low == one.high:
        return number(one.value)
    return f"{number(one.value)} [{number(one.low)}, {number(one.high)}]"


def _verdict(one: Ratio) -> str:
    return f"{one.verdict}: {one.note}" if one.note else one.verdict or "–"


def rows(found: Sequence[Row]) -> Table:
    """One line a row; columns that no row fills are left out."""
    head = ["Task", "", "n", "m", "d", "heads", "Median [range] of repeats", "Rate, 10⁹/s", "Peak memory", "Error"]
    lines = [
        [
            *(one.case, one.who, str(one.n), _whole(one.m), _whole(one.d), str(one.heads)),
            one.note or f"{seconds(one.seconds)} [{seconds(one.fastest)}, {seconds(one.slowest)}] of {one.repeats}",
            *(rate(one.rate), size(one.memory), "–" if one.error is None else number(one.error)),
        ]
        for one in found
    ]
    used = [k for k in range(len(head)) if any(line[k] not in ("–", "") for line in lines)]
    return [head[k] for k in used], [[line[k] for k in used] for line in lines]


def _whole(x: int | None) -> str:
    return "–" if x is None else str(x)


def fits(found: Iterable[Mapping[str, Any]]) -> Table:
    """A line a construction: exponent ± standard error (stated) of time and memory, and what exceeds its statement."""
    by_name: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for one in found:
        by_name.setdefault(one["construction"], {})[one["quantity"], one["variable"]] = one
    keys = list(dict.fromkeys(key for mine in by_name.values() for key in mine))
    keys.sort(key=lambda key: (key[0] != "time", "nmd".index(key[1])))
    head = ["Construction", *(f"{quantity} in {variable}" for quantity, variable in keys), "Grows as stated"]
    lines = [
        [name, *(_exponent(mine.get(key)) for key in keys), _growth(mine)] for name, mine in sorted(by_name.items())
    ]
    return head, lines


def _exponent(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "–"
    stated = "" if one["stated"] is None else f" ({one['stated']:g})"
    if "exponent" not in one:
        return f"{one['verdict']}{stated}"
    return f"{one['exponent']:.2f} ± {one['error']:.2f}{stated}"


def _growth(mine: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    above = [f"no: {quantity} in {variable}" for (quantity, variable), one in mine.items() if one["verdict"] == "ABOVE"]
    judged = [one for one in mine.values() if one["verdict"] in ("as stated", "below")]
    return ", ".join(above) or ("yes" if judged else "undecided")


def aligned(content: Table) -> str:
    """A table for the terminal: columns padded, two spaces between."""
    lines = [content[0], *content[1]]
    widths = [max(len(line[k]) for line in lines) for k in range(len(content[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(content: Table) -> str:
    """The same as a Markdown table."""
    return table(*content)


def tables_of(part: Part) -> list[Table]:
    """Ratios, rows and fits of a part, those that it has."""
    every = [ratios(part.ratios), rows(part.rows), fits(part.fits)]
    return [one for one in every if one[1]]
