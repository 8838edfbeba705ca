"""What claims measure: each function makes a `Measure`, from a tier's results to one labelled estimate a setting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import Estimate
from attention_coresets.analysis.stats.frames import column


@dataclass(frozen=True)
class Measured:
    """An estimate, the setting it belongs to, why there is none where the value is NaN, and what its interval is over:
    the unit that `estimate.caches` counts. `exact`: a statement about these rows and no others, so that the interval
    is the value itself."""

    setting: str
    estimate: Estimate
    reason: str = ""
    unit: str = "caches"
    exact: bool = False


Measure = Callable[[Results], list[Measured]]
Rows = Callable[[Results], pd.DataFrame]


def exactly(setting: str, value: float, number: int, unit: str = "rows") -> Measured:
    """A least or largest value, or a count, over all rows: nothing is estimated."""
    return Measured(setting, Estimate(value, value, value, number), unit=unit, exact=True)


def rows_of(experiment: str, **wanted: Sequence[object]) -> Rows:
    """The rows of an experiment whose columns hold one of the wanted values: `rows_of("d_rate", cache=["sphere"])`."""

    def rows(results: Results) -> pd.DataFrame:
        found = results.rows(experiment)
        for name, values in wanted.items():
            found = found.loc[found[name].isin(list(values))]
        return found

    return rows


SYMBOL = {"n": "n", "d": "d", "rho": "ρ", "size": "m"}


def setting(fixed: Mapping[str, Any], *first: str) -> str:
    """The named columns, then n, d, rho and size, of what is held fixed: "sphere, n = 2048, ρ = 1"."""
    words = [str(fixed[name]) for name in first]
    return ", ".join(words + [f"{symbol} = {fixed[name]:g}" for name, symbol in SYMBOL.items() if name in fixed])


def least(rows: pd.DataFrame, name: str) -> list[Measured]:
    """The smallest value of a column over all rows, with the setting it is at; nothing where there is no row."""
    return _extreme(rows, name, "least", lambda values: int(values.argmin()))


def largest(rows: pd.DataFrame, name: str) -> list[Measured]:
    """The largest value, likewise."""
    return _extreme(rows, name, "largest", lambda values: int(values.argmax()))


def _extreme(rows: pd.DataFrame, name: str, word: str, place: Callable[[np.ndarray], int]) -> list[Measured]:
    """NaN is found first: a value that was not computed is none that can be passed over."""
    if rows.empty:
        return []
    values = column(rows, name)
    at = place(values)
    row = rows.iloc[at].to_dict()
    where = setting(row, *(("cache", "arm") if word == "largest" else ("arm",)))
    return [exactly(f"{where}, {word} of {len(rows)} rows", float(values[at]), len(rows))]
