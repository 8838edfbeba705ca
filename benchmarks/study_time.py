"""What constructions and worst queries of a sweep took, before and now, on the cells that both tables have.

    git show 9f83d86:results/reduced/table.parquet > before.parquet     # the first round's
    python -m benchmarks.study_time before.parquet                      # writes results/study_time.csv

Seconds are those that the rows state: of the clock, beside one other process.
"""

import sys
from pathlib import Path

import pandas as pd

from attention_coresets.analysis.parts.markdown import number, table
from attention_coresets.analysis.stats.frames import column

ROOT = Path(__file__).resolve().parent.parent
NOW, PATH = ROOT / "results" / "reduced" / "table.parquet", ROOT / "benchmarks" / "results" / "study_time.csv"
SECONDS = ("seconds_construct", "seconds_adversary")


def compared(before: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Minutes of each experiment on the cells that both tables have, those that took longest first."""
    minutes = {name: _minutes(rows) for name, rows in (("before", before), ("now", now))}
    shared = minutes["before"].index.intersection(minutes["now"].index)
    both = pd.DataFrame({name: of_cells.loc[shared] for name, of_cells in minutes.items()})
    found = both.groupby("experiment").agg(cells=("now", "size"), before=("before", "sum"), now=("now", "sum"))
    return found.sort_values("before", ascending=False).reset_index()


def _minutes(rows: pd.DataFrame) -> pd.Series:
    """By experiment and cell."""
    rows = rows.drop_duplicates(["cell", "size", "head"])
    rows = rows.assign(minutes=sum(column(rows, name) for name in SECONDS) / 60)
    return pd.Series(rows.groupby(["experiment", "cell"])["minutes"].sum())


def words(path: Path = PATH) -> str:
    """The comparison as a table, its sums last."""
    found = pd.read_csv(path)
    lines = [
        [f"`{row['experiment']}`", f"{row['cells']}", number(row["before"]), number(row["now"])]
        for _, row in found.iterrows()
    ]
    sums = found[["cells", "before", "now"]].sum()
    lines.append(["all", f"{int(sums['cells'])}", number(sums["before"]), number(sums["now"])])
    return table(["Experiment", "Cells", "Minutes before", "Minutes now"], lines)


if __name__ == "__main__":
    compared(pd.read_parquet(sys.argv[1]), pd.read_parquet(NOW)).round(3).to_csv(PATH, index=False)
    print(words())
