"""The rows of signed clusters whose law is fitted, with what the floors say of each."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column
from attention_coresets.lower_bound import any_weights_floor, equal_weights_floor

EXPONENTS, WEIGHTS, LARGE = "lower_bound_exponents", "lower_bound_weights", "lower_bound_large"
BEYOND, RATIOS = "lower_bound_beyond", "lower_bound_ratios"
KNOWS = "coordinate_subset"  # the one construction that is given the instance
CONFIGURATION = ["n", "d", "clusters", "rho"]


def designed(results: Results, experiment: str, half: bool = True) -> pd.DataFrame:
    """The rows of an experiment `with_floors`, those of m = n/2 where `half`."""
    rows = with_floors(results.rows(experiment))
    return rows.loc[2 * rows["size"] == rows["n"]] if half else rows


def with_floors(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of signed clusters with columns

    clusters; ratio = clusters / d; signs; a = e^rho - 1 and log_a; sharp_a, the same at the sharpened query; share =
    m / n; iv and v, the floors for equal and for any weights; over_iv and over_v, the error over them. Where (v) says
    nothing it is NaN.
    """
    d, n, rho, size = (rows[name].to_numpy() for name in ("d", "n", "rho", "size"))
    clusters = n // d
    signs = ["hadamard" if '"signs": "hadamard"' in text else "random" for text in rows["cache_params"]]
    places = list(zip(d.tolist(), clusters.tolist(), size.tolist(), rho.tolist(), strict=True))
    iv = np.array([equal_weights_floor(*place) for place in places], dtype=float)
    v = np.array([any_weights_floor(*place) for place in places], dtype=float)
    error = column(rows, "error")
    rows = rows.assign(
        clusters=clusters,
        ratio=clusters / d,
        signs=signs,
        a=np.expm1(rho),
        sharp_a=np.expm1(rho * np.sqrt(clusters / np.maximum(clusters - 1, 1))),
        share=size / np.maximum(n, 1),
        iv=iv,
        v=np.where(v > 0, v, np.nan),
    )
    return rows.assign(log_a=np.log(rows["a"]), over_iv=error / iv, over_v=error / rows["v"].to_numpy())


def far(rows: pd.DataFrame, ratio: float = 16.0) -> pd.DataFrame:
    """Those with r >= ratio (e^rho - 1), where the floor is nearest to its limit."""
    return rows.loc[column(rows, "clusters") >= ratio * column(rows, "a")]


def decades(rows: pd.DataFrame, error: str = "error") -> float:
    """Over how many powers of ten sqrt(d) (e^rho - 1) / error reaches."""
    x = np.sqrt(column(rows, "d")) * column(rows, "a") / column(rows, error)
    return float(np.log10(x.max() / x.min())) if len(x) else 0.0
