"""The joint exponents, the floors and what free weights gain, as Markdown."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.figures.looks import in_order
from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians
from attention_coresets.analysis.topics.joint_exponents.claims import NEAR
from attention_coresets.analysis.topics.joint_exponents.fits import SYMBOLS, joint, point, with_share
from attention_coresets.analysis.topics.joint_exponents.measures import coordinate_rows, random_signs_over_iv
from attention_coresets.analysis.topics.joint_exponents.rows import (
    BEYOND,
    CONFIGURATION,
    EXPONENTS,
    KNOWS,
    RATIOS,
    WEIGHTS,
    decades,
    designed,
    far,
    with_floors,
)


def exponents(results: Results) -> str:
    """The fits of every arm beside the control, by the law as it is stated and by its finite-size form."""
    rows = designed(results, EXPONENTS)
    note = (
        "m = n/2. Exponents with 95 % intervals over instances; in braces the range when one d is left out."
        " *Law*: log m = c + α log d + β log(e^ρ − 1) + γ log(1/ε). *Finite size*: the form of (iv), with m + d"
        " a/2 in place of m and the a of the sharpened query; in this form (iv) has exactly (½, 1, 1). Last"
        " column: β if ρ replaces log(e^ρ − 1), descriptive, since at finite ρ e^ρ − 1 grows faster than e^ρ.\n\n"
    )
    lines = [line for arm in in_order(set(rows["arm"])) for line in _arm(rows.loc[rows["arm"] == arm], arm)]
    lines += _control(rows.loc[rows["arm"] == rows["arm"].iloc[0]], "this design")
    head = [ARM, "Form", *SYMBOLS, "Decades of √d (e^ρ − 1)/ε", "β in plain ρ"]
    return note + table(head, lines) + "\n\n" + _by_ratio(rows)


def _by_ratio(rows: pd.DataFrame) -> str:
    """Error over (iv) of the arms near the floor by r/d, a row, and ρ, a column."""
    rows = rows.loc[rows["arm"].isin(NEAR)]
    rhos, lines = distinct(rows, "rho"), []
    for names, group in groups(rows, ["arm", "ratio"]):
        cells = [column(group.loc[group["rho"] == rho], "over_iv") for rho in rhos]
        words = [number(float(np.median(x))) if len(x) else "–" for x in cells]
        lines.append([model_of(rows, names["arm"]), number(names["ratio"]), *words])
    note = (
        "Why these exponents differ from the control's (a table made after the run): median error over (iv)"
        " depends on r/d and ρ. It tends to 1 as r/d falls and as ρ grows. A heuristic: at small ρ the error is ρ"
        " times an operator norm. For signs that look random this norm is 1 + √(r/d) times the norm of a row, and"
        " (iv) is made of rows. At large ρ the worst query singles out one centre. In this design large d have"
        " small r/d, so this factor makes α smaller and γ larger. As m = rd/2, no further covariate can separate"
        " the two effects.\n\n"
    )
    return note + table([ARM, "r/d", *(f"ρ = {rho:g}" for rho in rhos)], lines)


def _arm(rows: pd.DataFrame, arm: str) -> list[list[str]]:
    name, lines = model_of(rows, arm), []
    for finite, form in ((False, "law"), (True, "finite size")):
        found = joint(rows, finite=finite)
        cells = [f"{interval(found.exponents[s])} {{{_ends(found.without[s])}}}" for s in SYMBOLS]
        plain = "" if finite else number(point(rows, "error", beta="rho")["β"])
        lines.append([name, form, *cells, "" if finite else number(decades(rows)), plain])
    return lines


def _control(rows: pd.DataFrame, where: str) -> list[list[str]]:
    """The floors on the rows of one arm in place of its errors."""
    lines = []
    for floor in ("iv", "v"):
        part = rows.dropna(subset=[floor])
        for finite, form in ((False, "law"), (True, "finite size")):
            values = [number(x) for x in point(part, floor, finite).values()]
            plain = "" if finite else number(point(part, floor, beta="rho")["β"])
            reach = "" if finite else number(decades(part, floor))
            lines.append([f"control: floor ({floor}), {where}", form, *values, reach, plain])
    return lines


def ratios(results: Results) -> str:
    """Error over (iv) by arm, r/d and rho, a column for each d."""
    rows = designed(results, RATIOS)
    rows = rows.assign(name=[model_of(rows, arm) for arm in rows["arm"]])
    return _OVER_IV + ".\n\n" + _by_d(rows, {"name": ARM, "ratio": "r/d", "rho": "ρ"})


def beyond(results: Results) -> str:
    """Herding's error over (iv) by r/d and rho, a column for each d: the smaller ones from the design of the fits. Last
    what random signs would have, where the worst query is not at a centre."""
    asked = designed(results, BEYOND)
    rows = pd.concat([asked, designed(results, EXPONENTS)])
    rows = rows.loc[rows["arm"] == "herding_tilted"].merge(asked[["ratio", "rho"]].drop_duplicates())
    law = random_signs_over_iv(rows)
    rows = rows.assign(random=[number(x) if x > 1 else "–" for x in law])
    note = f"{_OVER_IV}. Caches above n = 4096 are those of `lower_bound_beyond`.\n\n"
    return note + _by_d(rows, {"ratio": "r/d", "rho": "ρ", "random": "random signs"})


_OVER_IV = "Error over (iv) at m = n/2, median over instances; n = rd"


def _by_d(rows: pd.DataFrame, names: dict[str, str]) -> str:
    """The median error over (iv), a line for each value of the named columns, a column for each d."""
    sizes, lines = distinct(rows, "d"), []
    for at, group in groups(rows, list(names)):
        cells = [column(group.loc[group["d"] == d], "over_iv") for d in sizes]
        words = [number(float(np.median(x))) if len(x) else "–" for x in cells]
        lines.append([*(x if isinstance(x, str) else number(x) for x in at.values()), *words])
    return table([*names.values(), *(f"d = {d}" for d in sizes)], lines)


def _ends(pair: tuple[float, float]) -> str:
    return f"{number(pair[0])} to {number(pair[1])}"


def coordinate(results: Results) -> str:
    """The coordinate subset, which knows the instance: its exponents, and its error over (iv) by share and signs."""
    pairs = coordinate_rows(results)
    note = "Exponents at m = n/2, Hadamard pairs, by the law as it is stated.\n\n"
    lines = []
    for rows, where in ((pairs, "r ≥ 7 (e^ρ − 1)"), (far(pairs), "r ≥ 16 (e^ρ − 1)")):
        found = joint(rows)
        cells = [f"{interval(found.exponents[s])} {{{_ends(found.without[s])}}}" for s in SYMBOLS]
        plain = number(point(rows, "error", beta="rho")["β"])
        lines.append([f"{KNOWS}, {where}", "law", *cells, number(decades(rows)), plain])
        lines += _control(rows, where)
    head = ["Row", "Form", *SYMBOLS, "Decades of √d (e^ρ − 1)/ε", "β in plain ρ"]
    return note + table(head, lines) + "\n\n" + _shares(results)


def _shares(results: Results) -> str:
    """Supremum over (iv), and what pooling the shares does to the fit."""
    note = (
        "The error of the coordinate subset over (iv), median (largest) over all rows, by share of tokens kept."
        " Then the exponents of (iv) itself if the three shares are pooled, without and with the covariate"
        " log(√(m(n − m))/n).\n\n"
    )
    lines = []
    for signs in ("hadamard", "random"):
        rows = coordinate_rows(results, signs, half=False)
        cells = [column(rows.loc[rows["share"] == share], "over_iv") for share in (0.5, 0.25, 0.125)]
        words = [f"{number(float(np.median(x)))} ({number(x.max())})" for x in cells]
        pooled = [
            " ".join(number(x) for x in with_share(rows, "iv", covariate).values()) for covariate in (False, True)
        ]
        lines.append([signs, *words, *pooled])
    head = ["Signs", "m = n/2", "m = n/4", "m = n/8", "(iv) pooled, without: α β γ", "with: α β γ"]
    return note + table(head, lines)


def weights(results: Results) -> str:
    """Error over the floor for any weights (v), and over (iv), by arm and share."""
    rows = designed(results, WEIGHTS, half=False)
    shares = sorted(distinct(rows, "share"), reverse=True)
    note = (
        "Error over (v), the floor for any weights ≥ 0, median (smallest) over all rows with γ = a/(r + a) ≤ 1/8."
        " Then error over (iv), which coresets with unequal cluster weights may beat.\n\n"
    )
    lines = []
    for arm in in_order(set(rows["arm"])):
        own = rows.loc[rows["arm"] == arm]
        cells = [_cell(own.loc[own["share"] == share], name) for name in ("over_v", "over_iv") for share in shares]
        lines.append([model_of(rows, arm), *cells])
    names = [f"{name}, m = {share:g} n" for name in ("over (v)", "over (iv)") for share in shares]
    below = _below_equal_weights(results)
    return note + table([ARM, *names], lines) + "\n\n" + _factor_left(rows, shares) + "\n\n" + below


def _factor_left(rows: pd.DataFrame, shares: list[float]) -> str:
    """The best arm of each configuration over (v), and (iv) over (v), which no weights enter."""
    lines = []
    for share in shares:
        part = rows.loc[rows["share"] == share].dropna(subset=["over_v"])
        if part.empty:
            lines.append([f"{share:g} n", "–", "–"])
            continue
        best = [min(column(medians(g, ["arm"], ["over_v"]), "over_v")) for _, g in groups(part, CONFIGURATION)]
        apart = column(part, "iv") / column(part, "v")
        lines.append([f"{share:g} n", *(f"{number(min(x))} to {number(max(x))}" for x in (best, apart))])
    head = ["m", "best arm over (v), least and most over configurations", "(iv) over (v)"]
    return "The factor that is left between the floor for any weights and the best coreset found.\n\n" + table(
        head, lines
    )


def _cell(rows: pd.DataFrame, name: str) -> str:
    values = column(rows.dropna(subset=[name]), name)
    return f"{number(float(np.median(values)))} ({number(values.min())})" if len(values) else "–"


def _below_equal_weights(results: Results) -> str:
    """Rows of every experiment that err by less than (iv) of equal cluster weights, arm by arm."""
    rows = results.table.loc[results.table["cache"] == "signed_clusters"]
    rows = with_floors(rows.loc[(rows["n"] <= rows["d"] ** 2) & (rows["size"] < rows["n"])])
    low = rows.loc[column(rows, "over_iv") < 1 - 1e-5]
    found = low["arm"].value_counts().to_dict()
    words = ", ".join(f"{arm} {count}" for arm, count in sorted(found.items())) or "none"
    return (
        f"Rows of all experiments on orthonormal signed clusters that err by less than (iv): {words}. They may:"
        " (iv) is proven for equal cluster weights. Fixed weights give unequal cluster weights where the counts"
        " differ, and free weights need not be equal."
    )
