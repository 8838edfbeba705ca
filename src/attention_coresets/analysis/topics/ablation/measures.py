"""Measures that hold one arm against another on the same caches."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.axes import OWN, REFINEMENT, axis_of
from attention_coresets.analysis.parts.measured import Measure, Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import SYNTHETIC, median, paired_log_ratio, paired_ratio
from attention_coresets.analysis.stats.frames import column, distinct, groups, means


def growth_of_ratio(arm: str, other: str, caches: Iterable[str]) -> Measure:
    """Slope in rho of log(error of arm / error of other) at one size, on the same caches.

    The mean over sizes up to n/4, the median over caches. Errors saturate at 2, so a slope taken from large ones is too
    small if anything.
    """
    families = list(caches)

    def measure(results: Results) -> list[Measured]:
        rows = results.rows("rho_rate")
        pairs = paired_log_ratio(rows.loc[column(rows, "size") <= column(rows, "n") / 4], arm, other)
        return [
            Measured(names["cache"], median(_slopes_by_cache(group)))
            for names, group in groups(pairs, ["cache"])
            if names["cache"] in families and len(distinct(group, "rho")) > 1
        ]

    return measure


def _slopes_by_cache(pairs: pd.DataFrame) -> np.ndarray:
    """Least-squares slope of log_ratio in rho at each size, averaged over the sizes of a cache."""
    lines = [
        {**names, "slope": np.polyfit(column(group, "rho"), column(group, "log_ratio"), 1)[0]}
        for names, group in groups(pairs, [*SYNTHETIC, "n", "d", "size"])
        if len(distinct(group, "rho")) > 1
    ]
    return column(means(pd.DataFrame(lines), SYNTHETIC, ["slope"]), "slope")


def against_best(arm: str) -> Measure:
    """Error of `arm` over that of the best other arm of the ablation that is not refined afterwards, family by family.

    The best is picked by the same ratio, after the fact: that favours the others, if anything.
    """

    def measure(results: Results) -> list[Measured]:
        parts = []
        for names, rows in groups(results.rows("ablation"), ["cache"]):
            others = [name for name in distinct(rows, "arm") if name != arm and axis_of(name) not in (REFINEMENT, OWN)]
            ratios = {other: paired_ratio(rows, arm, other) for other in others}
            known = {other: ratio for other, ratio in ratios.items() if ratio.caches}
            if known:
                best = max(known, key=lambda other, ratios=known: ratios[other].value)
                parts.append(Measured(f"{names['cache']}, against {best}", known[best]))
        return parts

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
