"""The upper bound's constant, row by row."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.stats.frames import column


def with_constants(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with constant_sigma = m err / (sqrt(d) e^{rho sigma}), of the tilted bound, and constant_rho, with
    e^rho."""
    rho, sigma = column(rows, "rho"), column(rows, "sigma")
    base = column(rows, "size") * column(rows, "error") / np.sqrt(column(rows, "d"))
    return rows.assign(constant_sigma=base * np.exp(-rho * sigma), constant_rho=base * np.exp(-rho))
