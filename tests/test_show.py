"""What a sweep says: its name and place, and tables whose numbers follow from the rows by plain arithmetic."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attention_coresets.analysis.figures.looks import looks
from attention_coresets.analysis.parts.results import ResultsError
from attention_coresets.analysis.show import numbers, text
from attention_coresets.analysis.show.shown import find, known, of_store
from attention_coresets.analysis.show.summary import default_by, summary
from attention_coresets.study.names import OWN, Place, swept
from attention_coresets.study.store import Store
from command_line import REPOSITORY, Shell, script
from synthetic_results import synthetic_table

SMALL = ("cache.n=64", "cache.d=4", "heads=3", "sizes=[8,16]", "adversary=tiny", "compute.threads=1")
SWEPT = ("-m", "cache=sphere,antipodal", "arm=uniform,walk_tilted", *SMALL)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch, capfd) -> Shell:
    return Shell(tmp_path, monkeypatch, capfd)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    (folder / "quick").mkdir()
    synthetic_table().to_parquet(folder / "quick" / "table.parquet")
    return folder


@pytest.fixture(scope="module")
def laws(results) -> list[dict]:
    """Of the rows that grow as e^rho / m (walks on spheres) and e^(0.6 rho) / sqrt(m) (draws)."""
    return numbers.laws(find(results, "rho_rate", "quick").rows.query("cache == 'sphere'"))


def the_only(results: Path) -> str:
    (name,) = Store(results).experiments(OWN)
    return name


# the name and the place of a sweep ---------------------------------------------------------------------------------


def test_a_sweep_of_ones_own_ends_in_its_table(shell) -> None:
    outcome = shell.sweep(*SWEPT)
    assert outcome.code == 0, outcome.err
    name = the_only(shell.results)
    assert re.fullmatch(r"arm-cache-[0-9a-f]{4}", name)
    rows = find(shell.results, name, "reduced").rows
    assert len(rows) == 2 * 2 * 3 * 2
    for (_, size), group in rows.loc[rows["cache"] == "sphere"].groupby(["arm", "size"]):
        assert f"{float(np.median(group['error'])):.3g} [" in outcome.out, size
    assert f"python scripts/show.py {name}" in outcome.out
    assert "python scripts/sweep.py -m cache=sphere,antipodal" in outcome.out

    again = shell.sweep(SWEPT[0], *SWEPT[:0:-1])  # in another order
    assert again.summary == "0 computed, 4 already done, 0 failed"
    assert shell.collect("--tier", "reduced").code == 1  # nothing of a tier was run
    assert not list(shell.results.glob("*/table.parquet"))
    assert known(shell.results) == {OWN: [name]}


def test_a_name_that_is_given_holds_its_last_run(shell) -> None:
    shell.sweep(*SWEPT, "name=mine")
    outcome = shell.sweep("-m", "cache=sphere", "arm=uniform,walk_tilted", *SMALL, "name=mine")
    assert "mine no longer has 2 cells of its last run" in outcome.err
    assert set(find(shell.results, "mine", "reduced").rows["cache"]) == {"sphere"}
    (shell.results / "cells" / "log").rename(shell.results / "cells" / "gone")
    shown = of_store(Store(shell.results), Place(OWN, "mine"))
    assert len(shown.missing) == 2
    assert "2 cells are not finished" in summary(shown, 120)


def test_an_experiment_under_a_name_of_ones_own_leaves_the_experiment_alone(shell) -> None:
    outcome = shell.probe("name=mine", "arm=uniform")
    assert outcome.code == 0, outcome.err
    assert Store(shell.results).experiments("smoke") == []
    assert set(find(shell.results, "mine", "smoke").rows["arm"]) == {"uniform"}


@pytest.mark.parametrize("name", ["league", "a/b", "'my sweep'", "-x"])
def test_names_that_would_be_taken_for_another_are_refused(shell, name) -> None:
    outcome = shell.sweep(*SWEPT, f"name={name}")
    assert outcome.code == 1
    assert "error: name=" in outcome.err
    assert not (shell.results / "cells" / "index").exists()


def test_a_single_cell_has_no_name(shell) -> None:
    outcome = shell.sweep("cache=sphere", "coreset=uniform", *SMALL, "name=mine")
    assert outcome.code == 1
    assert "add -m or leave it out" in outcome.err


def test_arms_are_told_apart_by_whatever_was_swept(shell) -> None:
    shell.sweep(
        "-m", "cache=sphere", "coreset=gram_schmidt_walk", "coreset.recursion=one_walk,halving", *SMALL, "name=mine"
    )
    rows = find(shell.results, "mine", "reduced").rows
    assert set(rows["arm"]) == {"gram_schmidt_walk recursion=one_walk", "gram_schmidt_walk recursion=halving"}
    assert rows.groupby("arm")["cell"].nunique().eq(1).all()


def test_families_are_told_apart_by_their_parameters(shell) -> None:
    shell.sweep("-m", "cache=clusters", "cache.clusters=4,8", "arm=uniform", *SMALL, "name=mine")
    shown = find(shell.results, "mine", "reduced")
    assert set(shown.rows["family"]) == {"clusters clusters=4", "clusters clusters=8"}
    assert default_by(shown) == ["family"]


def test_a_label_is_read_key_by_key() -> None:
    assert swept("cache=sphere sizes=[8,16] coreset.scale=2") == {
        "cache": "sphere",
        "sizes": "[8,16]",
        "coreset.scale": "2",
    }


# numbers -----------------------------------------------------------------------------------------------------------


def test_errors_are_medians_over_caches_of_medians_over_settings(results) -> None:
    rows = find(results, "rho_rate", "quick").rows
    found = numbers.errors(rows, ["family"]).set_index(["family", "arm", "size"])
    here = rows.query("cache == 'antipodal' and arm == 'uniform' and size == 64")
    plain = np.median([np.median(group["error"]) for _, group in here.groupby(["seed", "head"])])
    line = found.loc[("antipodal", "uniform", 64)]
    assert line["error"] == pytest.approx(plain, rel=1e-9)
    assert line["low"] <= line["error"] <= line["high"]
    assert line["units"] == here["seed"].nunique()


def test_laws_find_the_rates_that_the_rows_were_made_with(laws) -> None:
    mine = {record["fixed"]["arm"]: {k: c["value"] for k, c in record["coefficients"].items()} for record in laws}
    assert mine["walk_tilted"]["gamma"] == pytest.approx(1.0, abs=0.04)
    assert mine["walk_tilted"]["beta_rho"] == pytest.approx(1.0, abs=0.04)
    assert mine["uniform"]["gamma"] == pytest.approx(2.0, abs=0.1)
    assert mine["uniform"]["beta_rho"] == pytest.approx(1.2, abs=0.06)


def test_the_law_is_drawn_where_the_sizes_are(results, laws) -> None:
    """The rows' own law, 0.2 sqrt(d) e^rho / m."""
    rows = find(results, "rho_rate", "quick").rows.query("arm == 'walk_tilted' and cache == 'sphere'")
    law = numbers.predicted(rows.query("rho == 2"), laws, np.array([0.1, 0.05]))
    assert law is not None
    assert law == pytest.approx([0.2 * math.sqrt(8) * math.exp(2) / e for e in (0.1, 0.05)], rel=0.1)
    assert numbers.predicted(rows, laws, np.array([0.1])) is None  # of several settings


