"""What claims measure: each function makes a `Measure`, from a tier's results to one labelled estimate a setting."""

from collections.abc import Callable, Mapping
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


def exactly(value: float, rows: int) -> Estimate:
    """The least or largest of all rows: a statement about these and no others, so the interval is the value itself."""
    return Estimate(value, value, value, rows)


SYMBOL = {"n": "n", "d": "d", "rho": "ρ", "size": "m"}


def setting(fixed: Mapping[str, Any], *first: str) -> str:
    """The named columns, then n, d, rho and size, of what is held fixed: "sphere, n = 2048, ρ = 1"."""
    words = [str(fixed[name]) for name in first]
    return ", ".join(words + [f"{symbol} = {fixed[name]:g}" for name, symbol in SYMBOL.items() if name in fixed])


def least(rows: pd.DataFrame, name: str) -> list[Measured]:
    """The smallest value of a column over all rows, with the setting it is at; nothing where there is no row."""
    if rows.empty:
        return []
    values = column(rows, name)
    where = setting(rows.iloc[int(values.argmin())].to_dict(), "arm")
    return [Measured(f"{where}, least of {len(rows)} rows", exactly(float(values.min()), len(rows)), unit="rows")]


def largest(rows: pd.DataFrame, name: str, *first: str) -> list[Measured]:
    """The same of the largest value; `first`: the columns that the setting begins with."""
    if rows.empty:
        return []
    values = column(rows, name)
    where = setting(rows.iloc[int(values.argmax())].to_dict(), *first)
    return [Measured(f"{where}, largest of {len(rows)} rows", exactly(float(values.max()), len(rows)), unit="rows")]
