"""Take the rows of a committed table as finished cells, so that a sweep computes only what the table lacks.

python scripts/restore.py --tier reduced [EXPERIMENT ...] [--results DIR]

Then `python scripts/sweep.py experiment=league tier=reduced` with one more arm in conf/experiment/league.yaml computes
that arm's cells and no others, and `python scripts/collect.py --tier reduced` makes the table of both. Rows keep the
revision that computed them. Cells of grids that overlap in sizes or heads are left out: a table has what two of them
share only once, and so not all of either.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
from pathlib import Path
from uuid import uuid4

from attention_coresets.study.checks import TIERS
from attention_coresets.study.disk import StudyError
from attention_coresets.study.store import Store
from attention_coresets.study.table import LABELS, read_table

REPOSITORY = Path(__file__).resolve().parents[1]
# what cells have in common that differ in heads and sizes alone
_ALIKE = [
    *("experiment", "arm", "cache", "cache_params", "coreset_params", "rho", "seed", "draw", "probe", "objective"),
    *("dtype", "restarts"),
]


def main() -> int:
    options = _parser().parse_args()
    try:
        print(restore(Store(options.results), options.tier, options.experiments))
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def restore(store: Store, tier: str, experiments: list[str]) -> str:
    """Keep the table's cells that the store lacks; says how many."""
    table = read_table(store.results / tier / "table.parquet")
    if missing := sorted(set(experiments) - set(table["experiment"])):
        raise StudyError(
            f"{', '.join(missing)}: not in the table; it has {', '.join(sorted(set(table['experiment'])))}"
        )
    wanted = table.loc[table["experiment"].isin(experiments)] if experiments else table
    twice = wanted.groupby(_ALIKE, dropna=False)["cell"].transform("nunique").gt(1)
    left_out = wanted.loc[twice, "cell"].nunique()
    rows = wanted.loc[~twice].drop_duplicates(["cell", "size", "head"]).drop(columns=list(LABELS))
    cells = {str(name): of_cell for name, of_cell in rows.groupby("cell")}
    there = store.finished(cells)
    log = store.log(f"restore-{uuid4().hex[:12]}")
    for cell in cells.keys() - set(there):
        log.add(cell, {}, [dict(zip(rows.columns, row, strict=True)) for row in cells[cell].values.tolist()])
    log.close()
    said = f"{len(cells) - len(there)} cells restored, {len(there)} were there already"
    return f"{said}; {left_out} of grids that overlap are to be computed anew" if left_out else said


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiments", nargs="*", help="default: all of the table")
    parser.add_argument("--tier", choices=TIERS, default="reduced")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results", help="folder of the tiers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
