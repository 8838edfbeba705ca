"""What the claims of the joint exponents measure."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured, least, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import NOTHING, Estimate, median_of
from attention_coresets.analysis.stats.frames import column, groups
from attention_coresets.analysis.topics.joint_exponents.fits import at_equal_ratio, joint
from attention_coresets.analysis.topics.joint_exponents.rows import (
    BEYOND,
    CONFIGURATION,
    EXPONENTS,
    KNOWS,
    LARGE,
    RATIOS,
    WEIGHTS,
    designed,
    far,
)

_UNIT = "instances"


def exponent(symbol: str, arms: Sequence[str], finite: bool = True) -> Measure:
    """One exponent of the joint fit, a part for each arm."""

    def measure(results: Results) -> list[Measured]:
        rows = designed(results, EXPONENTS)
        found = ((arm, rows.loc[rows["arm"] == arm]) for arm in arms)
        return [_exponent(part, symbol, finite, arm) for arm, part in found if len(part)]

    return measure


def ratio_exponent() -> Measure:
    """The exponent of d among caches of equal r/d and rho, a part for each arm."""

    def measure(results: Results) -> list[Measured]:
        found = groups(designed(results, RATIOS), ["arm"])
        return [_fitted(names["arm"], at_equal_ratio, rows) for names, rows in found]

    return measure


def coordinate_exponent(symbol: str) -> Measure:
    """One exponent of the coordinate subset, Hadamard pairs, where r >= 16 (e^rho - 1)."""

    def measure(results: Results) -> list[Measured]:
        rows = far(coordinate_rows(results))
        return [_alike(_exponent(rows, symbol, False, "r ≥ 16 (e^ρ − 1)"))] if len(rows) else []

    return measure


def _exponent(rows: pd.DataFrame, symbol: str, finite: bool, label: str) -> Measured:
    return _fitted(label, lambda rows: joint(rows, finite=finite).exponents[symbol], rows)


def _fitted(label: str, law: Callable[[pd.DataFrame], Estimate], rows: pd.DataFrame) -> Measured:
    try:
        return Measured(label, law(rows), unit=_UNIT)
    except ValueError as reason:
        return Measured(label, NOTHING, str(reason), unit=_UNIT)


def _alike(part: Measured) -> Measured:
    """Instances of Hadamard pairs are alike up to symmetry: without luck the value is exact, and has no interval."""
    found = part.estimate
    exact = found.high - found.low < 1e-6
    return replace(part, estimate=replace(found, low=found.value, high=found.value, exact=True)) if exact else part


def coordinate_rows(results: Results, signs: str = "hadamard", half: bool = True) -> pd.DataFrame:
    """The coordinate subset's rows of one kind of signs, those of m = n/2 where `half`."""
    rows = designed(results, LARGE, half)
    return rows.loc[rows["signs"] == signs]


def coordinate_over_floor() -> Measure:
    """The coordinate subset's error over floor (iv) at m = n/2, Hadamard pairs, a part for each configuration."""

    def measure(results: Results) -> list[Measured]:
        return [
            _alike(Measured(setting(at), median_of(group, "over_iv"), unit=_UNIT))
            for at, group in groups(coordinate_rows(results), CONFIGURATION)
        ]

    return measure


def coordinate_median() -> Measure:
    """The median over all rows of the same."""

    def measure(results: Results) -> list[Measured]:
        rows = coordinate_rows(results)
        return [_alike(Measured(f"{len(rows)} rows", median_of(rows, "over_iv"), unit=_UNIT))] if len(rows) else []

    return measure


def best_over(results: Results, experiment: str, name: str, arms: Sequence[str] | None = None) -> list[Measured]:
    """Of each configuration at m = n/2 the arm of the smallest median of a column, of `arms` or of all that do not know
    the instance. The arm is picked on the rows it is measured on."""
    rows = designed(results, experiment)
    rows = rows.loc[rows["arm"].isin(arms)] if arms else rows.loc[rows["arm"] != KNOWS]
    parts = []
    for at, instance in groups(rows.dropna(subset=[name]), CONFIGURATION):
        found = {part["arm"]: median_of(group, name) for part, group in groups(instance, ["arm"])}
        best = min(found, key=lambda arm, found=found: found[arm].value)
        parts.append(_alike(Measured(setting({"arm": best, **at}, "arm"), found[best], unit=_UNIT)))
    return parts


def sandwich() -> Measure:
    """The best construction that does not know the instance, over floor (iv)."""
    return lambda results: best_over(results, EXPONENTS, "over_iv")


def random_signs_over_iv(rows: pd.DataFrame) -> np.ndarray:
    """rho (1 + sqrt(r/d)) / (e^rho - 1): the error over (iv), r and d large, if balanced signs look random otherwise.

    To first order in rho the error is rho times the operator norm of the r x d matrix of what is left, whose rows have
    the norm that (iv) is made of; that of random signs is 1 + sqrt(r/d) times a row's (Marchenko and Pastur). It is the
    larger of the two where rho (1 + sqrt(r/d)) is above e^rho - 1, the worst query at a centre.
    """
    return column(rows, "rho") * (1 + np.sqrt(column(rows, "clusters") / column(rows, "d"))) / column(rows, "a")


def beyond_over_iv() -> Measure:
    """The largest median error over (iv) past n = 4096, of the configurations."""
    return lambda results: best_over(results, BEYOND, "over_iv")


def beyond_over_random_signs() -> Measure:
    """The error over (iv) as a multiple of `random_signs_over_iv` at rho = 1/2, a part for each configuration."""

    def measure(results: Results) -> list[Measured]:
        rows = designed(results, BEYOND)
        rows = rows.loc[rows["rho"] == 0.5]
        rows = rows.assign(over_random=column(rows, "over_iv") / random_signs_over_iv(rows))
        return [
            Measured(setting(at), median_of(group, "over_random"), unit=_UNIT)
            for at, group in groups(rows, CONFIGURATION)
        ]

    return measure


def free_over_v() -> Measure:
    """The best coreset of any weights, whatever it knows, over floor (v), which holds for any weights."""

    def measure(results: Results) -> list[Measured]:
        arms = sorted(set(results.rows(WEIGHTS)["arm"]))
        return best_over(results, WEIGHTS, "over_v", arms) if arms else []

    return measure


def least_over_v() -> Measure:
    """The smallest error over floor (v) of all rows of the five experiments, whatever arm, size and weights."""

    def measure(results: Results) -> list[Measured]:
        rows = pd.concat([designed(results, name, half=False) for name in (EXPONENTS, RATIOS, WEIGHTS, LARGE, BEYOND)])
        return least(rows.dropna(subset=["over_v"]), "over_v")

    return measure
