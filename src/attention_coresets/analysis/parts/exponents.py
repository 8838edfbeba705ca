"""Measures that read an exponent off the fitted laws."""

from collections.abc import Mapping
from typing import Any

from attention_coresets.analysis.parts.measured import SYMBOL, Measure, Measured, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import NOTHING, Estimate

# a coefficient of a size law, as tables name it
SYMBOLS = {"gamma": "γ (1/ε)", "alpha": "α (d)", "beta": "β (x)", "beta_rho": "slope in ρ", "nu": "ν (n)"}


def law(name: str, symbol: str, arm: str, cache: str) -> Measure:
    """The fitted coefficient `symbol` of one arm and family, a part for each combination that the law holds fixed, with
    what was varied where that is not the same for all of them."""

    def measure(results: Results) -> list[Measured]:
        records = [r for r in results.laws(name) if (r["fixed"]["arm"], r["fixed"]["cache"]) == (arm, cache)]
        alike = len({spans(record) for record in records}) == 1
        return [
            Measured(setting(record["fixed"]) + ("" if alike else spans(record)), *coefficient(record, symbol))
            for record in records
        ]

    return measure


def law_everywhere(name: str, symbol: str, arm: str) -> Measure:
    """As `law`, over every family: the settings begin with the family's name."""

    def measure(results: Results) -> list[Measured]:
        records = [record for record in results.laws(name) if record["fixed"]["arm"] == arm]
        return [Measured(setting(r["fixed"], "cache"), *coefficient(r, symbol)) for r in records]

    return measure


def spans(record: Mapping[str, Any]) -> str:
    """What varied among the sizes of a fitted law: ", d = 4 to 32"."""
    ends = record.get("spans", {})
    return "".join(f", {SYMBOL[name]} = {low:g} to {high:g}" for name, (low, high) in ends.items())


def coefficient(record: Mapping[str, Any], symbol: str) -> tuple[Estimate, str]:
    """A coefficient of a record of fits.json, or nothing and the reason why it was not fitted."""
    if record["status"] != "fitted":
        return NOTHING, record["reason"]
    found = record["coefficients"][symbol]
    return Estimate(found["value"], found["low"], found["high"], record["clusters"]), ""
