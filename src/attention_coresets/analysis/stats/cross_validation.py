"""How much of what was not seen a linear law explains: R² over folds of whole groups."""

import numpy as np
from jaxtyping import Float, Shaped

from attention_coresets.analysis.stats.estimates import LEAST, Estimate, stretched

FOLDS = 10
_REPLICATES, _STREAM = 2000, 4096


def explained(
    y: Float[np.ndarray, "rows"], features: Float[np.ndarray, "rows p"], groups: Shaped[np.ndarray, "rows"]
) -> Estimate:
    """1 - (squared errors of predicted rows) / (those of the mean of the other folds), each row predicted once.

    Least squares with a constant is fitted without the row's fold: a tenth of the groups, every tenth by number, or one
    group where there are fewer. The interval resamples groups, whose predictions stay as they are.

    Raises ValueError for fewer than two groups.
    """
    labels, number = np.unique(groups, return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} groups have no folds; at least 2 are needed")
    design, fold = np.c_[np.ones(len(y)), features], number % min(FOLDS, len(labels))
    missed, spread = np.empty(len(y)), np.empty(len(y))
    for k in np.unique(fold):
        seen = fold != k
        law = np.linalg.lstsq(design[seen], y[seen], rcond=None)[0]
        missed[~seen], spread[~seen] = y[~seen] - design[~seen] @ law, y[~seen] - y[seen].mean()
    sums = np.stack([np.bincount(number, weights=each**2) for each in (missed, spread)])  # [2, groups]
    value = float(1 - sums[0].sum() / sums[1].sum())
    if len(labels) < LEAST:
        return Estimate(value, np.nan, np.nan, len(labels))
    rng = np.random.default_rng([_STREAM, len(labels)])
    counts = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=_REPLICATES)
    drawn = 1 - (counts @ sums[0]) / (counts @ sums[1])
    return stretched(value, drawn, len(labels))
