"""Our own construction against the others: by errors found, and by proven ceilings."""

from collections.abc import Iterable, Sequence

import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import paired_ratio
from attention_coresets.analysis.stats.frames import distinct, groups
from attention_coresets.analysis.topics.league.standings import CACHES, EXPERIMENT, against_best, mean_ratio


def advantage(
    model: str,
    families: Iterable[str] = (),
    clusters: Sequence[str] = CACHES,
    experiment: str = EXPERIMENT,
    ours: str | None = None,
) -> Measure:
    """Geometric mean over cells of our error over that of the cell's best other arm, in one coreset model.

    `families`: only these, else all. `ours`: another arm of ours than `our_arm`. The rival is picked cell by cell,
    after the fact, which favours the others.
    """
    wanted = list(families)

    def measure(results: Results) -> list[Measured]:
        cells = against_best(results.rows(experiment), model, ours)
        cells = cells.loc[cells["cache"].isin(wanted)] if wanted else cells
        if cells.empty:
            return []
        words = f"{len(cells)} cells of {families_of(cells)}"
        unit = "families and dimensions" if clusters is CACHES else "families"
        return [Measured(words, mean_ratio(cells, clusters), unit=unit)]

    return measure


def ceiling_ratio(arm: str, other: str) -> Measure:
    """Least certificate of `arm` over that of `other` on the same caches of the ablation, family by family."""

    def measure(results: Results) -> list[Measured]:
        found = [
            (names["cache"], paired_ratio(rows, arm, other, "certificate"))
            for names, rows in groups(results.rows("ablation"), ["cache"])
        ]
        return [Measured(cache, ratio) for cache, ratio in found if ratio.caches]

    return measure


def families_of(rows: pd.DataFrame) -> str:
    """The families of these rows, their number where there are more than three."""
    names = distinct(rows, "cache")
    return ", ".join(names) if len(names) < 4 else f"{len(names)} families"
