"""The generated numbers of README.md and of docs/: sentences, exponents, the league, real caches."""

from collections.abc import Callable, Sequence

from attention_coresets.analysis import real_tables
from attention_coresets.analysis.hard_instances import distinct_rules, over_floor
from attention_coresets.analysis.language_prose import SERVED
from attention_coresets.analysis.league import MODELS
from attention_coresets.analysis.league_tables import league_block
from attention_coresets.analysis.markdown import interval, number, table
from attention_coresets.analysis.measures import Measured, coefficient, error_at, setting
from attention_coresets.analysis.prose import SYNTHETIC
from attention_coresets.analysis.readme_numbers import FOUND
from attention_coresets.analysis.real_prose import REAL
from attention_coresets.analysis.results import Results
from attention_coresets.analysis.section_tables import SYMBOLS, model_of
from attention_coresets.analysis.wording import claimed, span

NOTHING = "(not measured yet: run `bash scripts/reproduce.sh`)"
PREFERENCE = ("reduced", "quick", "full", "smoke")  # the tier that pages quote: the first that is there
DRAWS = ("uniform", "tilted_draws")
# law and experiment -> its exponent, what theory says of it for balanced signs, and for draws
RATES = {
    "epsilon_rate": ("gamma", "1", "2"),
    "d_rate": ("alpha", "½", "0 to 1"),
    "rho_rate": ("beta", "1", "at most 1"),
    "n_independence": ("nu", "0", "0"),
}


def page_blocks(tiers: Sequence[Results]) -> dict[str, str]:
    """Name of a block → its Markdown, from the preferred tier of those given."""
    results = min(tiers, key=lambda r: PREFERENCE.index(r.tier))
    return {name: make(results) or NOTHING for name, make in BLOCKS.items()}


def headline(results: Results) -> str:
    """A few sentences with their numbers; what was not measured is left out."""
    found = [sentence for sentence in (make(results) for make in _SENTENCES) if sentence]
    tier = f"Tier `{results.tier}`; brackets: 95 % intervals over caches or heads; errors are worst-case unless said."
    return "\n".join([*(f"- {sentence}" for sentence in found), "", tier])


def _rate(results: Results) -> str:
    walk, uniform = claimed(results, "gamma_walk_tilted"), claimed(results, "gamma_uniform")
    if not walk or not uniform:
        return ""
    return (
        f"**Rate in ε** (clusters): a size m ∝ ε^−γ with γ = {span(walk)} for the tilted Gram–Schmidt walk (tilted"
        f" model) and {span(uniform)} for uniform subsets (unweighted); theory says 1 and 2."
    )


def _antipodal(results: Results) -> str:
    names = {"walk_tilted": "the tilted walk", "walk_unweighted": "the unweighted walk", "uniform": "uniform subsets"}
    found = {arm: error_at("constant", arm, "antipodal", n=2048, d=8, rho=3.0, size=512)(results) for arm in names}
    if not found["walk_tilted"] or not found["uniform"]:
        return ""
    words = [f"{interval(found[arm][0].estimate)} for {name}" for arm, name in names.items() if found[arm]]
    return (
        "**The model matters** (antipodal keys, random values, ρ = 3, 512 of 2048 tokens, d = 8): error"
        f" {', '.join(words)}; only the first is a tilted coreset."
    )


def _constant(results: Results) -> str:
    found = claimed(results, "constant_sigma")
    if not found:
        return ""
    worst = max(found, key=lambda part: part.estimate.value)
    return (
        f"**The bound's constant**: m·err/(√d e^(ρσ)) of the tilted walk is at most {interval(worst.estimate)}"
        f" (median over caches, at {worst.setting}) over {len(found)} families."
    )


def _floor(results: Results) -> str:
    least, equal, best = (claimed(results, name) for name in ("floor", "floor_equal", "floor_factor"))
    if not least or not equal or not best:
        return ""
    rules = distinct_rules(over_floor(results))
    return (
        f"**Lower bound** (signed clusters): none of {rules} distinct rules errs by less than"
        f" {number(least[0].estimate.value)} × the bound proven for its own weights, nor, with m ≤ n/2, by less than"
        f" {number(equal[0].estimate.value)} × A√(d/2), the bound for equal cluster weights; the best arm at m = n/2,"
        f" picked on these rows, over A√(d/2): {span(best)}."
    )


