"""Where between two grid sizes a measured curve reaches epsilon."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.stats.frames import column
from attention_coresets.analysis.stats.sizes import INTERVAL

_TINY = 1e-12  # what the search for the worst query resolves; keeps the logarithm of an exact coreset's error finite


def crossings(sizes: pd.DataFrame, errors: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The rows of a size table with the column `middle`, in tokens.

    Between lo and hi it is where the straight line through (log m, log error) at both ends meets epsilon; for a
    censored row it is the finite end. `errors` has the columns `by`, size and error, one row each: the curve from which
    `sizes` (columns `by`, epsilon, lo, hi, status) was made.
    """
    found = sizes.loc[sizes["status"] == INTERVAL]
    for end in ("lo", "hi"):
        at_end = errors[[*by, "size", "error"]].set_axis([*by, end, f"error_{end}"], axis=1)
        found = found.merge(at_end.astype({end: float}), on=[*by, end])
    log = {name: np.log(column(found, name).clip(_TINY)) for name in ("lo", "hi", "epsilon", "error_lo", "error_hi")}
    share = (log["error_lo"] - log["epsilon"]) / (log["error_lo"] - log["error_hi"])
    inside = found[sizes.columns].assign(middle=np.exp(log["lo"] + share * (log["hi"] - log["lo"])))
    outside = sizes.loc[sizes["status"] != INTERVAL]
    ends = np.where(np.isinf(column(outside, "hi")), column(outside, "lo"), column(outside, "hi"))
    return pd.concat([inside, outside.assign(middle=ends)]).sort_values([*by, "epsilon"], ignore_index=True)
