"""What ascent, branch and bound and certificates say of each other, as Markdown."""

import numpy as np

from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import median_of
from attention_coresets.analysis.stats.frames import column, groups
from attention_coresets.analysis.topics.worst_case.measures import JUDGED, SMALL, broken_rows, with_ratios


def judged(results: Results) -> str:
    """A row for each family and d: the ascent against branch and bound, climbs that ended beside the best, kernel
    certificate at each rho."""
    rows = with_ratios(results.rows(JUDGED))
    rhos = sorted(set(column(rows, "rho")))
    lines = []
    for names, group in groups(rows, ["cache", "d"]):
        share = column(group, "ascent_over_upper")
        reached = column(group, "reached")
        factors = [group.loc[(group["rho"] == rho) & (group["arm"] == "walk_tilted")] for rho in rhos]
        lines.append(
            [
                *(names["cache"], f"{names['d']}"),
                number(np.nanmin(share)) if np.isfinite(share).any() else "–",
                f"{np.median(reached):.0f} ({reached.min():.0f})",
                *(interval(median_of(part, "kernel_over_ascent", least=1.0)) if len(part) else "–" for part in factors),
            ]
        )
    head = ["Family", "d", "Ascent / proven upper, least", "Climbs within 1 % of the best, median (least)"]
    note = (
        "Ascent / proven upper: of branch and bound, at most 1. Climbs: of those that a row started; one that fell"
        " behind in the race counts by what it had. Kernel certificate / ascent: tilted walk, median over caches.\n\n"
    )
    return note + table([*head, *(f"Kernel / ascent, ρ = {rho:g}" for rho in rhos)], lines)


def small(results: Results) -> str:
    """What the run over random small caches covered, and its extremes."""
    rows = with_ratios(results.rows(SMALL))
    caches = len(rows[["cache", "cache_params", "seed", "head"]].drop_duplicates())
    gap = column(rows, "branch_upper") - column(rows, "branch_lower")
    short = column(rows, "branch_lower") - column(rows, "error")
    lines = [
        ["caches, coresets", f"{caches}, {len(rows)}"],
        ["rows in which two numbers contradict each other", f"{len(broken_rows(rows))}"],
        ["gap of branch and bound, largest", number(gap.max())],
        ["its query above the ascent's, largest", number(max(short.max(), 0.0))],
        ["ascent / proven upper, least", number(column(rows, "ascent_over_upper").min())],
        ["kernel certificate / ascent, median", number(float(np.median(column(rows, "kernel_over_ascent"))))],
    ]
    return table(["Over all", "Measured"], lines)
