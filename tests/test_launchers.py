"""The same sweep through joblib and submitit's local executor; and what is said when a launcher loses its jobs."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.plugins.launcher import Launcher

from attention_coresets.study.progress import Board, Monitor
from attention_coresets.study.sweep import _launch
from command_line import REPOSITORY, probe

LAUNCHERS = ("joblib", "submitit_local")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, tuple[Path, int, str, str]]:
    """The probe's directory, exit code and output by launcher; both run at once, for they mostly wait for imports."""
    running = {}
    for launcher in LAUNCHERS:
        directory = tmp_path_factory.mktemp(launcher)
        two_cells = [*probe(directory), "seed=0", "arm=uniform,walk_tilted", f"launcher={launcher}"]
        command = [sys.executable, str(REPOSITORY / "scripts" / "sweep.py"), *two_cells]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": directory}
        running[launcher] = directory, subprocess.Popen(command, **pipes)
    ended = {launcher: process.communicate() for launcher, (_, process) in running.items()}
    return {name: (directory, process.returncode, *ended[name]) for name, (directory, process) in running.items()}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launcher(launcher: str, finished) -> None:
    directory, code, out, err = finished[launcher]
    assert code == 0, err
    assert "2 computed, 0 already done, 0 failed" in err
    assert out == ""
    assert len(list((directory / "results" / "cells").glob("*.json"))) == 2
    assert {path.name for path in directory.iterdir()} == {"conf", "results", "outputs"}


class Loses(Launcher):
    """A launcher whose second job dies with its process."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def setup(self, **_) -> None:
        pass

    def launch(self, job_overrides, initial_job_idx):
        self.board.post(initial_job_idx, "running")
        self.board.post(initial_job_idx, "computed")
        self.board.post(initial_job_idx + 1, "running")
        raise RuntimeError("a worker was killed")


def test_jobs_lost_by_the_launcher_are_failures(tmp_path: Path, capsys) -> None:
    monitor = Monitor(Board(tmp_path), ["seed=0", "seed=1", "seed=2"], done=0, title="sweep")
    with monitor:
        _launch(Loses(monitor.board), [["seed=0"], ["seed=1"], ["seed=2"]], 0, monitor)
    assert monitor.summary() == "1 computed, 0 already done, 2 failed"
    said = capsys.readouterr().err
    assert said.count("failed: seed=1: not finished: RuntimeError: a worker was killed") == 1
