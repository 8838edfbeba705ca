"""log m = c + alpha log d + beta log(e^rho - 1) + gamma log(1/epsilon), all three free.

A row is a coreset: its size m is what was asked for, its epsilon the error measured. So log epsilon is what is fitted,
and the law solved for m afterwards: with the error, which varies from coreset to coreset, among the covariates gamma
comes out too small, and alpha and beta take part of what it lost. The same fit with a floor in place of the errors is
the control: it says what a sample of this design reads where the law is known.
"""

from collections.abc import Mapping
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
    values, clusters = _solved(prepared, features)
    ends = bootstrap(prepared, features, np.random.default_rng(0), clusters=CLUSTERS, derived=_for_size)
    found = {name: Estimate(values[name], *ends[name], clusters) for name in SYMBOLS}
    return Joint(found, _leave_one_d_out(prepared, features), len(rows))


def point(rows: pd.DataFrame, error: str, finite: bool = False, beta: str = "log_a") -> dict[str, float]:
    """The exponents alone, for controls: a floor has no luck."""
    return _solved(*_prepared(rows, error, finite, beta))[0]


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
    return _solved(prepared, features)[0]


def _prepared(rows: pd.DataFrame, error: str, finite: bool, beta: str) -> tuple[pd.DataFrame, dict[str, str]]:
    size = column(rows, "size") + (column(rows, "d") * column(rows, "sharp_a") / 2 if finite else 0.0)
    prepared = rows.assign(
        lo=rows[error],
        hi=rows[error],
        log_d=np.log(column(rows, "d")),
        log_sharp_a=np.log(column(rows, "sharp_a")),
        log_inv_size=-np.log(size),
    )
    return prepared, {"α": "log_d", "β": "log_sharp_a" if finite else beta, "decay": "log_inv_size"}


def _solved(prepared: pd.DataFrame, features: dict[str, str]) -> tuple[dict[str, float], int]:
    """The exponents of the size, and the number of clusters."""
    law = fit(prepared, features, clusters=CLUSTERS)
    found = _for_size({name: np.array([value]) for name, value in law.coefficients.items()})
    return {name: float(found[name][0]) for name in SYMBOLS}, law.clusters


def _for_size(law: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """log error = c + a log d + b log(e^rho - 1) - s log m, solved for log m: alpha = a/s, beta = b/s, gamma = 1/s.

    Raises ValueError where the error does not fall as m grows.
    """
    if not (law["decay"] > 0).all():
        raise ValueError("the errors do not fall as the size grows: no size is told from them")
    return {"α": law["α"] / law["decay"], "β": law["β"] / law["decay"], "γ": 1 / law["decay"]}


def _leave_one_d_out(prepared: pd.DataFrame, features: dict[str, str]) -> dict[str, tuple[float, float]]:
    found = []
    for d in distinct(prepared, "d"):
        try:
            found.append(_solved(prepared.loc[prepared["d"] != d], features)[0])
        except ValueError:  # the rest does not determine the three: that d carries the fit
            return dict.fromkeys(SYMBOLS, (np.nan, np.nan))
    return {name: (min(c[name] for c in found), max(c[name] for c in found)) for name in SYMBOLS}
