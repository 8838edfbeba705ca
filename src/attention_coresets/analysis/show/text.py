"""The tables of `numbers` for a terminal, each with what its columns mean."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attention_coresets.analysis.figures.looks import in_order
from attention_coresets.analysis.parts.exponents import SYMBOLS, coefficient
from attention_coresets.analysis.parts.markdown import interval, number, size_between
from attention_coresets.analysis.parts.measured import setting
from attention_coresets.analysis.show import numbers
from attention_coresets.analysis.show.shown import Shown
from attention_coresets.analysis.stats.estimates import Estimate
from attention_coresets.analysis.stats.frames import column, distinct

_GAP = "  "
_OTHERS = {
    "kl": "KL",
    "added": "loss added",
    "needle_found": "facts found",
    "heldout_mean": "mean error",
    "heldout_p99": "99th percentile",
}  # measures of rows without a worst-case error


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> str:
    """Columns under one another, the first to the left; where they do not fit, in parts below one another, each behind
    the first column again."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    count = len(head) - 1
    whole = widths[0] + sum(each + len(_GAP) for each in widths[1:]) <= width
    room = max(1, (width - widths[0]) // (max(widths[1:], default=0) + len(_GAP)))
    each = max(1, count if whole else -(-count // -(-count // room)))  # as even as can be
    parts = [[0, *range(start, min(start + each, count + 1))] for start in range(1, count + 1, each)]
    texts = [[_GAP.join(_padded(line[at], widths[at], at) for at in part).rstrip() for line in lines] for part in parts]
    return "\n\n".join("\n".join(text) for text in texts)


def _padded(text: str, width: int, at: int) -> str:
    return text.rjust(width) if at else text.ljust(width)


def title(names: Mapping[str, Any]) -> str:
    """ "sphere, n = 1024, ρ = 1"; of all settings together "all settings"."""
    words = setting(names, *(["family"] if "family" in names else []))
    return words or "all settings"


def errors(shown: Shown, by: Sequence[str], width: int) -> str:
    """Arm by size, a table for each combination of `by`."""
    found = numbers.errors(shown.rows, by)
    texts = [
        f"{title(names)}\n{_error_table(shown.rows, group, names, width)}" for names, group in numbers.apart(found, by)
    ]
    about = (
        "Worst-case error found by gradient ascent, a lower bound of the supremum, in units of the values: the median"
        f" over {shown.units} with its 95 % interval (none below three of them); then × the best arm's of the column,"
        " the median of the paired ratios."
    )
    if not by and (several := numbers.varying(shown.rows)):
        about += f" Medians are over {', '.join(several)} too."
    return "\n\n".join([*texts, explained(about, width)])


def _error_table(rows: pd.DataFrame, found: pd.DataFrame, names: Mapping[str, Any], width: int) -> str:
    here = numbers.where(rows, names)
    sizes, cells = distinct(found, "size"), {}
    for size in sizes:
        column = found.loc[found["size"] == size].sort_values("error", kind="stable")
        over = numbers.ratios(here.loc[here["size"] == size], column["arm"].iloc[0])
        for line in column.itertuples():
            error = interval(Estimate(line.error, line.low, line.high, line.units))
            cells[line.arm, size] = f"{error} ×{number(over[line.arm].value)}"
    lines = [[arm, *(cells.get((arm, size), "–") for size in sizes)] for arm in numbers.ranked(found)]
    return aligned(["arm", *(f"m = {size}" for size in sizes)], lines, width)


def others(rows: pd.DataFrame, width: int) -> str:
    """Arm by size and measure, of rows that no worst query was sought for: a language model's, or a replay's."""
    rows = rows.assign(added=rows["loss"] - rows["loss_full"])
    names = [name for name in _OTHERS if np.isfinite(column(rows, name)).any()]
    if not names:
        return "No worst-case errors to show."
    tables, about = [], []
    for size in distinct(rows, "size"):
        here = rows.loc[rows["size"] == size]
        means = {arm: [column(here.loc[here["arm"] == arm], name).mean() for name in names] for arm in set(here["arm"])}
        lines = [[arm, *map(number, means[arm])] for arm in sorted(means, key=lambda arm: (means[arm], arm))]
        tables.append(aligned([f"m = {size}", *(_OTHERS[name] for name in names)], lines, width))
    if "kl" in names:
        about.append(
            "KL from the full cache's predictions and loss added to it in nats a token, facts found of those asked for."
        )
    if "heldout_mean" in names:
        about.append("Errors at held-out queries, in units of the values.")
    return "\n\n".join([*tables, explained(" ".join(["Means over cells.", *about]), width)])


def sizes(shown: Shown, by: Sequence[str], width: int) -> str:
    """The size for a few errors: a line for each combination of `by` and arm, a column for each error."""
    try:
        asked = numbers.epsilons(shown.rows, by)
        found = numbers.sizes(shown.rows, by, asked) if asked else None
    except ValueError as reason:
        return f"Sizes for an error: {reason}."
    if found is None:
        return "Sizes for an error: no round error is reached between the sizes measured; measure more sizes."
    lines = []
    for names, group in numbers.apart(found, by):
        for arm in in_order(set(group["arm"])):
            mine = group.loc[group["arm"] == arm].set_index("epsilon")
            cells = [size_between(mine.loc[e, "lo"], mine.loc[e, "hi"]) for e in asked]
            lines.append([f"{title(names)}: {arm}" if by else arm, *cells])
    about = (
        "m(ε): the least size from which on the median error is at most ε. It lies between two sizes measured:"
        " (too few, enough]. ≤: the smallest size measured is enough; >: the largest is too few."
    )
    return f"{aligned(['arm', *(f'm(ε = {e:g})' for e in asked)], lines, width)}\n\n{explained(about, width)}"


def ratios(shown: Shown, against: str, width: int) -> str:
    """Every arm over one of them, at all sizes and settings and family by family."""
    rows = shown.rows
    families = distinct(rows, "family") if "family" in numbers.varying(rows) else []
    parts = [rows, *(rows.loc[rows["family"] == family] for family in families)]
    over = [numbers.ratios(part, against) if against in set(part["arm"]) else {} for part in parts]
    arms = sorted(over[0], key=lambda arm: over[0][arm].value)
    lines = [[arm, *(_ratio(found.get(arm)) for found in over)] for arm in arms]
    about = (
        f"Error over that of {against} on the same {shown.units}, size by size and setting by setting: geometric mean"
        f" over these, median over {shown.units}, 95 % interval. Below 1 the arm errs less."
    )
    return f"{aligned(['arm', 'all', *families], lines, width)}\n\n{explained(about, width)}"


def _ratio(found: Estimate | None) -> str:
    return interval(found) if found is not None and found.caches else "–"


def laws(records: Sequence[Mapping[str, Any]], shown: Shown, width: int) -> str:
    """The generic laws of the size, a line for each arm and family."""
    names = list(dict.fromkeys(n for record in records for n in record.get("coefficients", {}) if n != "const"))
    family = dict(zip(_key(shown.rows), shown.rows["family"], strict=True))
    lines, reasons = [], []
    for record in records:
        fixed = record["fixed"]
        where = [fixed["arm"], family[fixed["cache"], fixed["variant"]]]
        if record["status"] != "fitted":
            reasons.append(f"{', '.join(where)}: not fitted: {record['reason']}.")
            continue
        share = record["censored_left"] + record["censored_right"]
        cells = [interval(coefficient(record, name)[0]) for name in names]
        lines.append([" on ".join(where), *cells, f"{share:.0%}", str(record["clusters"])])
    head = ["arm on family", *(SYMBOLS[name] for name in names), "outside", "caches"]
    about = (
        "log m(ε) fitted to a constant and these slopes: in log 1/ε, log n and log d, and in ρ itself, of what varies;"
        " 95 % intervals over whole caches. Sizes from 2d to n/4; outside: share of sizes known only to lie beyond"
        " those measured, which enter as such."
    )
    table = [aligned(head, lines, width)] if lines else []
    return "\n\n".join([*table, *(explained(reason, width) for reason in reasons), explained(about, width)])


def _key(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return [(cache, numbers.variant(text)) for cache, text in zip(rows["cache"], rows["cache_params"], strict=True)]


def explained(text: str, width: int) -> str:
    """A paragraph below a table."""
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ")
