"""The same sweep through joblib and submitit's local executor; and what is said when a launcher loses its jobs."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.plugins.launcher import Launcher

from attention_coresets.study.progress import Board, Monitor
from attention_coresets.study.sweep import _launch
from command_line import REPOSITORY

TWO_CELLS = ("experiment=epsilon_rate", "tier=smoke", "seed=0", "arm=uniform,walk_tilted")


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launcher(launcher: str, tmp_path: Path) -> None:
    paths = (f"paths.results={tmp_path / 'results'}", f"paths.outputs={tmp_path / 'outputs'}")
    command = [sys.executable, str(REPOSITORY / "scripts" / "sweep.py"), *TWO_CELLS, f"launcher={launcher}", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 computed, 0 already done, 0 failed" in done.stderr
    assert done.stdout == ""
    assert len(list((tmp_path / "results" / "cells").glob("*.json"))) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"results", "outputs"}


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