def test_sizes_hold_the_error_asked_for(results) -> None:
    rows = find(results, "epsilon_rate", "quick").rows
    for line in numbers.sizes(rows, [], numbers.epsilons(rows, [])).itertuples():
        medians = rows.loc[rows["arm"] == line.arm].groupby("size")["error"].median()
        if np.isfinite(line.hi):
            assert (medians[medians.index >= line.hi] <= line.epsilon).all()
        if line.lo > 0:
            assert medians[line.lo] > line.epsilon


def test_ratios_are_paired(results) -> None:
    rows = find(results, "constant", "quick").rows
    wide = rows.pivot_table("error", ["cache", "seed", "rho", "size"], "arm")
    logs = np.log(wide["uniform"] / wide["walk_tilted"])
    plain = math.exp(logs.groupby(["cache", "seed"]).mean().median())
    assert numbers.ratios(rows, "walk_tilted")["uniform"].value == pytest.approx(plain, rel=1e-9)
    assert numbers.ratios(rows, "walk_tilted")["walk_tilted"].value == 1


# what is printed ---------------------------------------------------------------------------------------------------


def test_columns_that_do_not_fit_follow_below() -> None:
    head, row = ["arm", *(f"m = {m}" for m in (16, 32, 64, 128))], ["walk", *["0.123 [0.1, 0.2]"] * 4]
    lines = text.aligned(head, [row], width=50).splitlines()
    assert max(map(len, lines)) <= 50
    assert [line.split()[0] for line in lines if line] == ["arm", "walk", "arm", "walk"]
    assert len(text.aligned(head, [row], width=200).splitlines()) == 2


