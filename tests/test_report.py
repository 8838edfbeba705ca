"""The report: what its rows say, checks that fail it, and pages that follow the results exactly."""

import math
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attention_coresets.analysis.parts.band import Band, about
from attention_coresets.analysis.parts.block import BENIGN, BLOCKS, LOWER, OWN
from attention_coresets.analysis.parts.markdown import contents as contents_of_blocks
from attention_coresets.analysis.parts.markdown import fill, interval, number, table
from attention_coresets.analysis.parts.measured import Measured
from attention_coresets.analysis.parts.results import Results, load, present, significant
from attention_coresets.analysis.parts.status import status
from attention_coresets.analysis.report.blocks import page_blocks
from attention_coresets.analysis.report.claims_page import remark
from attention_coresets.analysis.report.decided import decided
from attention_coresets.analysis.report.first_page import first_page
from attention_coresets.analysis.report.paper_repro import paper_repro
from attention_coresets.analysis.report.readme_numbers import FOUND
from attention_coresets.analysis.report.tables_page import tables_page
from attention_coresets.analysis.stats.estimates import NOTHING, Estimate
from attention_coresets.analysis.topics.contents import CHECKS, CLAIMS, QUESTIONS, SECTIONS
from attention_coresets.analysis.topics.facts.tables import CHANGES, ablation, costs
from attention_coresets.analysis.topics.language_model import tables as language_tables
from attention_coresets.analysis.topics.rates.tables import rates
from attention_coresets.analysis.topics.real_heads.tables import GEOMETRY, gemma_geometry
from attention_coresets.study.table import COLUMNS
from command_line import script
from synthetic_results import synthetic_results, write_fits, write_results

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ["error", "sigma", "radius", "heldout_mean", "heldout_p99", "loss", "kl"]


def once(work, key):
    """What `work` makes of one argument, made once for all arguments of the same key: pages take seconds."""
    made = {}

    def found(argument):
        name = key(argument)
        if name not in made:
            made[name] = work(argument)
        return made[name]

    return found


def contents(folder: Path) -> tuple:
    """A tier's folder and its results; not what the report writes beside them."""
    return folder, *(path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".parquet", ".json"))


report_script = script("report")
report_script.load = once(report_script.load, contents)
report_script.page_blocks = once(report_script.page_blocks, lambda tiers: tuple(map(id, tiers)))
for page_maker in ("paper_repro", "tables_page"):
    setattr(report_script, page_maker, once(getattr(report_script, page_maker), id))

README = """# x
<!-- numbers:headline -->
<!-- /numbers:headline -->
between ρ of <!-- numbers:real_norms -->typed<!-- /numbers:real_norms --> nats
<!-- numbers:rates -->
old
<!-- /numbers:rates -->
<!-- numbers:real_errors -->
<!-- /numbers:real_errors -->
<!-- numbers:real_language -->
<!-- /numbers:real_language -->
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A repository with results, and the pages written from them."""
    root = tmp_path_factory.mktemp("root")
    write_results(root / "results")
    (root / "README.md").write_text(README)
    assert run(root) == 0
    return root


@pytest.fixture(scope="module")
def results(root: Path) -> Results:
    return report_script.load(root / "results" / "quick")


@pytest.fixture(scope="module")
def page(results: Results) -> str:
    return report_script.paper_repro(results)


@pytest.fixture(scope="module")
def tables(results: Results) -> str:
    return report_script.tables_page(results)


def run(root: Path, *arguments: str) -> int:
    return report_script.main(["--results", str(root / "results"), "--root", str(root), *arguments])


NAN = math.nan


@pytest.mark.parametrize(
    ("x", "text"),
    [
        *((1.0, "1"), (0.98765, "0.988"), (49.49, "49.5"), (1234.4, "1234"), (1.6e-4, "1.6e-4"), (NAN, "–")),
        *((0.0, "0"), (2e-14, "2.0e-14"), (2.2e-16, "0"), (-9.6e-17, "0")),  # no processor's own rounding on a page
    ],
)
def test_numbers(x, text):
    assert number(x) == text


