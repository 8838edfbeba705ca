"""Fitted exponents as the text at a line's end."""

from attention_coresets.analysis.parts.exponents import coefficient
from attention_coresets.analysis.parts.results import Results


def fitted(results: Results, law: str, **fixed: object) -> dict | None:
    """The record of a fitted law that has these columns fixed, None where there is none."""
    for record in results.laws(law):
        if record["status"] == "fitted" and all(record["fixed"].get(k) == v for k, v in fixed.items()):
            return record
    return None


def slope_text(results: Results, law: str, symbol: str, sign: str, **fixed: object) -> str:
    """ "γ = 0.98 [0.95, 1.02]" from the record that has these columns fixed; empty where there is none."""
    if (record := fitted(results, law, **fixed)) is None:
        return ""
    found, _ = coefficient(record, symbol)
    return f"{sign} = {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
