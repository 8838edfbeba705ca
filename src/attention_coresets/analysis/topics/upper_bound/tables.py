"""The constant of every row as Markdown: by family, by d and ρ, its trends, and what is certified at ρ = 3."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.markdown import number, table
from attention_coresets.analysis.parts.measured import setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.upper_bound import measures
from attention_coresets.analysis.topics.upper_bound.measures import CONSTANT
from attention_coresets.upper_bound import balancing_constant


def numbers(results: Results) -> str:
    """The four tables, each under its note."""
    return "\n\n".join(make(results) for make in (by_family, by_d_and_rho, trends, ceilings))


def by_family(results: Results) -> str:
    """Rows, median and largest constant of each family, over every experiment, and where the largest is."""
    rows = measures.every_walk(results)
    lines = [_line(names["cache"], group) for names, group in groups(rows, ["cache"])]
    note = (
        "m·err/(√d e^(ρσ)) of every row of `walk_tilted` in all experiments of the tier; a coreset that several"
        " experiments share counts once. `model`: real heads. *Proven there*: what docs/theory.md (Balancing)"
        " proves for the mean over walks, at the d, ρ and σ of the largest.\n\n"
    )
    return note + table(["Family", "Rows", "Median", "Largest", "Proven there", "Where"], [*lines, _line("all", rows)])


def _line(name: str, rows: pd.DataFrame) -> list[str]:
    worst = rows.iloc[int(column(rows, CONSTANT).argmax())]
    where = f"{setting(worst.to_dict(), 'cache')} (`{worst['experiment']}`)"
    return [
        name,
        f"{len(rows)}",
        number(float(np.median(column(rows, CONSTANT)))),
        number(worst[CONSTANT]),
        _proven(worst),
        where,
    ]


def _proven(row: pd.Series) -> str:
    """The proven ceiling of the constant, for the mean over walks, at the row's d, rho and sigma."""
    return number(balancing_constant(int(row["d"]), int(row["d"]), float(row["rho"]), float(row["sigma"])))


def by_d_and_rho(results: Results) -> str:
    """The largest constant of synthetic rows at each d (a row) and ρ (a column), with the number of rows."""
    rows = measures.every_walk(results)
    rows = rows.loc[rows["cache"] != "model"]
    rhos = distinct(rows, "rho")
    lines = []
    for names, group in groups(rows, ["d"]):
        cells = [column(group.loc[group["rho"] == rho], CONSTANT) for rho in rhos]
        lines.append([f"{names['d']}", *(f"{number(x.max())} ({len(x)})" if len(x) else "–" for x in cells)])
    note = (
        "The same for synthetic families: largest (number of rows). The largest of more rows is larger by"
        " chance alone.\n\n"
    )
    return note + table(["d", *(f"ρ = {rho:g}" for rho in rhos)], lines)


def trends(results: Results) -> str:
    """Slopes of the largest constant in log d, ρ and log n, family by family and over all of them."""
    rows = measures.comparable(results)
    if rows.empty:
        return "Trends: not run."
    parts = [(names["cache"], group) for names, group in groups(rows, ["cache"])]
    lines = []
    for name, group in [*parts, ("all", rows)]:
        found = measures.slopes(group)
        lines.append([name, f"{len(group)}", *(number(found[symbol]) for symbol in ("log d", "ρ", "log n"))])
    shares, ns = (", ".join(f"{x:g}" for x in distinct(rows, name)) for name in ("share", "n"))
    note = (
        "Does the largest constant grow? Least-squares slopes of its logarithm, descriptive, on one cache a setting,"
        f" n = {ns}, and the shares m/n that each of these n has ({shares}), so that none has more sizes than another."
        " Below 0: it falls.\n\n"
    )
    return note + table(["Family", "Rows", "in log d", "in ρ", "in log n"], lines)


def ceilings(results: Results) -> str:
    """What certificates allow at ρ = 3: the constant of the ceiling, beside that of the worst query found, by d."""
    rows = measures.certified(results)
    if rows.empty:
        return "Ceilings at ρ = 3: not run."
    lines = []
    for names, group in groups(rows, ["d"]):
        top = group.iloc[int(column(group, "certified").argmax())]
        least = ", ".join(f"{name} {count}" for name, count in group["certified_by"].value_counts().items())
        found = [number(column(group, CONSTANT).max()), f"{number(top['certified'])} ({top['cache']})"]
        over = number(float(np.median(column(group, "over_error"))))
        lines.append([f"{names['d']}", f"{len(group)}", *found, over, least])
    note = "At ρ = 3 no query of the ball has a larger constant than the certified one, whatever the ascent missed.\n\n"
    head = ["d", "Rows", "Largest found", "Largest certified (family)", "Ceiling / found, median", "By, rows"]
    return note + table(head, lines)
