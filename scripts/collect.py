"""Make results/<tier>/table.parquet of the finished cells of every experiment run at that tier.

python scripts/collect.py [--tier quick] [--results DIR] [--rebuild]

The table holds exactly the cells of each experiment's present grid. Experiments that were not run in this checkout keep
the rows they have in the table; --rebuild drops them. Exit code 1 where cells are missing, after the table is written.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from attention_coresets.study.checks import TIERS
from attention_coresets.study.older import of_other_code
from attention_coresets.study.disk import StudyError
from attention_coresets.study.store import Store
from attention_coresets.study.table import Gathered, gather, merge, write_table

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    arguments = _parse()
    try:
        return collect(Store(arguments.results), arguments.tier, arguments.rebuild)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def collect(store: Store, tier: str, rebuild: bool) -> int:
    """Write the tier's table and print what is in it; the exit code."""
    path = store.results / tier / "table.parquet"
    gathered = [gather(store, tier, experiment) for experiment in store.experiments(tier)]
    if not gathered:
        raise StudyError(
            f"no experiment was run at tier {tier} under {store.cells}: "
            f"run `python scripts/sweep.py experiment=NAME tier={tier}` first; "
            "sweeps of your own are shown by `python scripts/show.py`"
        )
    table, kept = merge(gathered, path, keep=not rebuild)
    write_table(table, path)
    _print_overview(gathered)
    for note in _notes(gathered, kept):
        print(f"note: {note}")
    print(f"{path}: {len(table)} rows")
    missing = sum(len(each.missing) for each in gathered)
    if missing:
        print(f"error: {missing} cells are missing; run their experiments again", file=sys.stderr)
    return 1 if missing else 0


def _print_overview(gathered: Sequence[Gathered]) -> None:
    lines = [("experiment", "cells", "missing", "rows", "seconds")]
    for each in gathered:
        cells = len(each.manifest.members)
        seconds = each.rows["seconds_construct"].sum() + each.rows["seconds_adversary"].sum()
        lines.append(
            (each.manifest.experiment, str(cells), str(len(each.missing)), str(len(each.rows)), f"{seconds:.0f}")
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        print("  ".join([first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(rest, widths[1:], strict=True))]))


def _notes(gathered: Sequence[Gathered], kept: Sequence[str]) -> list[str]:
    notes = [f"{name}: not run here, its rows are those the table had" for name in kept]
    for each in gathered:
        name, rows = each.manifest.experiment, each.rows
        if each.manifest.overrides:
            notes.append(
                f"{name}: last run with {' '.join(each.manifest.overrides)}; a run without restores its file's grid"
            )
        if labels := each.missing:
            notes.append(f"{name}: missing {'; '.join(labels[:3])}{'; ...' if len(labels) > 3 else ''}")
        if other := of_other_code(rows):
            notes.append(f"{name}: {len(other)} cells were computed with other, uncommitted or unknown code")
    return notes


def _parse() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", choices=TIERS, default="reduced")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results")
    parser.add_argument("--rebuild", action="store_true", help="drop experiments that were not run here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
