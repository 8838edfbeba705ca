"""Cells and sweeps: paired comparisons, resuming after a kill, failures that do not spread, conf/ in order."""

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from attention_coresets import CACHES, attention_error, make_cache, make_coreset
from attention_coresets.coresets.arms import ARMS
from attention_coresets.coresets.catalogue import CONSTRUCTIONS, FOR_ONE_FAMILY
from attention_coresets.study import job
from attention_coresets.study.audit import laid_out
from attention_coresets.study.cell import run_cell
from attention_coresets.study.checks import TIERS
from attention_coresets.study.config import key_descriptions, register
from attention_coresets.study.disk import StudyError
from attention_coresets.study.job import computed_rows
from attention_coresets.study.progress import Board
from attention_coresets.study.provenance import provenance
from attention_coresets.study.store import Store
from attention_coresets.study.table import COLUMNS, HARDNESS, HEADS, LABELS, LANGUAGE, read_table
from command_line import REPOSITORY, Shell, probe

THREE = ("uniform", "halving_unweighted", "walk_tilted")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch, capfd) -> Shell:
    return Shell(tmp_path, monkeypatch, capfd)


def options(group: str) -> list[Path]:
    return sorted((REPOSITORY / "conf" / group).glob("*.yaml"))


def configuration(**changes) -> dict:
    base = {
        "cache": {"name": "sphere", "n": 48, "d": 4},
        "coreset": {"name": "uniform", "sinks": 0},
        "rho": 1.5,
        "seed": 3,
        "heads": 2,
        "sizes": [8, 48],
        "adversary": {"restarts": 8, "steps": 10, "polish": 5, "certify": False},
        "compute": {"device": "cpu", "dtype": "float64", "threads": None},
    }
    return base | changes


# conf/ -------------------------------------------------------------------------------------------------------------


def test_registry_names_are_option_names() -> None:
    register()
    for group, names in (("cache", CACHES), ("coreset", CONSTRUCTIONS), ("arm", ARMS)):
        # other tests of the process may have registered more
        assert set(names) <= {name.removesuffix(".yaml") for name in ConfigStore.instance().list(group)}


def test_labels_are_file_names() -> None:
    for path in options("experiment"):
        assert OmegaConf.load(path).experiment == path.stem
        assert OmegaConf.load(path).hydra.mode == "MULTIRUN"


@pytest.mark.parametrize("path", options("experiment"), ids=lambda path: path.stem)
def test_experiment_files_open_with_command_and_time_and_have_all_tiers(path: Path) -> None:
    opening = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
    assert opening is not None
    for part in ("# @package _global_", f"python scripts/sweep.py experiment={path.stem}", "# Time"):
        assert part in opening[0]
    assert set(OmegaConf.load(path)["at"]) - {"shape"} == set(TIERS)  # shape: several keys swept as one


def of_text(arm: str) -> bool:
    """Whether an arm's construction needs queries or positions, which only a real head has."""
    construct = CONSTRUCTIONS[ARMS[arm].construction]
    return construct.needs_queries or construct.needs_positions


def test_an_arm_for_one_family_builds_there_and_is_refused_elsewhere(shell: Shell) -> None:
    cell = ("arm=coordinate_subset", "cache.d=4", "sizes=[8]", "adversary=tiny")
    for signs in ("random", "hadamard"):
        assert shell.sweep("cache=signed_clusters", f"cache.signs={signs}", *cell).code == 0
    refused = shell.sweep("cache=sphere", "cache.n=16", *cell)
    assert refused.code != 0
    assert "this is no signed-clusters cache" in refused.err


@pytest.mark.parametrize("text", [pytest.param(False, marks=pytest.mark.slow), True])
def test_every_arm_builds(shell: Shell, monkeypatch, tmp_path, text: bool) -> None:
    monkeypatch.setenv("ATTENTION_CORESETS_CAPTURES", str(tmp_path / "captures"))
    arms = [label for label in ARMS if of_text(label) == text and label not in FOR_ONE_FAMILY]
    cache = ("cache=model", "cache.model=tiny-random", "cache.queries=8") if text else ("cache=sphere", "cache.d=2")
    outcome = shell.sweep("-m", f"arm={','.join(arms)}", *cache, "cache.n=12", "sizes=[5]", "adversary=tiny")
    assert outcome.code == 0
    assert outcome.summary == f"{len(arms)} computed, 0 already done, 0 failed"


