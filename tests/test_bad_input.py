"""Bad input: one clear line with the value, the limit and the remedy; exit code 1; nothing computed, nothing lost."""

import errno
import json
import os
from pathlib import Path

import pytest

from attention_coresets.study.store import StudyError
from command_line import Shell

SMALL = ("cache.n=32", "cache.d=4", "sizes=[8]", "adversary=tiny", "arm=uniform")

REFUSED = {
    "cache.nn=3": ("cache.nn: unknown key", "did you mean n?", "known: n, d"),
    "cache=spheer": ("cache=spheer", "did you mean sphere?", "clusters"),
    "coreset=gram_schmid_walk": ("coreset=gram_schmid_walk", "did you mean gram_schmidt_walk?"),
    "arm=walk_tiltet": ("arm=walk_tiltet", "did you mean walk_tilted?"),
    "experiment=epsilon_rat": ("experiment=epsilon_rat", "did you mean epsilon_rate?"),
    "launcher=jobli": ("launcher=jobli", "did you mean joblib?"),
    "cahce=sphere": ("cahce: unknown key", "did you mean cache?"),
    "+foo=3": ("foo: unknown key", "known: cache"),
    "+cache.foo=3": ("cache=sphere", "'foo'", "known: n, d"),
    "cache.n=abc": ("cache.n", "'abc'", "Integer"),
    "seed=1.5": ("seed", "'1.5'", "Integer"),
    "cache.n=0": ("n must be", "got 0"),
    "rho=-1": ("rho=-1", "above 0", "rho=2"),
    "rho=0": ("rho=0", "above 0"),
    "rho=nan": ("rho=nan", "finite"),
    "rho=1,2": ("rho=1,2", "add -m"),
    "seed=-1": ("seed=-1", "at least 0"),
    "heads=0": ("heads=0", "at least 1"),
    "sizes=[0]": ("sizes=[0]", "at least 1", "sizes=[32,64]"),
    "sizes=[]": ("sizes=[]", "sizes=[32,64]"),
    "sizes=[8,8]": ("sizes=[8, 8]", "without repetition"),
    "tier=big": ("tier=big", "smoke, quick, reduced, full"),
    "experiment=epsilon_rate tier=big": ("tier=big", "at.big"),
    "experiment=epsilon_rate tier=smoke rho=1,-1": ("rho=-1", "above 0", "cell: arm=uniform"),
    "experiment=epsilon_rate tier=smoke coreset=greedy": ("coreset=greedy", "leave one of them out"),
    "experiment=a,b": ("experiment=a,b", "for e in a b; do python scripts/sweep.py experiment=$e; done"),
    "arm=uniform coreset=greedy": ("arm=uniform coreset=greedy", "leave one of them out"),
    "coreset.model=tilt": ("coreset=gram_schmidt_walk", "did you mean 'tilted'?"),
    "coreset=uniform coreset.model=tilted": ("coreset.model: unknown key", "sinks"),
    "arm=sinks_uniform sizes=[4]": ("sizes=[4]", "coreset.sinks=4"),
    "arm=sinks_uniform cache=model": ("coreset.sinks=4", "cache.shuffle=false"),
    "arm=h2o": ("coreset=h2o", "needs the queries and positions", "cache=sphere", "cache=model"),
    "arm=tova cache=clusters": ("coreset=tova", "needs the queries of a text", "cache=clusters", "cache=model"),
    "arm=streaming_llm sizes=[4] cache=model": ("sizes=[4]", "coreset.sinks=4"),
    "coreset=balancekv coreset.variant=paper": ("coreset=balancekv", "published, shipped"),
    "cache=model heads=2": ("heads=2", "sweep cache.kv_head"),
    "cache=antipodal rho=9": ("cache=antipodal", "rho = 9.0", "take rho <="),
    "cache=signed_clusters cache.n=100": ("cache=signed_clusters", "multiple of d = 16", "got 100"),
    "adversary.steps=0": ("adversary.steps=0", "at least 1"),
    "compute.device=tpu": ("compute.device=tpu", "auto, cpu, cuda"),
    "compute.dtype=float16": ("compute.dtype=float16", "float64, float32"),
    "compute.threads=0": ("compute.threads=0", "at least 1"),
    "compute.max_gb=0": ("compute.max_gb=0", "above 0"),
    "cache=model cache.d=4": ("cache=model", "d = 4", "heads of dimension 64", "leave d out"),
    "cache=model cache.layer=30": ("cache=model", "layers 0 to 29", "layer = 30"),
    "cache=model cache.kv_head=3": ("cache=model", "KV heads 0 to 2", "kv_head = 3"),
    "cache=model cache.n=9000": ("cache=model", "n + queries = 10024", "8192 positions", "ask for fewer"),
    "cache.n=10000000 coreset=gram_schmidt_walk": ("cache.n=10000000", "GB of memory", "raise compute.max_gb"),
    "cache.n=10000000 arm=walk_tilted compute.max_gb=1e9": ("hours on one core", "limit of 24", "compute.max_hours"),
    "cache.n=100000000 arm=uniform": ("cache.n=100000000 with coreset=uniform", "GB of memory", "smaller cache.n"),
    "coreset=optimum cache.n=40": ("cache.n=40", "at most 32", "coreset=optimum"),
    "coreset=optimum cache.n=12 cache.d=5": ("cache.d=5", "at most 4", "coreset=optimum"),
    "paths.results=/dev/null": ("cannot write to /dev/null/cells", "run again"),
}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch, capfd) -> Shell:
    return Shell(tmp_path, monkeypatch, capfd)


