"""Holds measured errors of the tilted walk to the bound that is proven for it (docs/theory.md, section Balancing)."""

import pandas as pd

from attention_coresets.analysis.stats.frames import column
from attention_coresets.upper_bound import balancing_bound, balancing_constant

ARM = "walk_tilted"
FAILURE = 0.01  # the probability that any of the rows, all together, lies above its bound


def held_to_bound(rows: pd.DataFrame, failure: float = FAILURE) -> pd.DataFrame:
    """The rows of arm walk_tilted, of all experiments and families, beside what is proven of them.

    Three columns are added. `bound_mean` holds for the mean over walks; `bound` for every row at once with probability
    1 - failure; `constant_bound` is the ceiling of the mean of the column `constant`, m err / (sqrt(d) e^{rho sigma}).
    A row's d, m, rho and sigma are all that is needed if its values have norms of at most 1 and its dimension d; capped
    tokens only lower the error's bound. Where a bound is 2, nothing is said.
    """
    walks = rows.loc[(rows["arm"] == ARM) & rows["error"].notna()]
    settings = list(zip(walks["d"], walks["size"], walks["rho"], walks["sigma"], strict=True))
    each = failure / max(len(walks), 1)
    return walks.assign(
        bound_mean=[balancing_bound(d, d, m, rho, sigma) for d, m, rho, sigma in settings],
        bound=[balancing_bound(d, d, m, rho, sigma, delta=each) for d, m, rho, sigma in settings],
        constant_bound=[balancing_constant(d, d, rho, sigma) for d, _, rho, sigma in settings],
    )


def largest_shares(rows: pd.DataFrame, bound: str = "bound_mean") -> pd.DataFrame:
    """The row of largest error / bound of each family, with this `share`; rows whose bound is 2 are left out.

    `bound` names a column of `held_to_bound`. A share above 1 of "bound" would refute the proof or the code. Single
    walks may exceed "bound_mean", their mean may not.
    """
    held = held_to_bound(rows)
    held = held.assign(share=column(held, "error") / column(held, bound))
    held = held.loc[column(held, bound) < 2]
    return held.loc[held.groupby("cache")["share"].idxmax()].sort_values("share", ascending=False)
