"""Numbers typed into pages: what counts as one, what excuses it, and the sentences that are computed instead."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attention_coresets.analysis.parts.markdown import fill
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import tallies, tally
from attention_coresets.analysis.report.blocks import BLOCKS, NOTHING, SENTENCES
from attention_coresets.analysis.report.readme_numbers import FOUND
from attention_coresets.analysis.report.typed_numbers import LIST, REMEDY, complaints, typed
from attention_coresets.analysis.topics.ablation.prose import WIDER
from synthetic_results import synthetic_results

ROOT = Path(__file__).resolve().parent.parent
# as they stood in README.md before they were computed
ORIGINAL = (
    "Its loss is lower in the mean; over eight segments the interval leaves out zero against all nine of them\n"
    "at 1/16 of the cache, all but SnapKV at 1/8, five at 1/4.\n"
)


def pages() -> dict[str, str]:
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def listed() -> str:
    return (ROOT / LIST).read_text()


def of_readme(before: str, words: str, after: str) -> list[str]:
    """What is wrong with the committed README.md with more words in it."""
    wrong = complaints(pages() | {"README.md": before + words + after}, listed())
    return [line for line in wrong if line.startswith("README.md")]


def found(text: str, name: str = "README.md") -> list[str]:
    return [" ".join(text[start:end].split()) for start, end in typed(name, text)]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("errs 0.578[0.41, 0.6] as much", ["0.578", "0.6"]),
        ("a ratio of 1.0±0.2, error=0.3", ["1.0", "0.2", "0.3"]),
        ("falls by 12% and -0.227 nats, ≈0.5", ["12", "0.227", "0.5"]),
        ("3× faster, 5x, 2.5-fold, 82MB, 1e-3", ["3×", "5x", "2.5-fold", "82MB", "1e-3"]),
        ("1/8 of 1,234 rows (9 settings)", ["1/8", "1,234", "9"]),
        ("against all nine, *five*, _four_ or [six](page.md)", ["nine", "five", "four", "six"]),
        ("Twenty-two heads, two-thirds, a quarter", ["Twenty", "two", "two", "thirds", "quarter"]),
        ("twice as good on most\nheads", ["twice", "most"]),
        ("on nearly every arm, all\nbut one", ["nearly every", "all but"]),
        ("| uniform | 0.3 |\n\n## 4 heads\n- 5 of", ["0.3", "4", "5"]),
        ("a median of `0.57`", ["0.57"]),
        ("```bash\npython x.py --n 3  # 7 heads\n```\n\n    f(2)   # half an hour\n", ["7", "half"]),
        ("from 2048 tokens", ["2048"]),
    ],
)
def test_a_number_is_a_numeral_or_a_word_that_counts(text, numbers):
    assert found(text) == numbers


@pytest.mark.parametrize(
    "text",
    [
        "at most ε, at\nmost ρ; mostly; someone; network; height; half-range",
        "e^(2ρ), 2d, n/4, O(1), Compress(3), SmolLM2-135M, 8√n, 1/√d, n², e^{−2}, B^½",
        "n = 2048, d ≤ 4, m=7",
        "Karnin, Liberty 2019; arXiv 2605.05602,\n2026; BalanceKV (2502.07861)",
        "`x = 3`, [page](docs/page_2.md), https://example.org/3",
        "```python\nx = 3\n```\n\n    err(q) = 2 x\n",
        "<!-- numbers:x -->\n7 heads\n<!-- /numbers:x -->\nand <!-- numbers:y -->nine<!-- /numbers:y --> more",
    ],
)
def test_formulas_code_citations_settings_and_blocks_are_no_typed_numbers(text):
    assert found(text) == []


def test_formulas_are_known_on_pages_of_mathematics_alone():
    text = "Multiply (1) by z ≥ 5.2 a, with mean 0; a pass takes 128 n; up to 0.8 % low"
    assert found(text, "docs/theory.md") == ["0.8"]
    assert found(text) == ["1", "5.2", "0", "128", "0.8"]


def test_the_committed_pages_state_no_number_by_hand_that_is_not_listed():
    assert complaints(pages(), listed()) == []


@pytest.mark.parametrize("words", ["Ours is better on 7 heads.", "Ours is better on seven heads."])
def test_a_count_typed_into_the_readme_is_named_with_its_line(words):
    before, heading, after = pages()["README.md"].partition("## What was found\n")
    (wrong,) = of_readme(before + heading, f"{words}\n", after)
    count = "7" if "7" in words else "seven"
    assert wrong.startswith(f'README.md:{before.count(chr(10)) + 2}: "{count}" typed by hand')
    assert "is better on" in wrong
    assert wrong.endswith(REMEDY)


def test_the_sentences_that_were_typed_by_hand_are_caught():
    before, heading, after = pages()["README.md"].partition("## What was found\n")
    first, second = of_readme(before + heading, ORIGINAL, after)
    assert '"eight", "nine" typed by hand' in first
    assert '"1/16", "all but", "1/8", "five", "1/4" typed by hand' in second


def test_every_page_is_looked_at():
    wrong = complaints({name: f"{page}\nseventy heads\n" for name, page in pages().items()}, listed())
    assert [name for name in pages() if not any(w.startswith(f"{name}:") and "seventy" in w for w in wrong)] == []


def test_the_list_excuses_its_words_and_no_others():
    page = {"docs/x.md": "On 7\nheads, and on 7 texts."}
    assert complaints(page, "# why\n[docs/x.md]\non 7 heads | setting\non 7 texts | definition\n") == []
    (wrong,) = complaints(page, "[docs/x.md]\non 7 heads | setting\n")
    assert wrong.startswith('docs/x.md:2: "7" typed by hand')


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("on 7 heads | setting\non 8 heads | setting", f'{LIST}:3: "on 8 heads" excuses no number of docs/x.md'),
        ("on 7 heads | setting\nheads | setting", f'{LIST}:3: "heads" excuses no number of docs/x.md'),
        ("on 7 heads | measured", f'{LIST}:2: "measured" is no kind of number; known: definition'),
        ("7 | setting", f'{LIST}:2: "7" does not say of what'),
        ("on 7 heads | setting\n[docs/y.md]\non 7 heads | setting", f"{LIST}:4: there is no such page as docs/y.md"),
    ],
)
def test_what_is_wrong_with_the_list_is_said(entry, words):
    (wrong,) = complaints({"docs/x.md": "On 7 heads."}, f"[docs/x.md]\n{entry}\n")
    assert wrong.startswith(words)


def test_blocks_are_filled_inside_a_line_and_on_their_own():
    text = "ρ is <!-- numbers:a -->old<!-- /numbers:a -->.\n\n<!-- numbers:a -->\n<!-- /numbers:a -->\n"
    page = fill(text, {"a": "48"})
    assert page == "ρ is <!-- numbers:a -->48<!-- /numbers:a -->.\n\n<!-- numbers:a -->\n48\n<!-- /numbers:a -->\n"
    assert fill(page, {"a": "48"}) == page
    with pytest.raises(ValueError, match="numbers:a begins a line"):
        fill("- <!-- numbers:a -->old<!-- /numbers:a --> heads", {"a": "48"})


def test_counts_in_words():
    assert tally({"h2o": True, "tova": True}) == "all 2"
    assert tally({"h2o": True, "tova": False}) == "1 of 2 (not `tova`)"
    assert tally({"h2o": False}) == "none of 1"
    everywhere = {"1/8": {"h2o": True}, "1/4": {"h2o": True}}
    assert tallies(everywhere) == "all 1 at every size"
    assert tallies(everywhere | {"1/4": {"h2o": False}}) == "all 1 at 1/8, none of 1 at 1/4"


def wide(results: Results) -> Results:
    """The synthetic results with what sentences also speak of: a wider kernel, herding, bounds of the best map."""
    table = results.table
    walk = table.loc[(table["experiment"] == "ablation") & (table["arm"] == "walk_tilted")]
    more = walk.assign(arm=WIDER, error=0.7 * walk["error"])
    named = table.assign(arm=table["arm"].replace({"greedy_tilted": "herding_tilted"}))
    assert results.heads is not None
    heads = results.heads.assign(rho_query_linear_lower=results.heads["rho_query_linear"] / 1.01)
    return replace(results, table=pd.concat([named, more]), heads=heads)


def disturbed(results: Results) -> Results:
    """Every measured number another one, by a factor of its own."""
    rng = np.random.default_rng(0)
    table, heads = results.table, results.heads
    assert heads is not None
    measured = ["error", "heldout_mean", "heldout_p99", "heldout_max", "kl", "exponent", "total_sensitivity"]
    measured += ["seconds_construct", "needle_found"]
    table = table.assign(**{name: table[name] * np.exp(rng.normal(size=len(table))) for name in measured})
    table = table.assign(loss=table["loss_full"] + rng.normal(size=len(table)))
    table.loc[table["experiment"] == "optimum", "n"] += 1
    table = table.loc[(table["experiment"] != "real_language") | table["cache_params"].str.contains("code")]
    numbers = heads.select_dtypes("float").columns
    heads = heads.assign(**{name: heads[name] * np.exp(rng.normal(size=len(heads))) for name in numbers})
    return replace(results, table=table, heads=heads, fits=[lower(record) for record in results.fits])


def lower(record: dict) -> dict:
    """A fitted law with every coefficient at 0.3 [0.2, 0.4]."""
    if record["status"] != "fitted":
        return record
    value = {"value": 0.3, "low": 0.2, "high": 0.4}
    return record | {"coefficients": dict.fromkeys(record["coefficients"], value)}


@pytest.fixture(scope="module")
def two_results() -> tuple[Results, Results]:
    before = wide(synthetic_results())
    return before, disturbed(before)


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_are_computed_from_results(two_results, name):
    text, other = (BLOCKS[name](results) for results in two_results)
    assert all(re.search("[0-9]", words) for words in (text, other))
    assert text != other
    assert "nan" not in text + other
    assert "\n" not in text or name == "surprises"


@pytest.mark.parametrize("name", SENTENCES)
def test_what_was_not_measured_leaves_no_sentence(name):
    results = synthetic_results()
    empty = Results("quick", results.table.iloc[:0], [], None)
    assert BLOCKS[name](empty) in ("", "0")
    assert "reproduce" in NOTHING


@pytest.mark.parametrize("name", SENTENCES)
def test_few_arms_and_sizes_leave_out_what_they_do_not_say(name):
    results = synthetic_results()
    ours = results.table.loc[results.table["arm"].str.startswith(("query_exchange", "minimax"))]
    for rows in (ours, results.table.loc[results.table["size"] == 128], results.table.groupby("arm").head(1)):
        assert "nan" not in BLOCKS[name](replace(results, table=rows, fits=[]))


def test_rivals_that_lose_less_are_counted_out():
    """The synthetic loss grows by 40, 60 and 80 over m for h2o, snapkv and kept sinks, and by 12 for ours."""
    results = synthetic_results()
    text = SENTENCES["real_losses"](results)
    assert "`query_exchange` at 1/8 and 1/4 of the cache, over 4 segments of 2 texts, beside 3 rivals" in text
    assert "Its loss is lower in the mean than with all 3 at every size" in text
    rows = results.table
    ours = (rows["experiment"] == "real_language") & (rows["arm"] == "query_exchange") & (rows["size"] == 256)
    worse = replace(results, table=rows.assign(loss=rows["loss"].mask(ours, 2.5 + 50 / 256)))
    text = SENTENCES["real_losses"](worse)
    assert "Its loss is lower in the mean than with 2 of 3 (not `h2o`) at 1/8, all 3 at 1/4" in text
    assert "leaves out zero against 2 of 3 (not `h2o`) at 1/8, all 3 at 1/4" in text


def test_what_contradicted_expectations_is_there_only_while_it_does():
    results = wide(synthetic_results())
    assert "more slowly than e^(ρσ)" not in SENTENCES["surprises"](results)  # the synthetic β are 1
    text = SENTENCES["surprises"](replace(results, fits=[lower(record) for record in results.fits]))
    assert "On `sphere`, `cap_outliers` and `antipodal` the tilted walk's size grows more slowly than e^(ρσ)" in text
    assert "of β below 1: 0.3 [0.2, 0.4] to 0.3 [0.2, 0.4] (3 settings)" in text
    assert "more slowly than √d: α = 0.3 [0.2, 0.4] on `sphere`" in text
    assert "better on 2 of the ablation's 2 families, its error 0.7 [0.7, 0.7] to 0.7 [0.7, 0.7] times" in text
    assert "on the league's 4 families, others err less in the mean: `herding_tilted` on 4" in text
    worse = results.table.assign(error=results.table["error"].where(results.table["arm"] != WIDER, 9.0))
    assert "kernel scale" not in SENTENCES["surprises"](replace(results, table=worse))


def test_the_target_of_our_own_construction_is_met_where_its_claim_is():
    """Synthetic ratios 0.6, 0.5 and 0.4 meet 0.7; three times as large they do not."""
    results = synthetic_results()
    arms = {f"minimax_{model}": f"portfolio_{model}" for model in ("unweighted", "tilted")}  # our best of these models
    table = results.table.replace({"arm": arms})
    assert "is met in the model `unweighted`, `tilted` and `free`" in FOUND["own_target"](replace(results, table=table))
    ours = table["arm"].isin([*arms.values(), "minimax_free"])
    worse = table.assign(error=table["error"] * np.where(ours, 3.0, 1.0))
    assert "is met in no model" in FOUND["own_target"](replace(results, table=worse))