@pytest.mark.parametrize("arguments", REFUSED)
def test_refused_in_one_line_before_any_work(shell: Shell, arguments: str) -> None:
    given = arguments.split()
    outcome = shell.sweep(*given) if "paths." not in arguments else shell._run("sweep", [*given, shell.paths[1]])
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("error: ")
    for part in REFUSED[arguments]:
        assert part in outcome.err
    assert not shell.cells


DAMAGES = {
    "half": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "a list": lambda whole: b"[1, 2]",
    "no text": lambda whole: b"\xff\xfe" + whole,
    "no rows": lambda whole: json.dumps({**json.loads(whole), "rows": []}).encode(),
    "another cell": lambda whole: whole.replace(b'"seed": 0', b'"seed": 5'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cell_is_set_aside_named_and_computed_again(shell: Shell, damage: str) -> None:
    assert shell.sweep(*SMALL).code == 0
    (path,) = (shell.results / "cells").glob("*.json")
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    outcome = shell.sweep(*SMALL)
    assert outcome.code == 0
    assert str(path) in outcome.err
    assert f"is kept as {path.name}.damaged" in outcome.err
    assert path.with_name(f"{path.name}.damaged").read_bytes() == DAMAGES[damage](whole)
    assert _numbers(path.read_bytes()) == _numbers(whole)
    assert "damaged" not in shell.sweep(*SMALL).err


def _numbers(cell: bytes) -> list:
    return [(row["size"], row["error"], row["sigma"]) for row in json.loads(cell)["rows"]]


def test_one_damaged_cell_of_a_sweep_is_computed_again_alone(shell: Shell) -> None:
    assert shell.probe().code == 0
    before = shell.cells
    first = sorted((shell.results / "cells").glob("*.json"))[0]
    first.write_text("{")
    collected = shell.collect("--tier", "smoke")
    assert collected.code == 1
    assert str(first) in collected.err
    assert "a sweep sets it aside and computes it anew" in collected.err
    outcome = shell.probe()
    assert outcome.summary == "1 computed, 5 already done, 0 failed"
    assert str(first) in outcome.err
    assert {cell: time for cell, time in shell.cells.items() if cell != first.stem}.items() <= before.items()
    assert shell.collect("--tier", "smoke").code == 0


def test_a_damaged_grid_is_set_aside(shell: Shell) -> None:
    assert shell.probe().code == 0
    grid = shell.results / "cells" / "index" / "smoke" / "probe.json"
    grid.write_text("{")
    assert str(grid) in shell.collect("--tier", "smoke").err
    outcome = shell.probe("seed=0")
    assert outcome.code == 0
    assert f"is kept as {grid.name}.damaged" in outcome.err


def test_a_limit_can_be_raised(shell: Shell) -> None:
    assert "compute.max_hours" in shell.sweep(*SMALL, "compute.max_hours=1e-9").err
    assert shell.sweep(*SMALL, "compute.max_hours=1").code == 0


def test_nothing_to_collect(shell: Shell) -> None:
    outcome = shell.collect("--tier", "smoke")
    assert outcome.code == 1
    assert "python scripts/sweep.py experiment=NAME tier=smoke" in outcome.err


def test_full_disk_keeps_what_is_done(shell: Shell, monkeypatch) -> None:
    replace, allowed = os.replace, 3

    def fails_when_full(source, target) -> None:
        nonlocal allowed
        if Path(target).suffix == ".json" and "index" not in str(target):
            allowed -= 1
            if allowed < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails_when_full)
        outcome = shell.probe()
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("error: cannot write to")
    assert "the disk is full; free some space" in outcome.err
    before = shell.cells
    assert len(before) == 3
    assert not list(shell.results.rglob("*.part"))
    again = shell.probe()
    assert again.code == 0
    assert again.summary == "3 computed, 3 already done, 0 failed"
    assert before.items() <= shell.cells.items()


def test_traceback_on_request(shell: Shell) -> None:
    shell.traceback = "1"
    with pytest.raises(StudyError, match="n must be"):
        shell.sweep("cache.n=0")
