"""Sentences with numbers on the hard instances."""

from attention_coresets.analysis.parts.markdown import interval
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import claimed, span
from attention_coresets.analysis.topics.joint_exponents.claims import CLAIMS


def where_it_binds(results: Results) -> str:
    """The joint exponents of the best constructions, and how close they come to the floor."""
    exponents, factor = found_joint(results), found_sandwich(results)
    if not exponents or not factor:
        return ""
    return (
        f"**Hard caches** (signed clusters, m = n/2; α, β, γ fitted together): {exponents}; the theorem has ½, 1,"
        f" 1. The best construction that is not told the clusters errs by {factor} times the floor."
    )


def found_joint(results: Results) -> str:
    """α, β and γ of the first arm of `claims.NEAR`."""
    parts = [(symbol, claimed(CLAIMS, results, f"joint_{name}")) for symbol, name in _SYMBOLS]
    if not all(found for _, found in parts):
        return ""
    return ", ".join(f"{symbol} = {interval(found[0].estimate)}" for symbol, found in parts)


def found_ratio(results: Results) -> str:
    """α among caches of equal r/d, from the least to the largest of the arms."""
    found = claimed(CLAIMS, results, "ratio_alpha")
    return span(found) if found else ""


def found_sandwich(results: Results) -> str:
    found = claimed(CLAIMS, results, "sandwich_factor")
    return span(found) if found else ""


_SYMBOLS = (("α", "alpha"), ("β", "beta"), ("γ", "gamma"))