def test_markdown():
    assert interval(Estimate(1.0, 0.9, 1.1, 5)) == "1 [0.9, 1.1]"
    assert interval(Estimate(1.0, NAN, NAN, 2)) == "1"
    assert table(["a", "b"], [["1|2", "3"]]) == "| a | b |\n| - | - |\n| 1\\|2 | 3 |"
    assert "\nnew\n" in fill("<!-- numbers:a -->\nold\n<!-- /numbers:a -->", {"a": "new"})
    assert contents_of_blocks("x <!-- numbers:a -->old<!-- /numbers:a -->") == {"a": "old"}
    with pytest.raises(ValueError, match="numbers:b is no block"):
        fill("<!-- numbers:b -->\n<!-- /numbers:b -->", {"a": "new"})


def test_pages_round_trip(root):
    assert run(root, "--check") == 0
    page, readme = (root / "paper_repro.md").read_text(), (root / "README.md").read_text()
    assert all(claim.statement in page for claim in CLAIMS)
    assert all(model in page for model in ("*unweighted*", "*tilted*", "*free*"))
    assert "python scripts/sweep.py experiment=NAME tier=quick" in page
    assert "between ρ of <!-- numbers:real_norms -->49.5<!-- /numbers:real_norms --> nats" in readme
    assert "\nold\n" not in readme
    assert "walk_tilted (tilted)" in readme


def test_tables_of_every_experiment_and_every_setting_of_every_claim(root, results, page, tables):
    folder = root / "results" / "quick"
    assert (folder / "tables.md").read_text() == tables
    headings = [f"## {section.experiment}\n**{section.title}.**" for section in SECTIONS]
    assert [heading for heading in headings if heading in tables] == headings
    assert "python scripts/sweep.py experiment=epsilon_rate tier=quick" in tables
    linked = re.findall(r"results/quick/tables\.md#(\w+)", page)
    assert all(f"\n## {name}\n" in tables for name in linked)

    lines, outcomes = pd.read_csv(folder / "claims.csv"), decided(results)
    assert list(dict.fromkeys(lines["claim"])) == [claim.id for claim in CLAIMS]
    for name, own in lines.groupby("claim"):
        found = outcomes[str(name)]
        assert set(own["verdict"]) == {found.status}
        assert len(own) == max(1, len(found.parts))
        values = [part.estimate.value for part, _ in found.parts] or [math.nan]
        assert own["value"].to_numpy() == pytest.approx(values, rel=1e-5, nan_ok=True)
        wide = [part.estimate.simultaneous(found.claims) for part, _ in found.parts] or [NOTHING]
        for end in ("low", "high"):
            ends = [getattr(each, end) for each in wide]
            assert own[f"wide_{end}"].to_numpy() == pytest.approx(ends, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize(("arm", "gamma"), [("uniform", 2.0), ("walk_tilted", 1.0)])
def test_exponents_from_errors_are_those_of_the_error_laws(results, arm, gamma):
    (law,) = (record for record in results.laws("epsilon_rate_error") if record["fixed"]["arm"] == arm)
    found = 1 / law["coefficients"]["decay"]["value"]
    assert found == pytest.approx(gamma, rel=0.04)
    (line,) = (line for line in rates(results).splitlines() if line.startswith(f"| γ (1/ε) | {arm} "))
    assert line.endswith(f" | {number(found)} |")


def test_so_are_those_of_a_covariate(results):
    laws = [each["coefficients"] for each in results.laws("rho_rate_error") if each["fixed"]["arm"] == "walk_tilted"]
    betas = sorted(each["beta_error"]["value"] / each["decay"]["value"] for each in laws)
    (line,) = (line for line in rates(results).splitlines() if line.startswith("| β (x) | walk_tilted "))
    assert line.endswith(f" | {' to '.join(dict.fromkeys(map(number, (betas[0], betas[-1]))))} |")


def test_the_first_page_has_every_claim_in_one_question_and_says_why_one_was_missed(page, results):
    asked = [name for question in QUESTIONS for name in question.claims]
    assert sorted(asked) == sorted(claim.id for claim in CLAIMS)
    first = page.partition("\n## A. ")[0]
    assert len(first.splitlines()) <= 80
    assert all(f"| {question.text} |" in first for question in QUESTIONS)
    rows = r"^\| `(\w+)`.* \| ([^|]*?)(?: \([^|]*\))? \| \*\*[^|]*\|$"
    numbers = dict(re.findall(rows, page, re.MULTILINE))
    assert len(numbers) == sum(bool(outcome.parts) for outcome in decided(results).values()) > 70
    for question in QUESTIONS:  # the numbers that the tables below have; a dash for claims without any
        shown = {name: numbers.get(name, "–") for name in re.findall(r"{(\w+)}", question.answer)}
        assert f"| {question.text} | {question.answer.format(**shown)} |" in first
    assert "Missed, and why" not in first  # made by the laws that the claims are held to
    outcomes = decided(results)
    for name in ("joint_alpha", "joint_gamma_draws", "league_free", "optimum_walk"):
        outcomes[name] = replace(outcomes[name], status=outcomes[name].claim.block.worst)
    told = first_page(results, outcomes).partition("Missed, and why")[2].partition("\n## ")[0]
    assert re.findall(r"^- (.*?): ", told, re.MULTILINE) == [
        *("`joint_alpha` and `joint_gamma_draws`", "`optimum_walk`", "`league_free`")
    ]
    assert "- `optimum_walk`: why is not known." in told


def test_the_committed_page_is_short_and_explains_all_that_was_missed():
    if not present(ROOT / "results"):
        pytest.skip("no results in this checkout")
    text = (ROOT / "paper_repro.md").read_text(encoding="utf-8")
    assert len(text.encode()) < 50_000
    assert len(text.partition("\n## A. ")[0].splitlines()) <= 80
    assert "why is not known" not in text


@pytest.mark.parametrize("name", ["README.md", "paper_repro.md", "results/quick/tables.md", "results/quick/claims.csv"])
def test_check_catches_a_changed_number(root, name, capsys):
    path = root / name
    before = path.read_text()
    changed = before.replace("0.9", "0.8", 1)
    assert changed != before
    path.write_text(changed)
    assert run(root, "--check") == 1
    assert f"{name.removeprefix('results/')} differs" in capsys.readouterr().err
    assert path.read_text() == changed  # --check writes nothing
    assert run(root) == 0
    assert path.read_text() == before


def test_check_catches_a_number_typed_by_hand(root, tmp_path, capsys):
    for name in ("README.md", "paper_repro.md"):
        (tmp_path / name).write_text((root / name).read_text())
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "more.md").write_text("# More\n\nIt is better on\nseven heads.\n")
    arguments = ["--results", str(root / "results"), "--root", str(tmp_path), "--check"]
    assert report_script.main(arguments) == 1
    assert 'report: docs/more.md:4: "seven" typed by hand' in capsys.readouterr().err
    (tmp_path / "docs" / "typed_numbers.txt").write_text("[docs/more.md]\nbetter on seven heads | setting\n")
    assert report_script.typed_by_hand(tmp_path) == []


