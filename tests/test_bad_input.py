"""Bad input: one clear line with the value, the limit and the remedy; exit code 1; nothing computed, nothing lost."""

import errno
import os
from pathlib import Path

import pytest

from attention_coresets.study.disk import StudyError
from command_line import Shell

SMALL = ("cache.n=32", "cache.d=4", "sizes=[8]", "adversary=tiny", "arm=uniform")

REFUSED = {
    "cache.nn=3": ("cache.nn: unknown key", "did you mean n?", "known: n, d"),
    "cache=spheer": ("cache=spheer", "did you mean sphere?", "clusters"),
    "coreset=gram_schmid_walk": ("coreset=gram_schmid_walk", "did you mean gram_schmidt_walk?"),
    "arm=walk_tiltet": ("arm=walk_tiltet", "did you mean walk_tilted?"),
    "experiment=epsilon_rat": ("experiment=epsilon_rat", "did you mean epsilon_rate?"),
    "-m rho=1,2 hydra/launcher=joblib": ("hydra/launcher=joblib", "use launcher=joblib"),
    "-m rho=1,2 hydra.launcher=submitit_slurm": ("hydra.launcher=submitit_slurm", "use launcher=local"),
    "-m rho=1,2 hydra/sweeper=basic": ("hydra/sweeper=basic", "leave this out"),
    "-m rho=1,2 launcher=slurm hydra.launcher.partitoin=gpu": ("hydra.launcher.partitoin",),
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


def test_a_damaged_line_of_a_log_is_computed_again(shell: Shell) -> None:
    assert shell.probe().code == 0
    (log,) = (shell.results / "cells" / "log").iterdir()
    content = log.read_bytes()
    log.write_bytes(content.replace(b'"error":0.', b'"error":9.', 1))
    assert shell.collect("--tier", "smoke").code == 1
    assert shell.probe().summary == "1 computed, 5 already done, 0 failed"
    assert shell.collect("--tier", "smoke").code == 0


def test_a_limit_can_be_raised(shell: Shell) -> None:
    assert "compute.max_hours" in shell.sweep(*SMALL, "compute.max_hours=1e-9").err
    assert shell.sweep(*SMALL, "compute.max_hours=1").code == 0


def test_nothing_to_collect(shell: Shell) -> None:
    outcome = shell.collect("--tier", "smoke")
    assert outcome.code == 1
    assert "python scripts/sweep.py experiment=NAME tier=smoke" in outcome.err


def test_full_disk_keeps_what_is_done(shell: Shell, monkeypatch) -> None:
    write, allowed = os.write, 3

    def fails_when_full(file: int, content: bytes) -> int:
        nonlocal allowed
        if b'"config":' in content:
            allowed -= 1
        if allowed < 0:
            write(file, content[: len(content) // 2])  # as a disk does that has some room left
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fails_when_full)
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
