"""What a sweep measured, as tables: errors by arm and size, sizes for an error, ratios of arms, and fitted laws."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attention_coresets.analysis.figures.sizes import sizes_at
from attention_coresets.analysis.show.shown import SETTING, UNIT
from attention_coresets.analysis.stats.estimates import Estimate, median, paired_ratios
from attention_coresets.analysis.stats.frames import column, distinct, groups, means, medians
from attention_coresets.analysis.stats.plan import ARM, FitPlan
from attention_coresets.analysis.stats.planned_fits import fit_all, variant
from attention_coresets.analysis.stats.sizes import INTERVAL

ROUND = tuple(factor * 10.0**power for power in range(0, -7, -1) for factor in (5, 2, 1))  # errors one asks for
REPLICATES = 200  # of the generic laws: a look, not a claim
MOST_LAWS = 60
# a column that a sweep may vary -> the symbol of its coefficient, the column that is fitted
FEATURES = {"n": ("nu", "log_n"), "d": ("alpha", "log_d"), "rho": ("beta_rho", "rho")}
GAMMA = ("gamma", "log_inv_epsilon")
_DETAILS = ("model", "cell", "revision")


def varying(rows: pd.DataFrame) -> list[str]:
    """The columns of SETTING that have several values."""
    return [name for name in SETTING if len(distinct(rows, name)) > 1]


def apart(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict, pd.DataFrame]]:
    """({column: value}, rows) of each combination; all rows where there is no column."""
    yield from groups(rows, by) if by else [({}, rows)]


def where(rows: pd.DataFrame, names: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of one combination."""
    return rows.loc[(rows[list(names)] == pd.Series(dict(names))).all(axis=1)] if names else rows


def errors(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The median error of each combination of `by`, arm and size, as `over_units`."""
    return over_units(rows, [*by, "arm", "size"], "error")


def over_units(rows: pd.DataFrame, keys: Sequence[str], name: str) -> pd.DataFrame:
    """A row for each combination of `keys`: the median over units of each unit's own median of a positive column, as
    `estimates.median_of`.

    Columns beside `keys` and `name`: low, high, units; models, cells and revisions as words.
    """
    keys = list(keys)
    each = medians(rows, [*keys, *UNIT], [name])
    lines = []
    for names, group in groups(each, keys):
        found = median(column(group, name), positive=True)
        lines.append(names | {name: found.value, "low": found.low, "high": found.high, "units": found.caches})
    told = pd.DataFrame(rows.groupby(keys, as_index=False)[list(_DETAILS)].agg(_words))
    plural = {detail: f"{detail}s" for detail in _DETAILS}
    return pd.DataFrame(lines).merge(told.rename(columns=plural), on=keys)


def _words(values: pd.Series) -> str:
    return " ".join(sorted(set(values)))


def ratios(rows: pd.DataFrame, other: str) -> dict[str, Estimate]:
    """Every arm's error over another's on the same units and settings, paired (`estimates.paired_ratio`)."""
    return paired_ratios(rows, other, caches=UNIT)


def ranked(found: pd.DataFrame) -> list[str]:
    """Arms of `errors`, the least first: by their mean logarithm over the sizes and settings that they ran at."""
    logs = found.assign(log_error=np.log(column(found, "error").clip(1e-300)))
    together = logs.groupby([name for name in (*SETTING, "size") if name in found])["log_error"]
    centred = logs["log_error"] - together.transform("mean")
    each = means(logs.assign(centred=centred), ["arm"], ["centred"])
    return [arm for _, arm in sorted(zip(column(each, "centred"), each["arm"], strict=True))]


def epsilons(rows: pd.DataFrame, by: Sequence[str], most: int = 3) -> list[float]:
    """Round errors that the sizes measured resolve for most arms and settings, the largest first."""
    found = column(rows, "error")
    between = [epsilon for epsilon in ROUND if found.min() <= epsilon <= found.max()]
    if not between:
        return []
    sizes = sizes_at(rows, by, between, everywhere=True)
    resolved = sizes.loc[sizes["status"] == INTERVAL].groupby("epsilon").size()
    return sorted(resolved.sort_values(ascending=False, kind="stable").index[:most], reverse=True)


def sizes(rows: pd.DataFrame, by: Sequence[str], asked: Sequence[float]) -> pd.DataFrame:
    """The sizes for each epsilon by arm and `by`, as `figures.sizes.sizes_at`, all sizes measured counted."""
    return sizes_at(rows, by, asked, everywhere=True)


def laws(rows: pd.DataFrame) -> list[dict]:
    """log m(epsilon) = const + gamma log 1/epsilon + a coefficient for each of n, d and rho that varies, fitted for
    each arm and family apart: records of `planned_fits.fit_all`. ValueError where there are more than MOST_LAWS."""
    count = len(rows[["arm", "family"]].drop_duplicates())
    if count > MOST_LAWS:
        raise ValueError(f"{count} arms and families would take minutes; show fewer of them")
    features = tuple(FEATURES[name] for name in varying(rows) if name in FEATURES)
    experiment = str(rows["experiment"].iloc[0])
    plan = FitPlan("size", experiment, "size", (GAMMA, *features), ARM, "log_inv_epsilon")
    return fit_all(rows, [plan], replicates=REPLICATES)


def predicted(rows: pd.DataFrame, records: Sequence[Mapping[str, Any]], asked: np.ndarray) -> np.ndarray | None:
    """The size of the fitted law at each epsilon, for rows of one arm and one setting; None where they are several or
    no law of the size over a whole range holds them."""
    settings = rows[["arm", "cache", "cache_params", "n", "d", "rho"]].drop_duplicates()
    if len(settings) != 1:
        return None
    here = settings.iloc[0].to_dict()
    here["variant"] = variant(here["cache_params"])
    slopes = next((_slopes(record) for record in records if _holds(record, here)), None)
    if slopes is None:
        return None
    at = {"nu": np.log(here["n"]), "alpha": np.log(here["d"]), "beta_rho": here["rho"]}
    at["beta"] = column(rows, "exponent").mean()
    fixed = slopes["const"] + sum(value * at[name] for name, value in slopes.items() if name in at)
    return np.exp(fixed - slopes["gamma"] * np.log(asked))


def _holds(record: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether a law is one of sizes, fitted to a whole range, and to rows such as these."""
    if record["status"] != "fitted" or record["response"] != "size" or "window" in record:
        return False
    return all(here[name] == value for name, value in record["fixed"].items())


def _slopes(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: found["value"] for name, found in record["coefficients"].items()}
