"""The small tables of paper_repro.md's sections, as Markdown; every arm is named with its coreset model."""

import math
from collections.abc import Callable

import pandas as pd

from attention_coresets.analysis.parts.axes import AXES, axis_of
from attention_coresets.analysis.parts.exponents import coefficient
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.measured import setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import median, paired_ratio
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians
from attention_coresets.analysis.topics.hard_instances import antipodal as pair
from attention_coresets.analysis.topics.hard_instances import signed_clusters as hard
from attention_coresets.analysis.topics.rates.measures import with_constants

SYMBOLS = {"gamma": "γ (1/ε)", "alpha": "α (d)", "beta": "β (x)", "beta_rho": "slope in ρ", "nu": "ν (n)"}
ARM = "Arm (coreset model)"


def model_of(rows: pd.DataFrame, arm: str) -> str:
    """The arm with its coreset model, as every table names it."""
    if arm == "sinks_uniform":
        return "sinks_uniform (first tokens kept, the rest reweighted)"
    return f"{arm} ({', '.join(distinct(rows.loc[rows['arm'] == arm], 'model'))})"


def laws(*names: str) -> Callable[[Results], str]:
    """Exponents of the fitted laws, a row for each arm, family and setting."""

    def numbers(results: Results) -> str:
        rows = []
        for record in (record for name in names for record in results.laws(name)):
            fixed = record["fixed"]
            arm = model_of(results.rows(record["experiment"]), fixed["arm"])
            rows.append([arm, fixed["cache"], setting(fixed), *_law_cells(record)])
        head = [ARM, "Family", "At", "Exponents of the size m(ε), 95 %", "Censored", "Caches"]
        return table(head, rows) if rows else "No law was fitted: run `python scripts/fit.py`."

    return numbers


def _law_cells(record: dict) -> list[str]:
    if record["status"] != "fitted":
        return [f"not fitted: {record['reason']}", "–", "–"]
    names = [name for name in record["coefficients"] if name != "const"]
    words = "; ".join(f"{SYMBOLS[name]} {interval(coefficient(record, name)[0])}" for name in names)
    return [words, f"{record['censored_left'] + record['censored_right']:.0%}", str(record["clusters"])]


def constant(results: Results) -> str:
    """m err / (sqrt(d) e^{rho sigma}) and with e^rho: the largest median of each family and arm."""
    rows = with_constants(results.rows("constant"))
    kinds = ["constant_sigma", "constant_rho"]
    each = medians(rows, ["cache", "arm", "n", "d", "rho", "size"], kinds)
    arms = distinct(rows, "arm")
    lines = []
    for names, family in groups(each, ["cache"]):
        found = [family.loc[family["arm"] == arm, kinds] for arm in arms]
        cells = [" / ".join(number(column(f, k).max()) for k in kinds) if len(f) else "–" for f in found]
        lines.append([names["cache"], *cells])
    note = (
        "Largest median over ρ and m of m·err/(√d e^(ρσ)) / m·err/(√d e^ρ). constant_sigma: the setting of the largest"
        " median picked on these rows; its interval is its own, without the luck of the pick.\n\n"
    )
    return note + table(["Family", *(model_of(rows, arm) for arm in arms)], lines)


def lower_bound(results: Results) -> str:
    """Error over A sqrt(d/2), and over the bounds for each coreset's own weights, by arm and share of tokens kept."""
    rows = hard.over_floor(results)
    arms, rules = rows["arm"].nunique(), hard.distinct_rules(rows)
    picked = (
        f"{arms} arms, {rules} distinct rules: the others err as one of these does, row for row. floor_factor: best arm"
        " picked on these rows; its interval is its own, without the luck of the pick, which favours the claim.\n\n"
    )
    unit = "Error over A√(d/2), median (smallest) over all instances; for equal cluster weights a floor at m ≤ n/2.\n\n"
    own = "Error over max(i, ii, iii, iv) of the coreset's own weights, median (smallest) over all instances.\n\n"
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
            lines.append([model_of(rows, arm), setting(names), bound, *(_size(lo, hi) for lo, hi in ends)])
    head = [ARM, "At", "e^(2ρ)", *(f"m(ε = {e:g})" for e in pair.EPSILONS)]
    return "Values = keys. Sizes with median error at most ε lie in (lo, hi].\n\n" + table(head, lines)


def _size(lo: float, hi: float) -> str:
    if math.isinf(hi):
        return f"> {lo:g}"
    return f"≤ {hi:g}" if lo == 0 else f"({lo:g}, {hi:g}]"


def ablation(results: Results) -> str:
    """Error of every arm over that of walk_tilted on the same caches, family by family."""
    rows = results.rows("ablation")
    families = {names["cache"]: group for names, group in groups(rows, ["cache"])}
    arms = sorted(distinct(rows, "arm"), key=lambda arm: (AXES.index(axis_of(arm)), arm))
    lines = [
        [
            axis_of(arm),
            model_of(rows, arm),
            *(interval(paired_ratio(group, arm, "walk_tilted")) for group in families.values()),
        ]
        for arm in arms
        if arm != "walk_tilted"
    ]
    note = "Error over that of walk_tilted (tilted): geometric mean over ρ and m, median over caches.\n\n"
    return note + table(["Changes", ARM, *families], lines)
