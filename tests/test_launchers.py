"""The same sweep in processes of this machine: shared out, not twice, and finished although one of them is killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attention_coresets.study.disk import StudyError
from attention_coresets.study.launchers import in_processes
from attention_coresets.study.leases import workers
from attention_coresets.study.plan import Sweep
from attention_coresets.study.progress import Board
from attention_coresets.study.store import Store
from command_line import REPOSITORY, probe
from napping import hears_ctrl_c


def start(directory: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "scripts" / "sweep.py"), *probe(directory), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=directory, preexec_fn=hears_ctrl_c, **pipes)


def boards(directory: Path) -> list[Board]:
    found = [Board(path) for path in (directory / "outputs").rglob("board")]
    for board in found:
        board.look()
    return found


def test_two_processes_share_the_cells_and_one_that_is_killed_loses_none(tmp_path: Path) -> None:
    head = start(tmp_path, "arm=uniform", "seed=range(0,60)", "launcher=joblib")
    leases, deadline = Store(tmp_path / "results").leases, time.monotonic() + 120
    while not any(board.computed for board in boards(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    victim = next(worker for worker in workers(leases) if worker.alive)
    subprocess.run(["kill", "-KILL", str(victim.pid)], check=True)
    out, err = head.communicate(timeout=120)
    assert head.returncode == 0, err
    assert "all settings" in out  # the table of errors, and nothing of the processes
    assert len(out.splitlines()) < 20
    (board,) = boards(tmp_path)
    without_word = set(range(60)) - board.computed.keys()  # killed between the cell's row and word of it
    assert len(without_word) <= 1
    assert f"{60 - len(without_word)} computed, {len(without_word)} already done, 0 failed" in err
    assert sum(board.begun.values()) <= 60 + 1  # the cell in the killed process's hand
    assert {path.name for path in tmp_path.iterdir()} == {"conf", "results", "outputs"}
    assert not [worker for worker in workers(leases) if worker.alive]


def test_ctrl_c_ends_the_processes_and_the_next_sweep_goes_on(tmp_path: Path) -> None:
    grid = ("arm=uniform", "seed=range(0,30)", "launcher=joblib", "hydra.launcher.n_jobs=1")
    head = start(tmp_path, *grid)
    store, deadline = Store(tmp_path / "results"), time.monotonic() + 120
    while len(store.finished()) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    head.send_signal(signal.SIGINT)
    _, err = head.communicate(timeout=60)
    assert head.returncode == 130
    assert "finished cells are kept" in err
    assert not workers(store.leases)
    assert not list(store.leases.iterdir())
    before = len(store.finished())
    again = start(tmp_path, *grid)
    _, err = again.communicate(timeout=120)
    assert f"{30 - before} computed, {before} already done, 0 failed" in err


def test_a_number_of_processes_that_cannot_be_is_refused(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "sweep", tmp_path, 0, [], tmp_path, {})
    with pytest.raises(StudyError, match=r"hydra.launcher.n_jobs=0: must be at least 1, or -1 for a process a core"):
        in_processes(sweep, 0, None)