def test_check_catches_a_number_changed_inside_a_line(root, capsys):
    path = root / "README.md"
    before = path.read_text()
    path.write_text(before.replace("-->49.5<!--", "-->48.5<!--"))
    assert run(root, "--check") == 1
    assert "README.md differs" in capsys.readouterr().err
    path.write_text(before)


@pytest.mark.parametrize(
    ("low", "high", "block", "words"),
    [
        (0.97, 1.08, LOWER, ""),
        (1.01, 1.08, LOWER, ", interval excludes 1"),
        (1.2, 1.3, LOWER, " (above)"),
        (0.5, 0.8, OWN, " (below)"),
        (1.2, 1.3, BENIGN, " (above)"),  # of a bound: a remark, not a verdict
        (NAN, NAN, LOWER, ""),
    ],
)
def test_rows_say_where_an_interval_lies(low, high, block, words):
    part, band = Measured("", Estimate(1.05, low, high, 5)), about(1.0, 0.1, 1.5)
    assert remark(part, status(part, band, block, 1), band) == words
    plain = Band(0.9, 1.1)
    assert "excludes" not in remark(part, status(part, plain, block, 1), plain)


def test_tolerances_set_after_a_run_or_a_pilot_are_marked(page):
    late = [each for each in (*CLAIMS, *CHECKS) if each.expected.after]
    assert {each.id for each in late} == {"antipodal_floor", "constant_sigma", "hardness_ceiling"}
    assert all(f"† `{each.id}`: set after a run, {each.expected.after}." in page for each in late)
    assert page.count("≥ 1 †") == 1
    pilots = [claim for claim in CLAIMS if claim.expected.pilot]
    assert {"floor_factor", "constant_issue", "real_rho"} < {claim.id for claim in pilots}
    assert all(f"{claim.says} [{claim.expected.marked}]" in page or f"{claim.says} ‡" in page for claim in pilots)


