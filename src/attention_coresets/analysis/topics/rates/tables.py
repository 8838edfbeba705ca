"""The fitted exponents and the constant, as Markdown."""

from collections.abc import Callable

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.constant import with_constants
from attention_coresets.analysis.parts.exponents import SYMBOLS, coefficient, spans
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.measured import Measured, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import between, span
from attention_coresets.analysis.stats.frames import column, distinct, groups, medians

DRAWS = ("uniform", "tilted_draws")
# law and experiment -> its exponent, and the one that the bound has for balanced signs, and for draws
RATES = {
    "epsilon_rate": ("gamma", "1", "2"),
    "d_rate": ("alpha", "½", "1"),
    "rho_rate": ("beta", "1", "1"),
    "n_independence": ("nu", "0", "0"),
}


def laws(*names: str) -> Callable[[Results], str]:
    """Exponents of the fitted laws, a row for each arm, family and setting."""

    def numbers(results: Results) -> str:
        rows = []
        for record in (record for name in names for record in results.laws(name)):
            fixed = record["fixed"]
            arm = model_of(results.rows(record["experiment"]), fixed["arm"])
            rows.append([arm, fixed["cache"], setting(fixed) + spans(record), *_law_cells(record)])
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
        "Largest median over ρ and m of m·err/(√d e^(ρσ)) / m·err/(√d e^ρ), in this experiment alone."
        " (constant_sigma is the largest single row of all experiments.)\n\n"
    )
    return note + table(["Family", *(model_of(rows, arm) for arm in arms)], lines)


def rates(results: Results) -> str:
    """The exponents of the size laws, a row for each exponent and arm, over all families and settings measured."""
    rows = []
    for name, (symbol, balanced, drawn) in RATES.items():
        records = [record for record in results.laws(name) if record["status"] == "fitted"]
        for arm in sorted({record["fixed"]["arm"] for record in records}):
            mine = [record for record in records if record["fixed"]["arm"] == arm]
            parts = [Measured(setting(record["fixed"]), *coefficient(record, symbol)) for record in mine]
            errors = [_from_errors(record, symbol) for record in results.laws(f"{name}_error") if _same(record, mine)]
            families = ", ".join(sorted({record["fixed"]["cache"] for record in mine}))
            bound = drawn if arm in DRAWS else balanced
            rows.append(
                [
                    SYMBOLS[symbol],
                    model_of(results.rows(name), arm),
                    families,
                    bound,
                    span(parts),
                    between(errors) if errors else "–",
                ]
            )
    if not rows:
        return "No fits yet: run `python scripts/fit.py`."
    head = ["Exponent of m(ε)", "Arm (coreset model)", "Families", "Bound", "Measured, 95 %", "From errors"]
    note = (
        "\n\n*From errors*: the same exponents, from fits of log error at every size, where nothing is read off a grid"
        " of sizes. Where more than half of the sizes lie outside those measured nothing is fitted."
    )
    return table(head, rows) + note


def _same(record: dict, mine: list[dict]) -> bool:
    return record["status"] == "fitted" and any(record["fixed"] == each["fixed"] for each in mine)


def _from_errors(record: dict, symbol: str) -> float:
    """The exponent of the size in log error = c + a x - s log m: a / s, or 1 / s for gamma."""
    values = {name: found["value"] for name, found in record["coefficients"].items()}
    return values.get(f"{symbol}_error", 1.0) / values["decay"]
