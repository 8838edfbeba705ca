"""The league of all constructions: in every cell their errors at one size, ranks, and ours over the best of the others.

A cell is a (family, n, d, rho, size); an arm's error there is the geometric mean over the cell's heads. The cells of
one family and dimension at several rho are the same caches, so intervals resample these, not cells; resampling whole
families, as if others might have been chosen, is harsher still and is shown beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from attention_coresets.analysis.parts.arm_names import is_ours
from attention_coresets.analysis.stats.estimates import NOTHING, Estimate, clustered_mean
from attention_coresets.analysis.stats.frames import column

EXPERIMENT = "league"
MORE = "league_unseen"  # UNSEEN at more dimensions and another seed
MODELS = ("unweighted", "tilted", "free")
UNSEEN = ("product", "low_rank")  # not looked at while our construction was made; fixed before any run
REFERENCE = "walk_tilted"
CELL = ["cache", "n", "d", "rho", "size"]
CACHES, FAMILIES = ("cache", "n", "d"), ("cache",)  # what is resampled
LEAST_ERROR = 1e-6  # a cell in which some coreset is as good as exact decides nothing


@dataclass(frozen=True)
class Standings:
    """`errors`: log of each arm's error, a row for each cell that counts (index `CELL`), a column for each arm, NaN
    where it has not run on all of the cell's heads; `left_out`: cells in which some error is at most LEAST_ERROR."""

    errors: pd.DataFrame
    left_out: int


@dataclass(frozen=True)
class Place:
    """An arm's line in a league table: mean rank, cells won, error over walk_tilted's, cells it ran in; `error` is a
    geometric mean over those of the cells, `compared`, where no coreset of free weights is as good as exact."""

    arm: str
    rank: Estimate
    won: int
    error: Estimate
    cells: int
    compared: int


def our_arm(model: str) -> str:
    """The label of our own construction in a coreset model."""
    return f"minimax_{model}"


def our_arms(model: str) -> tuple[str, ...]:
    """The labels of all our constructions in a coreset model: with fixed weights there is the portfolio too."""
    return (our_arm(model),) if model == "free" else (our_arm(model), f"portfolio_{model}")


def entrants(rows: pd.DataFrame, model: str) -> pd.DataFrame:
    """The rows that compete in a coreset model. Any coreset is a free one, so in `free` every arm does."""
    return rows if model == "free" else rows.loc[rows["model"] == model]


def standings(rows: pd.DataFrame, model: str) -> Standings:
    """Errors of the arms that compete in `model`, cell by cell."""
    own = entrants(rows, model)
    own = own.assign(least=own.groupby(CELL)["error"].transform("min"))
    counted = own.loc[column(own, "least") > LEAST_ERROR]
    logs = counted.assign(log_error=np.log(column(counted, "error")))
    errors, heads = (logs.pivot_table("log_error", CELL, "arm", aggfunc=how) for how in ("mean", "count"))
    complete = heads.eq(heads.max(axis=1), axis=0)
    return Standings(errors.where(complete), len(own[CELL].drop_duplicates()) - len(errors))


def against_best(rows: pd.DataFrame, model: str, ours: str | None = None) -> pd.DataFrame:
    """The cells that our arm `ours`, or else `our_arm`, ran in: those of `CELL`, rival, the arm with the least error
    there of those that are not ours, and log_ratio = log(our error / the rival's). No rows where ours or all others
    are missing."""
    errors = standings(rows, model).errors
    ours, rivals = ours or our_arm(model), [arm for arm in errors if not is_ours(str(arm))]
    if ours not in errors or not rivals:
        return pd.DataFrame(columns=[*CELL, "rival", "log_ratio"])
    both = errors.loc[errors[ours].notna() & errors[rivals].notna().any(axis=1)]
    best = both[rivals].idxmin(axis=1).to_numpy()
    log_ratio = column(both, ours) - both[rivals].min(axis=1).to_numpy()
    return both.index.to_frame(index=False).assign(rival=best, log_ratio=log_ratio)


def mean_ratio(cells: pd.DataFrame, clusters: Sequence[str] = CACHES) -> Estimate:
    """The geometric mean over cells of what `against_best` found."""
    return _over_cells(column(cells, "log_ratio"), _clusters(cells, clusters)).exp()


def places(rows: pd.DataFrame, model: str) -> list[Place]:
    """Every arm that competes in `model`, best mean rank first; an arm is ranked among those that ran in the cell."""
    errors = standings(rows, model).errors
    ranks = errors.rank(axis=1)
    first = ranks.eq(ranks.min(axis=1), axis=0)
    over, caches = _over_reference(rows, errors), _clusters(errors.reset_index())
    found = [
        Place(
            arm,
            _over_cells(column(ranks, arm), caches).at_least(1.0),  # no rank is below the first
            int(column(first, arm).sum()),
            _over_cells(column(over, arm), caches).exp(),
            int(np.isfinite(column(errors, arm)).sum()),
            int(np.isfinite(column(over, arm)).sum()),
        )
        for arm in errors.columns.tolist()
    ]
    return sorted(found, key=lambda place: (place.rank.value, place.arm))


def _over_reference(rows: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """Log errors less those of walk_tilted in the same cells, NaN where it has none that counts."""
    everyone = standings(rows, "free").errors
    if REFERENCE not in everyone:
        return errors * np.nan
    return errors.sub(column(everyone.reindex(errors.index), REFERENCE), axis=0)


def _clusters(cells: pd.DataFrame, by: Sequence[str] = CACHES) -> Int[np.ndarray, "cells"]:
    """Which cells are resampled together: those with the same number."""
    return cells.groupby(list(by)).ngroup().to_numpy()


def _over_cells(values: Float[np.ndarray, "cells"], clusters: Int[np.ndarray, "cells"]) -> Estimate:
    """The mean over the cells that have a value."""
    known = np.isfinite(values)
    return clustered_mean(values[known], clusters[known]) if known.any() else NOTHING