def test_what_was_added_after_a_look_is_said_in_the_row(page):
    added = [claim for claim in CLAIMS if claim.added]
    assert {"league_free_unseen_more", "real_loss_8"} < {claim.id for claim in added}
    for claim in added:
        assert f"\n| `{claim.id}` § {claim.statement} |" in page
        (line,) = (line for line in page.split("\n") if line.startswith("§") and claim.added in line)
        named = re.findall(r"`([\w*]+)`", line.partition(":")[0])
        assert any(fnmatchcase(claim.id, name) for name in named)
        here = [other.id for other in CLAIMS if other.block == claim.block and not other.added]
        assert not any(fnmatchcase(other, name) for other in here for name in named)  # a star is of no other claim


def test_claims_stand_in_the_table_of_their_block(page):
    for block in BLOCKS:
        part = page.partition(f"\n## {block.letter}. {block.title}\n")[2].partition("\n## ")[0]
        rows = [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
        own = [claim for claim in CLAIMS if claim.block is block]
        of = [[claim.id for claim in own if claim.experiment == section.experiment] for section in SECTIONS]
        assert rows == [name for names in of for name in names]
        assert len(rows) == len(own)
        assert block.source in part
        assert ("What would refute it" in part) == block.theorem
    checks = page.partition("## Checks of the code")[2].partition("\n## ")[0]
    assert re.findall(r"^- `(\w+)`", checks, re.MULTILINE) == [check.id for check in CHECKS]


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """A repository whose results violate a check of the code."""
    root = tmp_path_factory.mktemp("broken")
    (root / "README.md").write_text(README)
    folder = write_results(root / "results")
    table = pd.read_parquet(folder / "table.parquet")
    hit = table.index[(table["experiment"] == "small_caches") & (table["d"] == 2)][0]
    table.loc[hit, "branch_upper"] = 0.9 * table.loc[hit, "error"]
    table.loc[table["experiment"] == "epsilon_rate", "error"] *= 1.5
    table.to_parquet(folder / "table.parquet")
    write_fits(folder, synthetic_results().fits)
    return root


def test_a_violated_check_fails_the_report(broken, capsys):
    assert run(broken) == 1
    assert "check certificate is violated at tier quick" in capsys.readouterr().err
    assert "**violated**" in (broken / "paper_repro.md").read_text()
    assert run(broken, "--check") == 1


def test_check_catches_changed_results(broken, root, capsys):
    """The pages of other results."""
    for name in ("paper_repro.md", "results/quick/tables.md"):
        (broken / name).write_text((root / name).read_text())
    assert run(broken, "--check") == 1
    said = capsys.readouterr().err
    assert "paper_repro.md differs" in said
    assert "quick/tables.md differs" in said


def test_the_page_that_counts_claims_names_a_violated_check(results, broken):
    assert FOUND["found_verdicts"](results).endswith("checks of the code, none violated")
    words = FOUND["found_verdicts"](report_script.load(broken / "results" / "quick"))
    assert words.endswith("checks of the code, `certificate` violated")


def test_real_heads_are_named(tables):
    assert "KV head 0 of layers " in tables


def test_the_strongest_tier_is_told(results):
    smoke = Results("smoke", results.table, results.fits, results.heads)
    assert report_script.strongest([smoke]) is smoke
    assert report_script.strongest([smoke, results]) is results


def test_language_table_takes_texts_without_facts_and_seeds_as_no_texts(results):
    page = language_tables.language(results)
    twice = pd.concat([results.table, results.table.assign(seed=results.table["seed"] + 1)])
    assert language_tables.language(Results("full", twice, results.fits)) == page
    without = results.table.assign(needle_found=math.nan, needle_found_full=math.nan)
    assert "– of the planted facts" in language_tables.language(Results("smoke", without, results.fits))


def test_the_ablation_has_ratios_over_ours_and_names_what_every_version_changes():
    lines = ablation(synthetic_results(noise=0)).splitlines()
    assert "6 segments of 2 texts, n = 2048, m = n/8" in lines[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[-2:]]
    assert [row[:2] for row in rows] == [["`replay_fit`", "–"], ["`replay_fit_unweighted`", CHANGES["unweighted"]]]
    assert [re.match(r"[\d.]+", row[-1]).group() for row in rows] == ["0.95", "0.475"]
    assert [row[2].partition(" ")[0] for row in rows] == ["1", "2"]
    swept = (ROOT / "conf/experiment/real_ablation.yaml").read_text().rpartition(" arm: ")[2].strip().split(",")
    assert set(swept) == {"replay_fit", *(f"replay_fit_{end}" for end in CHANGES)}


def test_heads_of_the_second_model_stand_from_the_least_to_the_largest_beside_the_first(results):
    heads = results.heads.iloc[:3].assign(model="gemma3-270m", rho_centred=[30.0, 10.0, 20.0])
    text = gemma_geometry(replace(results, gemma_heads=heads))
    middle = results.heads["rho_centred"].median()
    assert f"| {GEOMETRY['rho_centred']} | 10 | 20 | 30 | {number(middle)} |" in text
    assert text.startswith("3 heads of 1 texts, layers ")
    assert "scripts/heads.py --gemma" in gemma_geometry(results)


def test_costs_of_keeping_facts_are_means_over_segments_and_bytes_over_the_least(results):
    rows = results.table.loc[results.table["experiment"] == "real_tasks"]
    ours, small = rows["arm"] == "replay_fit", rows["size"] == 256
    seconds = np.where(ours, np.where(small, 2.0, 3.0), 0.5) + np.where(
        rows["cache_params"].str.contains("code"), 0.25, -0.25
    )
    table = rows.assign(seconds_construct=seconds, kept_bytes=np.where(ours, 1.04, 1.0) * rows["size"] * 1000)
    text = costs(Results("quick", table, []))
    assert "| replay_fit (free) | 3 | 1.04 | 2 | 1.04 |" in text
    assert "| kvzip (unweighted) | 0.5 | 1 | 0.5 | 1 |" in text


def test_every_column_of_the_table_is_explained():
    section = (ROOT / "docs" / "results.md").read_text().partition("## table.parquet")[2].partition("\n## ")[0]
    assert set(COLUMNS) <= set(re.findall(r"`(\w+)`", section))


def test_the_page_of_the_tables_shows_code_that_runs(monkeypatch, capsys):
    if not (ROOT / "results" / "reduced").exists():
        pytest.skip("no results in this checkout")
    monkeypatch.chdir(ROOT)
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "results.md").read_text(), re.DOTALL)
    assert code is not None
    exec(code[1], {})
    assert "sphere" in capsys.readouterr().out


