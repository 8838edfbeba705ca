"""The league as Markdown: a table of places for each coreset model, and ours against the best other by family."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.league import certified
from attention_coresets.analysis.topics.league import standings as league

_HEAD = [
    "Place",
    ARM,
    "Mean rank, 95 %",
    "Cells won",
    "Error / walk_tilted's, 95 %",
    "Cells",
    "Certificate / walk_tilted's, 95 %",
]


def league_section(results: Results) -> str:
    """Ours against the best other, then the places of every arm, model by model."""
    rows = results.rows(league.EXPERIMENT)
    places = (_places(results, model) for model in league.MODELS if _competed(rows, model))
    return "\n\n".join(text for text in (_ahead(rows), *places) if text)


def unseen_section(results: Results) -> str:
    """Ours against the best other on the families not met, at more dimensions."""
    return _ahead(results.rows(league.MORE))


def _ahead(rows: pd.DataFrame) -> str:
    """Each of our arms against the best other: by family, then by rho and d."""
    arms = [(model, ours) for model in league.MODELS for ours in league.our_arms(model)]
    found = [(ours, cells) for model, ours in arms if len(cells := league.against_best(rows, model, ours))]
    return "\n\n".join(part(ours, cells) for ours, cells in found for part in (_advantage, _by_rho_and_d))


def league_block(results: Results, first: int = 5) -> str:
    """For docs/findings.md: the first places of each model, and our own arm's wherever it is."""
    rows = results.rows(league.EXPERIMENT)
    models = [model for model in league.MODELS if _competed(rows, model)]
    if not models:
        return "No league yet: run `python scripts/sweep.py experiment=league`."
    return "\n\n".join(_places(results, model, first) for model in models)


def _competed(rows: pd.DataFrame, model: str) -> bool:
    return model in set(rows["model"])


def _places(results: Results, model: str, first: int | None = None) -> str:
    rows = results.rows(league.EXPERIMENT)
    found = list(enumerate(league.places(rows, model), start=1))
    ours = league.our_arms(model)
    shown = found[:first] + [one for one in found[len(found[:first]) :] if one[1].arm in ours]
    ceilings = certified.over_reference(results, [place.arm for _, place in shown], league.REFERENCE)
    lines = [
        [
            f"{k}",
            f"**{model_of(rows, place.arm)}**" if place.arm in ours else model_of(rows, place.arm),
            interval(place.rank),
            f"{place.won}",
            interval(place.error),
            f"{place.cells}" if place.compared == place.cells else f"{place.cells}; error {place.compared}",
            interval(ceiling),
        ]
        for (k, place), ceiling in zip(shown, ceilings, strict=True)
    ]
    left_out = league.standings(rows, model).left_out
    who = "any weights, so every arm competes" if model == "free" else f"{len(found)} arms"
    note = (
        f"**Model {model}** ({who}; cells left out because some error is at most 1e-6: {left_out}; certificates are on"
        f" the caches of `experiment={certified.COMPARED}`)\n\n"
    )
    return note + table(_HEAD, lines)


def _advantage(ours: str, cells: pd.DataFrame) -> str:
    """A row for each family, and one for all; rivals with the number of cells in which they are the best."""
    groups = {family: cells.loc[cells["cache"] == family] for family in distinct(cells, "cache")}
    groups["all"] = cells
    lines = []
    for name, group in groups.items():
        by_caches = league.mean_ratio(group)
        by_families = league.mean_ratio(group, league.FAMILIES)
        known = name == "all" and np.isfinite(by_families.low)  # two families give no interval
        span = f"{number(by_families.low)} to {number(by_families.high)}" if known else "–"
        worst = number(float(np.exp(column(group, "log_ratio").max())))
        rivals = group["rival"].value_counts()
        words = ", ".join(f"{rival} {count}" for rival, count in rivals.items())
        lines.append([name, interval(by_caches), span, worst, words])
    head = ["Family", "Ours / best other, 95 % over caches", "95 % over families", "Worst cell", "Best other"]
    return f"**{ours} against the best other arm of each cell**\n\n" + table(head, lines)


def _by_rho_and_d(ours: str, cells: pd.DataFrame) -> str:
    """Geometric means over the families, a row for each d, a column for each rho: one mean over all would hide them."""
    radii = sorted(set(cells["rho"]))
    lines = []
    for d in sorted(set(cells["d"])):
        groups = [cells.loc[(cells["d"] == d) & (cells["rho"] == rho)] for rho in radii]
        lines.append([f"{d:g}", *(interval(league.mean_ratio(group)) if len(group) else "–" for group in groups)])
    head = ["d", *(f"ρ = {rho:g}" for rho in radii)]
    return f"**{ours} / best other, by d and ρ**\n\n" + table(head, lines)