# cells -------------------------------------------------------------------------------------------------------------


def test_rows_have_the_stated_columns_and_one_row_a_size_and_head() -> None:
    rows = run_cell(configuration())
    assert [set(row) for row in rows] == [
        set(COLUMNS) - {*LABELS, *HEADS, *LANGUAGE, *HARDNESS, "objective", "probe"}
    ] * 4
    assert [(row["size"], row["head"]) for row in rows] == [(8, 0), (8, 1), (48, 0), (48, 1)]
    assert all(row["error"] < 1e-13 for row in rows if row["size"] == 48)
    first = rows[0]
    assert first["constant"] == pytest.approx(8 * first["error"] / (2 * math.exp(1.5 * first["sigma"])))
    assert first["exponent"] == pytest.approx(1.5 * first["radius"])
    assert json.loads(first["cache_params"]) == {"n": 48, "d": 4}


def test_error_is_at_least_that_of_sampled_queries() -> None:
    """Against an oracle that shares nothing but the cache: with sinks = size - 1 all but one token is known."""
    rows = run_cell(configuration(heads=1, sizes=[47]))
    cache = make_cache("sphere", n=48, d=4, seed=3)
    queries = torch.randn(500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    queries = 1.5 * queries / queries.norm(dim=-1, keepdim=True)
    leaving_one_out = [
        make_coreset("uniform")(cache, size=47, rho=1.5, generator=torch.Generator().manual_seed(s)) for s in range(300)
    ]
    least = min(float(attention_error(queries, cache, coreset).max()) for coreset in leaving_one_out)
    assert rows[0]["error"] >= least > 0


@pytest.mark.rounding
def test_comparisons_are_paired_and_repeatable() -> None:
    walk = {"name": "gram_schmidt_walk", "model": "tilted", "scale": "auto", "recursion": "one_walk", "ridge": 1e-4}
    uniform, other, again = (run_cell(configuration(coreset=c)) for c in (configuration()["coreset"], walk, walk))
    for a, b in zip(uniform, other, strict=True):
        assert (a["sigma"], a["radius"]) == pytest.approx((b["sigma"], b["radius"]), rel=1e-12)
    assert [row["error"] for row in other] == pytest.approx([row["error"] for row in again], rel=1e-6)


@pytest.mark.rounding
def test_head_and_size_do_not_depend_on_the_batch() -> None:
    both, alone = run_cell(configuration()), run_cell(configuration(heads=1, sizes=[8]))
    assert both[0]["sigma"] == pytest.approx(alone[0]["sigma"], rel=1e-12)
    assert both[0]["error"] == pytest.approx(alone[0]["error"], rel=1e-6)  # the same coreset and starts


def test_single_cell_prints_its_rows_and_is_kept(shell: Shell) -> None:
    arguments = ("cache=sphere", "cache.n=32", "cache.d=4", "coreset=uniform", "rho=1", "seed=0", "sizes=[8,16]")
    first, second = shell.sweep(*arguments), shell.sweep(*arguments)
    assert first.code == second.code == 0
    assert first.out.startswith("uniform (unweighted) on sphere: n=32 d=4 rho=1\n")
    assert [line.split()[0] for line in first.out.splitlines()[1:-1]] == ["size", "8", "16"]
    assert "kept: " in first.out
    assert "already done: " in second.out
    assert not list(Path.cwd().glob("*.log"))


@pytest.mark.parametrize("arguments", [("-m", "cache.n=32"), ("-m", "cache.n=32", "name=mine")])
def test_a_sweep_of_one_cell(shell: Shell, arguments) -> None:
    outcome = shell.sweep("cache=sphere", "cache.d=4", "coreset=uniform", "sizes=[8]", *arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.summary == "1 computed, 0 already done, 0 failed"
    name = next(path.name for path in (shell.results / "cells" / "index" / "own").iterdir())
    assert shell.script("show", name).code == 0


def test_an_experiment_of_one_cell_and_more_later(shell: Shell) -> None:
    assert shell.probe("seed=0", "arm=uniform").code == 0
    assert shell.probe("seed=0,1", "arm=uniform").summary == "1 computed, 1 already done, 0 failed"
    assert re.search(r"probe +2 +0 +4 ", shell.collect("--tier", "smoke").out)


# sweeps ------------------------------------------------------------------------------------------------------------


def test_sweep_resumes_and_collects(shell: Shell) -> None:
    first = shell.probe()
    assert first.code == 0
    assert first.summary == "6 computed, 0 already done, 0 failed"
    before = shell.cells
    again = shell.probe()
    assert again.summary == "0 computed, 6 already done, 0 failed"
    assert shell.cells == before
    collected = shell.collect("--tier", "smoke")
    assert collected.code == 0
    assert re.search(r"probe +6 +0 +12 ", collected.out)
    table = read_table(shell.results / "smoke" / "table.parquet")
    assert set(table["arm"]) == set(THREE)
    assert set(table["experiment"]) == {"probe"}
    sigma = table.groupby(["seed", "head"])["sigma"]  # the same caches for every arm
    assert (sigma.max() / sigma.min()).max() == pytest.approx(1, abs=1e-12)
    assert sigma.first().nunique() > 1
    store = Store(shell.results)
    kept = [row["error"] for cell in store.finished() for row in store.read(cell) or []]
    assert sorted(table["error"]) == sorted(kept)


def test_overrides_work_on_top_and_reuse_cells(shell: Shell) -> None:
    shell.probe()
    outcome = shell.probe("seed=1,2")
    assert outcome.summary == "3 computed, 3 already done, 0 failed"
    collected = shell.collect("--tier", "smoke")
    assert re.search(r"probe +9 +0 +18 ", collected.out)
    assert "last run with seed=1,2" in collected.out
    shell.probe()
    assert re.search(r"probe +6 +0 +12 ", shell.collect("--tier", "smoke").out)


def test_rows_that_are_measured_in_two_ways_do_not_stand_in_one_table(shell: Shell) -> None:
    wide = "compute.dtype=float32"
    assert shell.probe(wide).summary == "6 computed, 0 already done, 0 failed"
    assert shell.probe(wide, "seed=2").code == 0
    refused = shell.probe("seed=2")
    assert refused.code == 1
    assert f"its last run here had {wide}, this one has neither adversary nor dtype changed" in refused.err
    assert shell.probe("compute.dtype='float32'", "seed=2").code == 0  # the same, written otherwise
    shell.probe()  # the file's own grid, which makes those of before obsolete
    for change in (wide, "adversary.steps=3"):
        refused = shell.probe(change, "seed=2")
        assert refused.code == 1
        assert refused.err.count("\n") == 1
        said = f"its last run here had neither adversary nor dtype changed, this one has {change}, and the table"
        assert f"error: probe (smoke): {said}" in refused.err
        assert shell.probe(change, "seed=2", "name=mine").code == 0


def test_cells_of_other_code_are_said_where_they_are_not_computed_again(shell: Shell, monkeypatch) -> None:
    cell = ("cache=sphere", "cache.n=16", "coreset=uniform", "sizes=[4]", "adversary=tiny")
    clean = {**provenance(), "revision": "a" * 40, "dirty": False}
    for module in ("older", "provenance", "parts"):
        monkeypatch.setattr(f"attention_coresets.study.{module}.provenance", lambda: clean)
    shell.probe()
    shell.sweep(*cell)
    assert "done before" not in shell.probe().err + shell.sweep(*cell).err
    monkeypatch.setattr("attention_coresets.study.older.same_code", lambda revision: False)
    assert "note: 6 of 6 cells done before were computed with other, uncommitted" in shell.probe().err
    assert "note: 1 of 1 cells done before were computed with other, uncommitted" in shell.sweep(*cell).err


def test_cells_that_share_rows_are_not_restored(shell: Shell) -> None:
    """Of what two grids have in common the table has one cell's rows, so that not all of the other's are there."""
    shell.probe()
    shell.probe("sizes=[16,24]", "seed=1")
    shell.collect("--tier", "smoke")
    shutil.rmtree(shell.results / "cells")
    restored = shell.restore("--tier", "smoke", "probe").out
    assert "3 cells restored, 0 were there already; 6 of grids that overlap are to be computed anew" in restored
    assert shell.probe("sizes=[16,24]", "seed=1").summary == "3 computed, 0 already done, 0 failed"


def test_what_a_table_holds_is_not_computed_again(shell: Shell) -> None:
    """A checkout has the committed table alone: one more seed costs its own cells, and the table keeps the others."""
    shell.probe()
    shell.collect("--tier", "smoke")
    before = read_table(shell.results / "smoke" / "table.parquet")
    shutil.rmtree(shell.results / "cells")
    assert "6 cells restored, 0 were there" in shell.restore("--tier", "smoke", "probe").out
    assert "0 cells restored, 6 were there" in shell.restore("--tier", "smoke").out
    assert shell.probe("seed=0,1,2").summary == "3 computed, 6 already done, 0 failed"
    shell.collect("--tier", "smoke")
    after = read_table(shell.results / "smoke" / "table.parquet")
    old = after.loc[after["cell"].isin(before["cell"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, before)
    assert len(after) == 18
    assert "league: not in the table; it has probe" in shell.restore("--tier", "smoke", "league").err


def test_a_cell_is_of_the_text_that_a_file_has(tmp_path):
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    rest = ["cache=model", "cache.n=64", "coreset=uniform", "rho=1", "seed=0"]

    def names() -> list[str]:
        swept = laid_out(["-m", f"cache.text=manual,{one},{other}", *rest])
        return [cell.name for cell in swept] + [cell.name for cell in laid_out([f"cache.text={other}", *rest])]

    one.write_text("one text")
    other.write_text("another")
    before = names()
    assert before[2] == before[3]
    assert len(set(before)) == 3
    other.write_text("yet another")
    after = names()
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, True, False, False]
    (cell,) = laid_out([f"cache.text={other}", *rest])
    other.write_text("changed since")
    with pytest.raises(StudyError, match="has changed since the sweep was planned"):
        computed_rows(cell.config)
    assert "sources" not in next(iter(laid_out(["cache.text=manual", *rest]))).config


def test_hydras_habits(shell: Shell, tmp_path: Path) -> None:
    """-m among the overrides, a folder of one's own, lists, ranges and patterns; --cfg shows and computes nothing."""
    cell = ("cache=sphere", "cache.n=16", "-m", "sizes=[4]", "coreset=uniform")
    shown = shell.sweep("cache=sphere", "cache.n=16", "--cfg", "job", "cache.d=2")
    assert shown.code == 0
    assert "cache:\n  name: sphere" in shown.out
    where = f"hydra.sweep.dir={tmp_path / 'mine'}"
    for more in ("adversary=glob(t*)", "adversary=tiny"):
        outcome = shell.sweep(*cell, "seed=range(0,2)", "cache.d=2,3", more, where)
        assert outcome.code == 0, outcome.err
    assert outcome.summary.endswith("0 failed")
    assert (tmp_path / "mine" / "again-1" / "plan").exists()


def test_missing_cells_are_said_and_fail_collect(shell: Shell) -> None:
    shell.probe()
    (log,) = (shell.results / "cells" / "log").iterdir()
    log.write_bytes(log.read_bytes().partition(b"\n")[2])
    outcome = shell.collect("--tier", "smoke")
    assert outcome.code == 1
    assert "1 cells are missing" in outcome.err
    assert len(pd.read_parquet(shell.results / "smoke" / "table.parquet")) == 10


def test_a_failed_cell_is_reported_not_cached_and_stops_no_other(shell: Shell, monkeypatch) -> None:
    def fails_for_one(config):
        if config["seed"] == 1 and config["arm"] == "uniform":
            raise RuntimeError("no luck\nin this cell")
        return run_cell(config)

    with monkeypatch.context() as patch:
        patch.setattr(job, "run_cell", fails_for_one)
        outcome = shell.probe()
    assert outcome.code == 1
    assert "failed: arm=uniform seed=1: RuntimeError: no luck in this cell\n" in outcome.err
    assert outcome.summary == "5 computed, 0 already done, 1 failed"
    assert len(shell.cells) == 5
    (failed,) = (post for post in Board(next(shell.outputs.rglob("board"))).look() if post.state == "failed")
    assert "fails_for_one" in failed.traceback
    assert shell.probe().summary == "1 computed, 5 already done, 0 failed"


def test_a_killed_sweep_recomputes_no_finished_cell(shell: Shell) -> None:
    many = ("arm=uniform", "seed=range(0,60)")
    command = [sys.executable, str(REPOSITORY / "scripts" / "sweep.py"), *probe(shell.directory), *many]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(shell.cells) < 10 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = shell.cells
    assert 10 <= len(before) < 60
    outcome = shell.probe(*many)
    assert outcome.code == 0
    assert outcome.summary == f"{60 - len(before)} computed, {len(before)} already done, 0 failed"
    assert before.items() <= shell.cells.items()


def test_a_sweep_keeps_its_configuration_and_a_log(shell: Shell, monkeypatch) -> None:
    def fails(config):
        if config["seed"] == 1 and config["arm"] == "uniform":
            raise RuntimeError("no luck")
        return run_cell(config)

    with monkeypatch.context() as patch:
        patch.setattr(job, "run_cell", fails)
        assert shell.probe("cache.n=32").code == 1
    (folder,) = {path.parent for path in shell.outputs.rglob("plan")}
    kept = OmegaConf.load(folder / "multirun.yaml")
    assert (kept.experiment, kept.tier, kept.hydra.mode) == ("probe", "smoke", "MULTIRUN")
    command, begun, failed, summary = (folder / "sweep.log").read_text().splitlines()
    assert "experiment=probe tier=smoke" in command
    assert begun.endswith("probe (smoke): 6 cells to compute, 0 already done")
    assert failed.endswith("failed: arm=uniform seed=1: RuntimeError: no luck")
    assert "5 computed, 0 already done, 1 failed" in summary


def test_help_describes_every_key(shell: Shell) -> None:
    shown = shell.sweep("--help").out
    described = dict(line.split(maxsplit=1) for line in key_descriptions().splitlines())
    assert {"rho", "sizes", "adversary.certify", "tracking.per", "goal.measure"} <= described.keys()
    for key, what in described.items():
        assert re.search(rf"^{re.escape(key)} +{re.escape(what)}$", shown, re.MULTILINE), key
    assert "-sc install=bash" in shown


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["+experiment=league"], ("+experiment=league", "use experiment=league")),
        (["-m", "hydra/sweeper=basic", "seed=0,1"], ("plans all cells of a sweep together", "tune=NAME")),
        (["tune=walk", "experiment=league"], ("each brings its own sweep", "leave one of them out")),
        (["tune=walk", "launcher=joblib"], ("one after the other", "use launcher=local")),
        (["tune=walk"], ("needs Optuna", "pip install hydra-optuna-sweeper")),
    ],
)
def test_other_ways_to_sweep_are_refused_in_words(shell: Shell, monkeypatch, arguments: list[str], parts) -> None:
    optuna = None if arguments == ["tune=walk"] else object()
    monkeypatch.setattr("attention_coresets.study.explain.find_spec", lambda _: optuna)
    outcome = shell.sweep(*arguments)
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1
    for part in parts:
        assert part in outcome.err


