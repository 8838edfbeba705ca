"""What the terminal says at the end of a sweep: arms by size, sizes for a few errors, and where to look on."""

import shutil
from collections.abc import Sequence

from attention_coresets.analysis.parts.measured import SYMBOL
from attention_coresets.analysis.show import numbers, text
from attention_coresets.analysis.show.shown import Shown, of_store
from attention_coresets.analysis.stats.frames import distinct
from attention_coresets.study.names import OWN, Place
from attention_coresets.study.store import Store

MOST_LINES = 48  # of settings told apart times arms, unless more are asked for


def print_summary(store: Store, place: Place) -> None:
    """Print what a sweep's finished cells say."""
    print(summary(of_store(store, place), width()))


def summary(shown: Shown, width: int) -> str:
    """Errors and sizes, setting by setting where these are few."""
    if shown.rows.empty:
        return f"{heading(shown)}\n\n{text.others(shown.others, width)}"
    by = default_by(shown)
    return "\n\n".join([heading(shown), text.errors(shown, by, width), text.sizes(shown, by, width), _onwards(shown)])


def heading(shown: Shown) -> str:
    """What there is of a sweep, and the command that it came from."""
    rows = shown.rows
    alike = [f"{SYMBOL[name]} = {rows[name].iloc[0]:g}" for name in ("n", "d", "rho") if len(distinct(rows, name)) == 1]
    cells = len({*rows["cell"], *shown.others["cell"]})
    lines = [", ".join([f"{shown.place.name}: {cells} cells, {len(rows)} worst-case errors", *alike])]
    if len(rows) and len(shown.others):
        lines.append(f"{len(shown.others)} rows have no worst-case error and are left out")
    if shown.missing:
        lines.append(f"{len(shown.missing)} cells are not finished: {'; '.join(shown.missing[:3])}")
    return "\n".join([*lines, shown.command])


def default_by(shown: Shown) -> Sequence[str]:
    """The columns of the settings that vary, where tables of them are short; else none."""
    by = numbers.varying(shown.rows)
    lines = len(shown.rows[[*by, "arm"]].drop_duplicates())
    return by if lines <= MOST_LINES else []


def width() -> int:
    """Characters of a line: the terminal's, 120 where there is none."""
    return shutil.get_terminal_size((120, 24)).columns


def _onwards(shown: Shown) -> str:
    tier = "" if shown.place.tier == OWN else f" --tier {shown.place.tier}"
    if tier:
        tier += f"  (after `python scripts/collect.py{tier}`)"
    return (
        f"python scripts/show.py {shown.place.name}{tier}: ratios, laws, figures\n"
        f"python scripts/page.py {shown.place.name}{tier}: a page to look at in a browser"
    )
