"""The worst case from both sides: ascent, branch and bound and certificates held against each other, row by row."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured, exactly, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import median_of
from attention_coresets.analysis.stats.frames import column, groups

JUDGED, SMALL = "adversary", "small_caches"
CEILINGS = ("ceiling_kernel", "ceiling_taylor", "certificate")
ROUNDING = 1e-9  # of errors and ceilings, in units of the values


def broken_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in which two proven or found numbers contradict each other: a ceiling below the query that branch and bound
    or the ascent found, or an ascent that ends below branch and bound's query by more than the gap it was run to."""
    lower, upper, error = (column(rows, name) for name in ("branch_lower", "branch_upper", "error"))
    found = np.fmax(error, lower)
    low = np.any([column(rows, name) < found - ROUNDING for name in (*CEILINGS, "branch_upper")], axis=0)
    gap = np.maximum(column(rows, "branch_gap"), upper - lower)
    return rows.loc[low | (error < lower - gap - ROUNDING)]


def contradictions(experiments: Iterable[str]) -> Measure:
    """How many rows of the experiments are broken; the setting says over how many caches."""
    names = list(experiments)

    def measure(results: Results) -> list[Measured]:
        rows = results.table.loc[results.table["experiment"].isin(names) & results.table["certificate"].notna()]
        caches = len(rows[["cache", "cache_params", "seed", "head"]].drop_duplicates())
        words = f"{len(rows)} coresets of {caches} caches"
        return [Measured(words, exactly(float(len(broken_rows(rows))), caches))] if len(rows) else []

    return measure


def ceiling_factor(families: Iterable[str], arm: str, *, n: int, d: int, size: int, rho: float) -> Measure:
    """Kernel certificate over ascent in exactly this setting, median over caches, family by family: 1 or more, since
    no query errs by more than a ceiling."""
    wanted = {"arm": arm, "n": n, "d": d, "size": size, "rho": rho}

    def measure(results: Results) -> list[Measured]:
        rows = with_ratios(results.rows(JUDGED))
        inside = rows["cache"].isin(list(families)) & (rows[list(wanted)] == pd.Series(wanted)).all(axis=1)
        return [
            Measured(setting({**names, "rho": rho}, "cache"), median_of(group, "kernel_over_ascent", least=1.0))
            for names, group in groups(rows.loc[inside], ["cache"])
        ]

    return measure


def with_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with kernel_over_ascent and ascent_over_upper (NaN beyond d = 4)."""
    error = column(rows, "error")
    return rows.assign(
        kernel_over_ascent=column(rows, "ceiling_kernel") / error,
        ascent_over_upper=error / column(rows, "branch_upper"),
    )