@pytest.mark.skipif(find_spec("optuna") is None, reason="needs hydra-optuna-sweeper")
@pytest.mark.filterwarnings("ignore")  # Optuna's own, of experimental options
def test_optuna_lowers_the_error_cell_by_cell(shell: Shell) -> None:
    small = (
        "tune=walk",
        "hydra.sweeper.n_trials=3",
        "cache.n=32",
        "cache.d=2",
        "heads=2",
        "sizes=[4,8]",
        "goal.size=4",
    )
    shell.monkeypatch.setenv("PYTHONWARNINGS", "default")
    assert shell.sweep(*small).code == 0
    (path,) = shell.outputs.rglob("optimization_results.yaml")
    found = OmegaConf.load(path)
    rows = Store(shell.results).tables(set(shell.cells))
    table = pd.concat([part.to_pandas() for part in rows])
    medians = table.loc[table["size"] == 4].groupby("cell")["error"].median()
    assert len(medians) == 3
    assert found.best_value == medians.min()
    best = json.loads(table.loc[table["cell"] == medians.idxmin(), "coreset_params"].iloc[0])
    assert {f"coreset.{key}": best[key] for key in ("scale", "ridge", "recursion", "refinement")} == dict(
        found.best_params
    )


def test_a_draw_is_another_coreset_of_the_same_cache_from_the_same_starts() -> None:
    walk = {"name": "gram_schmidt_walk", "model": "tilted", "recursion": "one_walk"}
    plain, zero, one, other = (
        run_cell(configuration(coreset=walk, sizes=[8], **draw)) for draw in ({}, {"draw": 0}, {"draw": 1}, {"draw": 2})
    )
    for name in ("error", "cell"):
        assert [row[name] for row in plain] == [row[name] for row in zero]  # what there was before draws
    errors = {tuple(row["error"] for row in rows) for rows in (zero, one, other)}
    assert len(errors) == 3
    assert len({rows[0]["cell"] for rows in (zero, one, other)}) == 3
    assert [rows[0]["draw"] for rows in (plain, zero, one, other)] == [0, 0, 1, 2]
    assert len({tuple(row["sigma"] for row in rows) for rows in (zero, one, other)}) == 1
