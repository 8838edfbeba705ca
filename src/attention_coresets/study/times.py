"""What cells took that are finished, so that the longest of a sweep are begun first and jobs are cut to size."""

from collections import Counter

from attention_coresets.study.plan import group_of
from attention_coresets.study.records import shard
from attention_coresets.study.store import Store

_COLUMNS = ["cell", "coreset", "coreset_params", "n", "seconds_construct", "seconds_adversary"]


def seconds_by_group(store: Store) -> dict[str, float]:
    """Mean seconds of a finished cell, by `plan.group_of`; of cells that are packed, which are all but the latest."""
    seconds: Counter[str] = Counter()
    cells: Counter[str] = Counter()
    for path in sorted(store.shards.glob("*.parquet")):
        table = shard(path, _COLUMNS)
        if table is None:
            continue
        frame = table.to_pandas()
        frame["seconds"] = frame["seconds_construct"] + frame["seconds_adversary"]
        found = frame.groupby(["coreset", "coreset_params", "n"]).agg({"seconds": "sum", "cell": "nunique"})
        for (coreset, parameters, n), (total, number) in zip(found.index, found.to_numpy(), strict=True):
            seconds[group_of(coreset, parameters, n)] += total
            cells[group_of(coreset, parameters, n)] += int(number)
    return {group: seconds[group] / cells[group] for group in cells}
