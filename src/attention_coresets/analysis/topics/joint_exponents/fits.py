"""log m = c + alpha log d + beta log(e^rho - 1) + gamma log(1/epsilon), all three free.

A row is a coreset: its size m is what was asked for, its epsilon the error measured. The same fit with a floor in
place of the errors is the control: it says what a sample of this design reads where the law is known.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from attention_coresets.analysis.stats.bootstrap import bootstrap
from attention_coresets.analysis.stats.estimates import Estimate
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.stats.power_law import fit

SYMBOLS = ("α", "β", "γ")
CLUSTERS = ("seed", "head")  # one seed and head draws related instances at every d, r and rho


@dataclass(frozen=True)
class Joint:
    """The three exponents with intervals over instances, and the ends between which each moves as one d is left out."""

    exponents: dict[str, Estimate]
    without: dict[str, tuple[float, float]]
    rows: int


def joint(rows: pd.DataFrame, error: str = "error", finite: bool = False, beta: str = "log_a") -> Joint:
    """The fit to rows of m = n/2 (`rows.designed`).

    error: the column that epsilon is read from, "error", or "iv" and "v" for a control. finite: the law as floor (iv)
    has it at finite n: with a at the sharpened query, m + d a / 2 in place of m. For m = n/2 and epsilon the floor that
    is d (r + a) / 2 = sqrt(d) a / (2 epsilon) without a remainder, so the control reads (1/2, 1, 1) exactly. beta: the
    covariate of β; "rho" for the slope in plain rho, descriptive only.

    Raises ValueError where the rows do not determine the three, and with fewer than 3 instances.
    """
    prepared, features = _prepared(rows, error, finite, beta)
    law = fit(prepared, features, clusters=CLUSTERS)
    ends = bootstrap(prepared, features, np.random.default_rng(0), clusters=CLUSTERS)
    found = {name: Estimate(law.coefficients[name], *ends[name], law.clusters) for name in SYMBOLS}
    return Joint(found, _leave_one_d_out(prepared, features), len(rows))


def point(rows: pd.DataFrame, error: str, finite: bool = False, beta: str = "log_a") -> dict[str, float]:
    """The exponents alone, for controls: a floor has no luck."""
    prepared, features = _prepared(rows, error, finite, beta)
    law = fit(prepared, features, clusters=CLUSTERS)
    return {name: law.coefficients[name] for name in SYMBOLS}


def at_equal_ratio(rows: pd.DataFrame) -> Estimate:
    """alpha where rows of the same r/d and rho are compared: 1/2 + s, for error over (iv) proportional to d^s with a
    constant for each r/d and rho. At gamma = 1, which no fit at equal r/d can tell: m is r/d d^2 / 2 there.

    Raises ValueError as `joint`.
    """
    kind = rows.groupby(["ratio", "rho"]).ngroup().to_numpy()
    features = {"d": np.log(column(rows, "d"))} | {
        f"kind {k}": (kind == k).astype(float) for k in range(1, kind.max() + 1)
    }
    prepared = rows.assign(lo=rows["over_iv"], hi=rows["over_iv"])
    law = fit(prepared, features, clusters=CLUSTERS)
    low, high = bootstrap(prepared, features, np.random.default_rng(0), clusters=CLUSTERS)["d"]
    return Estimate(0.5 + law.coefficients["d"], 0.5 + low, 0.5 + high, law.clusters)


def with_share(rows: pd.DataFrame, error: str = "error", covariate: bool = True) -> dict[str, float]:
    """The exponents from rows of several shares m/n, with the covariate log(sqrt(m (n - m)) / n) or without it."""
    prepared, features = _prepared(rows, error, False, "log_a")
    if covariate:
        size, n = column(rows, "size"), column(rows, "n")
        prepared = prepared.assign(share_term=np.log(np.sqrt(size * (n - size)) / n))
        features = {**features, "share": "share_term"}
    law = fit(prepared, features, clusters=CLUSTERS)
    return {name: law.coefficients[name] for name in SYMBOLS}


def _prepared(rows: pd.DataFrame, error: str, finite: bool, beta: str) -> tuple[pd.DataFrame, dict[str, str]]:
    size = column(rows, "size") + (column(rows, "d") * column(rows, "sharp_a") / 2 if finite else 0.0)
    prepared = rows.assign(
        lo=size,
        hi=size,
        log_d=np.log(column(rows, "d")),
        log_sharp_a=np.log(column(rows, "sharp_a")),
        log_inv_epsilon=-np.log(column(rows, error)),
    )
    return prepared, {"α": "log_d", "β": "log_sharp_a" if finite else beta, "γ": "log_inv_epsilon"}


def _leave_one_d_out(prepared: pd.DataFrame, features: dict[str, str]) -> dict[str, tuple[float, float]]:
    found = []
    for d in distinct(prepared, "d"):
        try:
            found.append(fit(prepared.loc[prepared["d"] != d], features, clusters=CLUSTERS).coefficients)
        except ValueError:  # the rest does not determine the three: that d carries the fit
            return dict.fromkeys(SYMBOLS, (np.nan, np.nan))
    return {name: (min(c[name] for c in found), max(c[name] for c in found)) for name in SYMBOLS}