@pytest.mark.parametrize("experiment", ["league", "real_errors", "real_language", "lower_bound_beyond"])
def test_every_kind_of_experiment_can_be_shown(experiment) -> None:
    shown = find(REPOSITORY / "results", experiment, "quick")
    words = summary(shown, 120)
    assert shown.command == f"python scripts/sweep.py experiment={experiment} tier=quick"
    assert ("KL from the full cache's predictions" in words) == (experiment == "real_language")
    assert max(map(len, words.splitlines())) <= 140


def test_a_sweep_of_a_language_model_says_divergence_and_facts(capsys) -> None:
    rows = find(REPOSITORY / "results", "real_language", "quick").others
    assert script("show").main(["real_language", "--tier", "quick", "--results", str(REPOSITORY / "results")]) == 0
    out = capsys.readouterr().out
    assert f"real_language: {rows['cell'].nunique()} cells, 0 worst-case errors" in out
    for block in out.split("\n\n")[1:-1]:
        (_, _, size, *heads), *lines = [line.split() for line in block.replace("KL ", "KL  ").splitlines()]
        assert heads == ["KL", "loss", "added", "facts", "found"]
        for arm, kl, _, found in lines:
            mine = rows.loc[(rows["arm"] == arm) & (rows["size"] == int(size))]
            assert [float(kl), float(found)] == pytest.approx(
                [mine["kl"].mean(), mine["needle_found"].mean()], rel=0.01
            )
        assert [float(line[1]) for line in lines] == sorted(float(line[1]) for line in lines)


def test_show_writes_figures_and_table_apart_from_the_results(results, tmp_path, capsys) -> None:
    show = script("show").main
    before = (results / "quick" / "table.parquet").read_bytes()
    where = ["--results", str(results), "--outputs", str(tmp_path)]
    assert show(["epsilon_rate", "--tier", "quick", "--against", "uniform", *where]) == 0
    out = capsys.readouterr().out
    assert "γ (1/ε)" in out
    assert "Error over that of uniform" in out
    folder = tmp_path / "show" / "quick" / "epsilon_rate"
    assert {path.name for path in folder.iterdir()} >= {"errors.png", "sizes.png", "table.parquet"}
    assert set(pd.read_parquet(folder / "table.parquet")["experiment"]) == {"epsilon_rate"}
    assert (results / "quick" / "table.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no sweep of yours"),
        (["constant", "--tier", "full"], "tier full has no table; there are quick: "),
        (["constant", "--tier", "quick", "--against", "walk"], "it has walk_tilted, walk_unweighted, uniform"),
        (["constant", "--tier", "quick", "--by", "arm"], "arm is none of family, n, d, rho"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(results, capsys, arguments, words) -> None:
    assert script("show").main([*arguments, "--results", str(results)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_unlisted_arms_have_colours_of_their_own() -> None:
    found = looks(["walk_tilted", "mine scale=1", "mine scale=2", "minimax_free"])
    assert len({look.color for look in found.values()}) == 4
    with pytest.raises(ResultsError, match="no sweep of yours"):
        find(REPOSITORY / "results", "mine", "quick")
