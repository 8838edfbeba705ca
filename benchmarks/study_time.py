"""What constructions and worst queries of a sweep took, before and now, on the coresets that both tables have.

    git show 9f83d86:results/reduced/table.parquet > before.parquet     # the first round's
    python -m benchmarks.study_time before.parquet                      # writes results/study_time.csv

A coreset is told by its experiment, arm, cache, rho, seed, head and size, whatever search then judged it. Seconds are
those that the rows state, of the clock, beside one other process; times the heads of a row where they are a head's.
results/study_clock.csv is what `sweep.py` prints at its end, copied by hand: cells computed, and seconds from start to
end in two processes on a machine of their own (an AMD EPYC of two cores, revisions 6cdc455 and e8cf67f), of all arms
that the experiment has today.
"""

import sys
from pathlib import Path

import pandas as pd

from attention_coresets.analysis.parts.markdown import number, table

ROOT = Path(__file__).resolve().parent.parent
NOW, PATH = ROOT / "results" / "reduced" / "table.parquet", ROOT / "benchmarks" / "results" / "study_time.csv"
CLOCK = PATH.with_name("study_clock.csv")
SECONDS = ("seconds_construct", "seconds_adversary")
HEADS = {"real_language": 90}  # of SmolLM2-135M; a row is of all of them, and states the seconds of one
CORESET = ("experiment", "arm", "cache", "cache_params", "rho", "seed", "head", "size")


def compared(before: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Minutes of each experiment on the coresets that both tables have, those that took longest first."""
    both = pd.DataFrame({name: _minutes(rows) for name, rows in (("before", before), ("now", now))}).dropna()
    found = both.groupby("experiment").agg(coresets=("now", "size"), before=("before", "sum"), now=("now", "sum"))
    return found.sort_values("before", ascending=False).reset_index()


def _minutes(rows: pd.DataFrame) -> pd.Series:
    """By coreset."""
    rows = rows.drop_duplicates(["cell", "size", "head"])
    heads = rows["experiment"].map(lambda name: HEADS.get(name, 1))
    rows = rows.assign(minutes=rows[list(SECONDS)].sum(axis=1) * heads / 60)
    return pd.Series(rows.groupby(list(CORESET), dropna=False)["minutes"].sum())


def words(path: Path = PATH, clock: Path = CLOCK) -> str:
    """The comparison as a table, its sums last."""
    found, spent = pd.read_csv(path), pd.read_csv(clock).set_index("experiment")
    rows = found.join(spent, on="experiment").dropna().reset_index(drop=True)
    rows = rows.assign(clock=rows["seconds"] / 60)[["experiment", "coresets", "before", "now", "cells", "clock"]]
    rows.loc[len(rows)] = ["all", *rows.drop(columns="experiment").sum()]
    lines = [
        [
            name if name == "all" else f"`{name}`",
            f"{coresets:.0f}",
            number(before),
            number(now),
            f"{cells:.0f}",
            number(on),
        ]
        for name, coresets, before, now, cells, on in rows.itertuples(index=False)
    ]
    heads = [
        "Coresets of both",
        "Minutes before",
        "Minutes now",
        "Cells of today",
        "On two cores, minutes of the clock",
    ]
    return table(["Experiment", *heads], lines)


if __name__ == "__main__":
    compared(pd.read_parquet(sys.argv[1]), pd.read_parquet(NOW)).round(3).to_csv(PATH, index=False)
    print(words())
