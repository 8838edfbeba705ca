"""What claims measure: each function makes a `Measure`, from a tier's results to one labelled estimate a setting."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import NOTHING, Estimate, median_of
from attention_coresets.analysis.stats.frames import column, groups


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
    """A minimum over all rows: a statement about these rows and no others, so the interval is the value itself."""
    return Estimate(value, value, value, rows)


SYMBOL = {"n": "n", "d": "d", "rho": "ρ", "size": "m"}


def setting(fixed: Mapping[str, Any], *first: str) -> str:
    """The named columns, then n, d, rho and size, of what is held fixed: "sphere, n = 2048, ρ = 1"."""
    words = [str(fixed[name]) for name in first]
    return ", ".join(words + [f"{symbol} = {fixed[name]:g}" for name, symbol in SYMBOL.items() if name in fixed])


def law(name: str, symbol: str, arm: str, cache: str) -> Measure:
    """The fitted coefficient `symbol` of one arm and family, a part for each combination that the law holds fixed."""

    def measure(results: Results) -> list[Measured]:
        records = [r for r in results.laws(name) if (r["fixed"]["arm"], r["fixed"]["cache"]) == (arm, cache)]
        return [Measured(setting(record["fixed"]), *coefficient(record, symbol)) for record in records]

    return measure


def law_everywhere(name: str, symbol: str, arm: str) -> Measure:
    """As `law`, over every family: the settings begin with the family's name."""

    def measure(results: Results) -> list[Measured]:
        records = [record for record in results.laws(name) if record["fixed"]["arm"] == arm]
        return [Measured(setting(r["fixed"], "cache"), *coefficient(r, symbol)) for r in records]

    return measure


def coefficient(record: Mapping[str, Any], symbol: str) -> tuple[Estimate, str]:
    """A coefficient of a record of fits.json, or nothing and the reason why it was not fitted."""
    if record["status"] != "fitted":
        return NOTHING, record["reason"]
    found = record["coefficients"][symbol]
    return Estimate(found["value"], found["low"], found["high"], record["clusters"]), ""


def settings(rows: pd.DataFrame, by: list[str], name: str, *first: str) -> list[Measured]:
    """The median over caches of a column, a part for each combination of the columns `by`."""
    return [Measured(setting(names, *first), median_of(group, name)) for names, group in groups(rows, by)]


def error_at(experiment: str, arm: str, cache: str, *, n: int, d: int, rho: float, size: int) -> Measure:
    """The median worst-case error in exactly this setting."""
    wanted = {"arm": [arm], "cache": [cache], "n": [n], "d": [d], "rho": [rho], "size": [size]}

    def measure(results: Results) -> list[Measured]:
        return settings(_where(results.rows(experiment), wanted), ["n", "d", "rho", "size"], "error")

    return measure


def with_constants(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with constant_sigma = m err / (sqrt(d) e^{rho sigma}), of the tilted bound, and constant_rho, with
    e^rho."""
    rho, sigma = column(rows, "rho"), column(rows, "sigma")
    base = column(rows, "size") * column(rows, "error") / np.sqrt(column(rows, "d"))
    return rows.assign(constant_sigma=base * np.exp(-rho * sigma), constant_rho=base * np.exp(-rho))


def constant_at(
    arm: str, caches: Iterable[str], sizes: Iterable[int], rhos: Iterable[float], *, n: int, d: int
) -> Measure:
    """m err / (sqrt(d) e^rho) in every one of these settings."""
    wanted = {"arm": [arm], "cache": list(caches), "size": list(sizes), "rho": list(rhos), "n": [n], "d": [d]}

    def measure(results: Results) -> list[Measured]:
        rows = with_constants(_where(results.rows("constant"), wanted))
        return settings(rows, ["cache", "rho", "size"], "constant_rho", "cache")

    return measure


def worst_constant(arm: str) -> Measure:
    """m err / (sqrt(d) e^{rho sigma}): of each family, its setting (n, d, rho, size) with the largest median.

    The setting is picked on the rows it is then measured on, and the interval is that setting's alone, without the luck
    of the pick: the value is too large if anything, which does not favour a claim that it is small.
    """

    def measure(results: Results) -> list[Measured]:
        rows = with_constants(_where(results.rows("constant"), {"arm": [arm]}))
        by = ["cache", "n", "d", "rho", "size"]
        families = [settings(family, by, "constant_sigma", "cache") for _, family in groups(rows, ["cache"])]
        return [max(each, key=lambda part: part.estimate.value) for each in families]

    return measure


def _where(rows: pd.DataFrame, wanted: Mapping[str, list]) -> pd.DataFrame:
    inside = np.ones(len(rows), dtype=bool)
    for name, values in wanted.items():
        inside &= rows[name].isin(values).to_numpy()
    return rows.loc[inside]
