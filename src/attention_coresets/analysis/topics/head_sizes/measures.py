"""Measures on the sizes that heads need: slopes of the law, and how well each predictor tells errors unseen."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.exponents import coefficient
from attention_coresets.analysis.parts.measured import Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.cross_validation import explained
from attention_coresets.analysis.stats.estimates import Estimate
from attention_coresets.analysis.stats.frames import column
from attention_coresets.analysis.stats.sizes import INTERVAL, size_table
from attention_coresets.analysis.topics.head_sizes.plans import OURS, REGIME, SIZES

_SLOPES = {"total": "log T", "gamma": "log 1/ε"}
ERROR = "heldout_p99"
SIZE_ALONE = "size alone"
PREDICTORS = {
    "total_sensitivity": "T",
    "gamma": "Γ",
    "leave_out": "change where a token is left out",
    "spectral_tail": "spectral tail",
    "query_variance": "variance of draws",
}


def slopes(results: Results) -> list[Measured]:
    """The slopes of the walk's law, a part each."""
    records = [record for record in results.laws(SIZES) if record["fixed"]["arm"] == OURS]
    return [
        Measured(f"slope in {words}", *coefficient(record, symbol), unit="layers")
        for record in records
        for symbol, words in _SLOPES.items()
    ]


def told(results: Results, arm: str = OURS) -> dict[str, Estimate]:
    """Cross-validated R² of log error, over heads and sizes, on log size and the logarithm of each predictor.

    Folds are whole layers, as are what intervals resample.
    """
    rows = positive(results.rows(SIZES), arm)
    if rows.empty:
        return {}
    log_size, error, layers = np.log(column(rows, "size")), np.log(column(rows, ERROR)), column(rows, "layer")
    designs = {SIZE_ALONE: [log_size]} | {
        words: [log_size, np.log(column(rows, name))] for name, words in PREDICTORS.items()
    }
    return {words: explained(error, np.stack(parts, axis=1), layers) for words, parts in designs.items()}


def needed(rows: pd.DataFrame, epsilons: Sequence[float]) -> pd.DataFrame:
    """The size that each head needs for each epsilon (`size_table`), with `at`: on the line between the logarithms of
    the two sizes and their errors, or the end of the grid where it does not reach."""
    rows = rows.assign(error=rows[ERROR])
    found = size_table(rows, epsilons, ["cache_params", "d", "total_sensitivity"], max_size=REGIME.max_fraction)
    errors = rows.set_index(["cache_params", "size"])["error"]
    lo, hi = column(found, "lo"), column(found, "hi")
    at = np.where(lo > 0, lo, hi)
    for i in np.flatnonzero((found["status"] == INTERVAL).to_numpy()):
        above, below = (np.log(errors[found["cache_params"].iloc[i], size]) for size in (lo[i], hi[i]))
        part = (above - np.log(found["epsilon"].iloc[i])) / (above - below)
        at[i] = lo[i] * (hi[i] / lo[i]) ** part
    return found.assign(at=at)


def positive(rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The arm's rows whose error and predictors have logarithms."""
    rows = rows.loc[rows["arm"] == arm]
    return rows.loc[(rows[[ERROR, *PREDICTORS]] > 0).all(axis=1)]