def test_without_results_nothing_is_written(tmp_path, capsys):
    (tmp_path / "README.md").write_text("")
    assert run(tmp_path) == 2
    assert "no tier has a table" in capsys.readouterr().err
    assert not (tmp_path / "paper_repro.md").exists()


def test_committed_pages_agree_with_committed_results():
    """Numbers in README.md and paper_repro.md are generated, never typed."""
    if not present(ROOT / "results"):
        pytest.skip("no results in this checkout")
    assert report_script.main(["--check"]) == 0


@pytest.mark.slow
def test_the_last_digits_of_the_results_decide_nothing(tmp_path):
    """Another processor's errors, alike to 1e-15: the same picks among arms that tie, intervals and statuses."""
    pages = []
    for level in (0.0, 1e-15):
        folder = write_results(tmp_path / str(level))
        table = pd.read_parquet(folder / "table.parquet")
        twin = table.loc[(table["experiment"] == "league") & (table["arm"] == "walk_unweighted")]
        table = pd.concat([table, twin.assign(arm="walk_unweighted_twin")], ignore_index=True)
        noise = np.random.default_rng(0).uniform(-level, level, (len(table), len(MEASURED)))
        table[MEASURED] *= 1 + noise
        table.to_parquet(folder / "table.parquet")
        write_fits(folder, synthetic_results().fits)
        found = load(folder)
        pages.append((tables_page(found), paper_repro(found), page_blocks([found])))
    assert "walk_unweighted_twin" in pages[0][0]
    assert pages[0] == pages[1]


def test_numbers_keep_ten_significant_digits():
    x = np.array([1 / 3, -2e5 / 3, 1e-300 / 3, 0.0, np.inf, -np.inf, 0.1, 1024.0, 0.03125])
    found = significant(x)
    assert found[:2].tolist() == [0.3333333333, -66666.66667]
    assert found[2] == pytest.approx(x[2], rel=1e-9)
    assert found[3:].tolist() == x[3:].tolist()
    assert np.isnan(significant(np.array([np.nan]))[0])
    assert significant(np.nextafter(x, np.inf)[:3]).tolist() == found[:3].tolist()
