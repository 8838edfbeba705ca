"""Computes random rows of a tier's table again, and says how far each is off, by class of construction.

python scripts/verify.py                                  # 200 rows of tier reduced: some ten minutes on two cores
python scripts/verify.py --sample 20 --tier quick --seed 7

Rows of cells that took long are left out (--longest SECONDS); how many is said. Nothing is written. Exit code 1 where a
row is off by more than its class allows (study/audit.py has the classes), 2 where it cannot be known.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import os
import sys
import time
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from attention_coresets.study.audit import Audited, audit, sample, summary
from attention_coresets.study.checks import TIERS
from attention_coresets.study.disk import StudyError
from attention_coresets.study.explain import one_line
from attention_coresets.study.table import read_table

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    start = time.monotonic()
    try:
        table = read_table(options.results / options.tier / "table.parquet")
        sampled, of = sample(table, options.sample, options.seed, options.longest)
        if sampled.empty:
            raise StudyError(f"no row of a cell that took at most {options.longest:g} s: give --longest")
        print(
            f"tier {options.tier}: {len(sampled)} rows of {sampled['cell'].nunique()} cells, drawn with seed"
            f" {options.seed} from {of}, those of cells that took at most {options.longest:g} s, of {len(table)}",
            flush=True,
        )
        found = _audited(sampled, options.tier, options.processes)
    except Exception as error:
        print(f"verify: {one_line(error)}", file=sys.stderr)
        return 2
    print(pd.DataFrame(summary(found)).to_string(index=False))
    off = [row for row in found if row.share > 1]
    for row in off:
        print(
            f"off: {row.experiment}, {row.arm}, cell {row.cell}, m = {row.size}, head {row.head}: {row.measure} is"
            f" {row.found:.9g}, the table has {row.told:.9g}"
        )
    print(f"{len(off)} of {len(found)} rows off by more than their class allows, in {time.monotonic() - start:.0f} s")
    return 1 if off else 0


def _audited(sampled: pd.DataFrame, tier: str, processes: int) -> list[Audited]:
    found: list[Audited] = []
    with tqdm(total=len(sampled), unit="row", disable=None) as bar:
        for rows in audit(sampled, tier, processes):
            found += rows
            bar.update(len(rows))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=200, metavar="ROWS")
    parser.add_argument("--tier", choices=TIERS, default="reduced")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of rows")
    parser.add_argument(
        "--longest", type=float, default=20.0, metavar="SECONDS", help="cells that took more are left out"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of the tiers")
    return parser


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"  # bars of models that load in worker processes; the one here is made already
    sys.exit(main())
