"""The bound's constant of every row of the tilted walk, whichever experiment it was measured in."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.constant import with_constants
from attention_coresets.analysis.parts.measured import Measured, largest, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import LEAST
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.upper_bound.ceiling import held_to_bound

EXPERIMENT, WALK = "upper_bound", "walk_tilted"
CONSTANT = "constant_sigma"
_CORESET = ["cache", "cache_params", "objective", "rho", "seed", "head", "draw", "size"]
_SETTING = ["cache", "cache_params", "n", "d", "rho", "size"]


def every_walk(results: Results, experiment: str | None = None) -> pd.DataFrame:
    """The tilted walk's rows of all experiments, or of one, with constants: each coreset once, its largest error."""
    table = results.table if experiment is None else results.rows(experiment)
    rows = table.loc[(table["arm"] == WALK) & table["error"].notna()]
    return with_constants(rows.sort_values("error", ascending=False).drop_duplicates(_CORESET).sort_index())


def synthetic_walks(results: Results) -> pd.DataFrame:
    rows = every_walk(results)
    return rows.loc[rows["cache"] != "model"]


def largest_of_all(results: Results) -> list[Measured]:
    """The largest constant of all synthetic rows."""
    return largest(synthetic_walks(results), CONSTANT, "cache")


def largest_by_family(results: Results) -> list[float]:
    """The largest constant of each synthetic family."""
    return [column(group, CONSTANT).max() for _, group in groups(synthetic_walks(results), ["cache"])]


def largest_over_proven(results: Results) -> list[Measured]:
    """The largest error over what is proven of all rows at once with probability 0.99, where that is below 2."""
    rows = held_to_bound(results.table.loc[results.table["cache"] != "model"])
    rows = rows.loc[column(rows, "bound") < 2]
    return largest(rows.assign(share=column(rows, "error") / column(rows, "bound")), "share", "cache")


def largest_median(rows: pd.DataFrame) -> tuple[float, str]:
    """The largest median over caches of one setting, and the setting; only those of at least 3 caches count."""
    each = rows.groupby(_SETTING, as_index=False).agg(middle=(CONSTANT, "median"), caches=(CONSTANT, "size"))
    each = each.loc[each["caches"] >= LEAST]
    if each.empty:
        return np.nan, ""
    best = each.iloc[int(column(each, "middle").argmax())]
    return float(best["middle"]), setting(best.to_dict(), "cache")


def comparable(results: Results) -> pd.DataFrame:
    """The experiment's rows of one cache a setting, at the shares m/n that were run at every n of those kept.

    More caches and sizes at one n than at another would make its largest constant larger by themselves. The n of fewest
    shares is left out until the others have two in common.
    """
    rows = every_walk(results, EXPERIMENT)
    rows = rows.loc[rows["head"] == 0]
    rows = rows.assign(share=column(rows, "size") / column(rows, "n"))
    shares = {n: set(column(rows.loc[rows["n"] == n], "share")) for n in distinct(rows, "n")}
    while len(shares) > 1 and len(set.intersection(*shares.values())) < 2:
        shares.pop(min(shares, key=lambda n: len(shares[n])))
    common = set.intersection(*shares.values()) if shares else set()
    return rows.loc[rows["n"].isin(list(shares)) & rows["share"].isin(list(common))]


def slopes(rows: pd.DataFrame) -> dict[str, float]:
    """Least-squares slopes of log(largest constant of a setting) in log d, rho and log n; NaN for what does not vary.

    Descriptive: without intervals, for a maximum over a few rows has no simple one.
    """
    top = pd.DataFrame(rows.groupby(["n", "d", "rho"], as_index=False)[CONSTANT].max())
    features = {"log d": np.log(column(top, "d")), "ρ": column(top, "rho"), "log n": np.log(column(top, "n"))}
    varied = {name: x for name, x in features.items() if len(set(x)) > 1}
    design = np.column_stack([np.ones(len(top)), *varied.values()])
    found = np.linalg.lstsq(design, np.log(column(top, CONSTANT)), rcond=None)[0]
    return dict.fromkeys(features, np.nan) | dict(zip(varied, found[1:].tolist(), strict=True))


def certified(results: Results, rho: float = 3.0) -> pd.DataFrame:
    """The rows at this radius that have a certificate, with m ceiling / (sqrt(d) e^{rho sigma}) and ceiling / error."""
    rows = every_walk(results)
    rows = rows.loc[(rows["rho"] == rho) & rows["certificate"].notna()]
    times = column(rows, "certificate") / column(rows, "error")
    return rows.assign(certified=times * column(rows, CONSTANT), over_error=times)
