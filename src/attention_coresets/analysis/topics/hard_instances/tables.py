"""Signed clusters, controls and the antipodal pair as Markdown."""

import math

import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.exponents import coefficient
from attention_coresets.analysis.parts.markdown import interval, number, size_between, table
from attention_coresets.analysis.parts.measured import setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import median
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.hard_instances import antipodal as pair
from attention_coresets.analysis.topics.hard_instances import signed_clusters as hard


def lower_bound(results: Results) -> str:
    """Error over A sqrt(d/2), and over the bounds for each coreset's own weights, by arm and share of tokens kept."""
    rows = hard.over_floor(results)
    arms, rules = rows["arm"].nunique(), hard.distinct_rules(rows)
    picked = (
        f"{arms} arms, of which {rules} differ; each of the others errs exactly as one of these. floor_factor is"
        " of the best arm, picked on these rows: its interval leaves out the luck of the pick, which favours the"
        " claim.\n\n"
    )
    unit = (
        "Error over A√(d/2), median (smallest) over all instances. This is a floor for equal cluster weights"
        " and m ≤ n/2.\n\n"
    )
    own = (
        "Error over the largest of bounds (i), (ii), (iv), (v) for the coreset's own weights, median (smallest)"
        " over all instances.\n\n"
    )
    return picked + unit + by_share(rows, "ratio") + "\n\n" + own + by_share(hard.over_bounds(results), "excess")


def random_centres(results: Results) -> str:
    """Error in units of A sqrt(d/2) where that is no floor."""
    note = "Error in units of A√(d/2), median (smallest) over all instances.\n\n"
    return note + by_share(hard.over_floor(results, hard.RANDOM), "ratio")


def by_share(rows: pd.DataFrame, name: str) -> str:
    """Median and smallest value of a column, a row for each arm, a column for each share m/n."""
    shares = distinct(rows, "fraction")
    lines = []
    for names, group in groups(rows, ["arm"]):
        cells = [column(group.loc[group["fraction"] == share], name) for share in shares]
        words = [f"{number(median(x).value)} ({number(x.min())})" if len(x) else "–" for x in cells]
        lines.append([model_of(rows, names["arm"]), *words])
    return table([ARM, *(f"m = {share:g} n" for share in shares)], lines)


def controls(results: Results) -> str:
    """Slopes of the error in m and in rho, by arm and family."""
    rows = []
    for record in results.laws("controls"):
        fixed = record["fixed"]
        found = [coefficient(record, symbol) for symbol in ("decay", "slope")]
        words = [reason or interval(estimate) for estimate, reason in found]
        rows.append(
            [model_of(results.rows(record["experiment"]), fixed["arm"]), fixed["cache"], setting(fixed), *words]
        )
    head = [ARM, "Family", "At", "Decay: err ∝ m^−decay, 95 %", "Slope of log err in ρ, 95 %"]
    return table(head, rows) if rows else "No law was fitted: run `python scripts/fit.py`."


def antipodal(results: Results) -> str:
    """The size whose median error reaches each epsilon, by arm and rho."""
    rows = pair.antipodal_rows(results)
    lines = []
    for arm in distinct(rows, "arm"):
        for names, found in groups(pair.antipodal_sizes(results, arm, by=()), ["n", "d", "rho"]):
            ends = zip(*(column(found.sort_values("epsilon"), end).tolist() for end in ("lo", "hi")), strict=True)
            bound = number(math.exp(2 * names["rho"]))
            lines.append([model_of(rows, arm), setting(names), bound, *(size_between(lo, hi) for lo, hi in ends)])
    head = [ARM, "At", "e^(2ρ)", *(f"m(ε = {e:g})" for e in pair.EPSILONS)]
    return "Values = keys. Sizes with median error at most ε lie in (lo, hi].\n\n" + table(head, lines)
