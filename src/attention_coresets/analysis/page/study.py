"""The panels of the study's own page, made from a tier's results."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from attention_coresets.analysis.page import charts, measured
from attention_coresets.analysis.page.panel import AXES, SETTING, Panel
from attention_coresets.analysis.page.real import real_panels
from attention_coresets.analysis.parts.constant import with_constants
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.show import numbers
from attention_coresets.analysis.show.shown import named
from attention_coresets.analysis.stats.frames import column
from attention_coresets.analysis.topics.contents import PLANS
from attention_coresets.analysis.topics.hard_instances.signed_clusters import over_bounds
from attention_coresets.analysis.topics.league.standings import EXPERIMENT, MODELS, MORE, places

KEYS = measured.KEYS
_TOLD = {"arm": "arm", "models": "coreset model", **SETTING, "size": "m"}
# experiments whose question is the constant of the bound
CONSTANTS = ("constant", "upper_bound", "rho_rate", "d_rate", "hardness_search")


def study_panels(results: Results) -> Iterator[Panel]:
    """All panels for which the results have rows, in the order of the page."""
    rows = named(results.table)
    synthetic = rows.loc[rows["cache"] != "model"]
    sized = {plan.experiment for plan in PLANS if plan.response == "size"}
    for make, part in (
        (lambda rows: measured.sizes(rows, results.fits, "caches"), _of(synthetic, sized)),
        (_constants, _of(synthetic, set(CONSTANTS))),
        (lambda _: _floors(results), results.rows("lower_bound_orthonormal")),
        (_ceilings, synthetic.loc[synthetic["certificate"].notna()]),
        (lambda _: _league(results), _of(rows, {EXPERIMENT, MORE})),
        (measured.errors, rows.loc[rows["error"].notna()]),
    ):
        if len(part):
            yield make(part)
    yield from real_panels(results)


def _of(rows: pd.DataFrame, experiments: set[str]) -> pd.DataFrame:
    return rows.loc[rows["experiment"].isin(sorted(experiments))]


def _constants(rows: pd.DataFrame) -> Panel:
    rows = with_constants(rows)
    keys = [*KEYS, "arm", "size"]
    kinds = {"constant_sigma": "with e^(ρσ)", "constant_rho": "with e^ρ"}
    parts = [
        numbers.over_units(rows, keys, name).rename(columns={name: "value"}).assign(kind=kind)
        for name, kind in kinds.items()
    ]
    found = pd.concat(parts, ignore_index=True)
    return Panel(
        "constants",
        "The constant of the upper bound",
        "m·err / (√d·e^(ρσ)), the constant of the tilted bound, or the same with e^ρ. σ is the spread of the"
        " keys. Medians over caches with 95 % intervals. The constant that is proven is larger.",
        "Lines of the bound's constant against the axis picked, one line for each arm.",
        found,
        charts.curves("value", "constant", _TOLD | {"kind": "constant", "value": "value"}),
        pick={"kind": "Constant", **SETTING, "size": "size m"},
        against={name: AXES[name] for name in ("rho", "size", "d", "n")},
        several="arm",
        start=measured.first_arms(numbers.errors(rows, KEYS)),
        begin={"kind": "with e^(ρσ)", "experiment": "constant", "family": "sphere"},
    )


def _floors(results: Results) -> Panel:
    rows = named(over_bounds(results))
    rows = rows.loc[np.isfinite(column(rows, "excess"))].assign(fraction=rows["fraction"].round(4))
    found = numbers.over_units(rows, [*KEYS, "fraction", "arm"], "excess").rename(columns={"excess": "value"})
    return Panel(
        "floors",
        "Errors over proven floors",
        "Signed clusters with orthonormal centres: worst-case error over the largest lower bound proven for the"
        " coreset's own weights. No coreset lies below 1; at 1 nothing better is possible. Medians over caches.",
        "A point for each arm: its error over the proven floor, on a logarithmic axis with a rule at 1.",
        found,
        charts.places("value", "error / floor", _TOLD_WITHOUT_SIZE | {"fraction": "m/n", "value": "error / floor"}),
        pick={**SETTING, "fraction": "kept m/n"},
        begin={"fraction": 0.5},
    )


_TOLD_WITHOUT_SIZE = {name: title for name, title in _TOLD.items() if name != "size"}


def _ceilings(rows: pd.DataFrame) -> Panel:
    rows = rows.loc[rows["error"] > 0]
    rows = rows.assign(value=column(rows, "certificate") / column(rows, "error"))
    return Panel(
        "ceilings",
        "Proven ceilings over errors found",
        "The certificate is a proven upper bound of the error over all queries. Here it is divided by the largest"
        " error that ascent found; the true error lies between the two. At 1 it is known exactly. Medians over"
        " caches.",
        "A point for each arm: its proven ceiling over the error found, on a logarithmic axis with a rule at 1.",
        numbers.over_units(rows, [*KEYS, "size", "arm"], "value"),
        charts.places("value", "certificate / error", _TOLD | {"value": "certificate / error"}),
        pick={**SETTING, "size": "size m"},
        begin={"experiment": "adversary"},
    )


def _league(results: Results) -> Panel:
    lines = []
    for experiment in (EXPERIMENT, MORE):
        rows = results.rows(experiment)
        told = {
            name: rows.groupby("arm")[name].agg(lambda values: " ".join(sorted(set(values))))
            for name in ("model", "revision")
        }
        for model in MODELS if len(rows) else ():
            lines += [
                {
                    **{
                        "experiment": experiment,
                        "competition": model,
                        "arm": place.arm,
                        "models": told["model"][place.arm],
                    },
                    **{"value": place.error.value, "low": place.error.low, "high": place.error.high},
                    **{"units": place.error.caches, "rank": place.rank.value, "won": place.won, "of": place.cells},
                    **{"cells": f"{place.cells} settings", "revisions": told["revision"][place.arm]},
                }
                for place in places(rows, model)
            ]
    return Panel(
        "league",
        "The league of constructions",
        "Every construction at one size on every family, d and ρ: its error over that of the tilted Gram–Schmidt"
        " walk in the same setting, the geometric mean over settings; bars resample caches. Left of 1 it errs"
        " less. For free weights every arm competes.",
        "A point for each arm: its error over the tilted walk's, least above, with a rule at 1.",
        pd.DataFrame(lines),
        charts.places("value", "error over walk_tilted's", _TOLD_LEAGUE),
        pick={"experiment": "Experiment", "competition": "Coreset model"},
        begin={"competition": "free"},
        unit="families and dimensions",
    )


_TOLD_LEAGUE = {
    **{"arm": "arm", "models": "coreset model", "experiment": "experiment", "value": "ratio"},
    **{"rank": "mean rank", "won": "settings won", "of": "of"},
}