def _ceilings(results: Results) -> str:
    one, two, small = (claimed(results, name) for name in ("ceiling_rho_1", "ceiling_rho_2", "certificate"))
    if not one or not two or not small:
        return ""
    return (
        f"**Both sides**: the kernel certificate, a proven ceiling, is {span(one)} times the worst query found at"
        f" ρ = 1 and {span(two)} times at ρ = 2 (n = 1024, d = 8, m = 256). On {small[0].setting}, where branch and"
        f" bound encloses the supremum, {small[0].estimate.value:.0f} contradict it."
    )


def _optimum(results: Results) -> str:
    walk = claimed(results, "optimum_walk")
    if not walk:
        return ""
    return (
        "**Exact optimum** (tiny caches): the tilted walk errs by"
        f" {span(walk)} times the best tilted subset of its size."
    )


def _league(results: Results) -> str:
    words = []
    for model in MODELS:
        every, unseen, more = (claimed(results, f"league_{model}{part}") for part in ("", "_unseen", "_unseen_more"))
        if every:
            own = f"; on families it had not met {span(unseen)}" if unseen else ""
            own += f", at more dimensions {span(more)}" if more else ""
            words.append(f"{span(every)} ({model}{own})")
    if not words:
        return ""
    return (
        "**League** of all constructions, fresh seed: error of our own over that of the best other of"
        f" each cell: {', '.join(words)}."
    )


def _real(results: Results) -> str:
    rho, log_t = claimed(results, "real_rho"), claimed(results, "real_log_t")
    if not rho or not log_t:
        return ""
    text = (
        f"**Real heads** (SmolLM2-135M): the norms say ρ = {span(rho)}, the sensitivities of the model's own queries"
        f" log T = {span(log_t)} (medians over heads)."
    )
    mean, p99 = claimed(results, "real_mean"), claimed(results, "real_p99")
    if mean and p99:
        text += (
            f" At 1/8 of the cache tokens and weights fitted to the model's own queries err {span(mean)} times what"
            f" eviction heuristics and kept sinks err at held-out queries in the mean, {span(p99)} at the 99th"
            " percentile."
        )
    return text


def _language(results: Results) -> str:
    found = claimed(results, "real_loss_8")
    if not found:
        return ""
    return (
        "**A model on coresets** of 1/8 of its cache, loss in nats a token: ours less that of each eviction heuristic"
        f" and of kept sinks, {span(found)}."
    )


_SENTENCES: tuple[Callable[[Results], str], ...] = (
    _rate,
    _antipodal,
    _constant,
    _floor,
    _ceilings,
    _optimum,
    _league,
    _real,
    _language,
)


def rates(results: Results) -> str:
    """The exponents of the size laws, a row for each exponent and arm, over all families and settings measured."""
    rows = []
    for name, (symbol, balanced, drawn) in RATES.items():
        records = [record for record in results.laws(name) if record["status"] == "fitted"]
        for arm in sorted({record["fixed"]["arm"] for record in records}):
            mine = [record for record in records if record["fixed"]["arm"] == arm]
            parts = [Measured(setting(record["fixed"]), *coefficient(record, symbol)) for record in mine]
            families = ", ".join(sorted({record["fixed"]["cache"] for record in mine}))
            theory = drawn if arm in DRAWS else balanced
            rows.append([SYMBOLS[symbol], model_of(results.rows(name), arm), families, theory, span(parts)])
    if not rows:
        return "No fits yet: run `python scripts/fit.py`."
    return table(["Exponent of m(ε)", "Arm (coreset model)", "Families", "Theory", "Measured, 95 %"], rows)


BLOCKS: dict[str, Callable[[Results], str]] = {
    "headline": headline,
    "rates": rates,
    "league": league_block,
    "real_geometry": real_tables.geometry,
    "real_errors": real_tables.errors,
    "real_language": real_tables.language,
    **SYNTHETIC,
    **REAL,
    **SERVED,
    **FOUND,
}
