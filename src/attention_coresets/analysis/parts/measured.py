"""What claims measure: each function makes a `Measure`, from a tier's results to one labelled estimate a setting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import Estimate
from attention_coresets.analysis.stats.frames import column


@dataclass(frozen=True)
class Measured:
    """An estimate, the setting it belongs to, why there is none where the value is NaN, and what its interval is over:
    the unit that `estimate.caches` counts."""

    setting: str
    estimate: Estimate
    reason: str = ""
    unit: str = "caches"


Measure = Callable[[Results], list[Measured]]
Rows = Callable[[Results], pd.DataFrame]


def exactly(value: float, rows: int) -> Estimate:
    """The least or largest of all rows, or a count: a statement about these and no others, so the interval is the value
    itself."""
    return Estimate(value, value, value, rows, exact=True)


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
    """The smallest value of a column over all rows, with the setting it is at; nothing where there is no row. NaN, a
    value that was not computed, is smaller and larger than any."""
    return _at(rows, name, int(column(rows, name).argmin()), "least", "arm") if len(rows) else []


def largest(rows: pd.DataFrame, name: str, *first: str) -> list[Measured]:
    """The same of the largest value; `first`: the columns that the setting begins with."""
    return _at(rows, name, int(column(rows, name).argmax()), "largest", *first) if len(rows) else []


def _at(rows: pd.DataFrame, name: str, place: int, word: str, *first: str) -> list[Measured]:
    where = setting(rows.iloc[place].to_dict(), *first)
    found = exactly(float(column(rows, name)[place]), len(rows))
    return [Measured(f"{where}, {word} of {len(rows)} rows", found, unit="rows")]
