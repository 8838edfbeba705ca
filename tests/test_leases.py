"""Leases are exclusive, whatever their holders do and however they end."""

import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attention_coresets.study import leases as module
from attention_coresets.study import slurm
from attention_coresets.study.leases import Leases, workers

DEAD = """
import os, sys
from pathlib import Path
from attention_coresets.study.leases import Leases
leases = Leases(Path(sys.argv[1])).__enter__()
assert all(leases.take(cell) for cell in sys.argv[2:])
os._exit(1)
"""


def die_with(folder: Path, *cells: str) -> None:
    """A process takes cells and ends without giving them back."""
    subprocess.run([sys.executable, "-c", DEAD, str(folder), *cells], check=False)


def test_a_cell_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    with Leases(tmp_path) as one, Leases(tmp_path) as two:
        assert one.take("a")
        assert not two.take("a")
        assert two.look() == {"a": one.worker.id}
        assert not two.take("a")
        one.give_back(["a"])
        two.look()
        assert two.take("a")
        assert two.has("a")
    assert not list(tmp_path.iterdir())


def test_a_dead_holder_is_outbid_once(tmp_path: Path) -> None:
    die_with(tmp_path, "a", "b")
    with Leases(tmp_path) as one, Leases(tmp_path) as two:
        assert one.look() == two.look() == {}
        assert one.take("a")
        assert not two.take("a")  # by what it last saw the dead one has it still
        two.look()
        assert not two.take("a")
        assert two.take("b")
        one.give_back(["a"])
        two.look()
        assert two.take("a")
    assert [path.suffix for path in tmp_path.iterdir()] == [".worker"]  # of the dead


def test_a_dead_holder_seen_before_another_gave_the_cell_back_is_not_outbid(tmp_path: Path) -> None:
    """What was seen is old: the cell was taken, given back, and taken by a third. Two would have it now."""
    die_with(tmp_path, "a")
    with Leases(tmp_path) as late, Leases(tmp_path) as quick, Leases(tmp_path) as third:
        late.look()
        quick.look()
        assert quick.take("a")
        quick.give_back(["a"])
        assert third.take("a")
        assert not late.take("a")
        assert third.has("a")


def test_a_holder_that_was_outbid_knows_it(tmp_path: Path, monkeypatch) -> None:
    with Leases(tmp_path) as slow, Leases(tmp_path) as other:
        assert slow.take("a")
        monkeypatch.setattr(module, "_machine", lambda: "another machine")
        monkeypatch.setattr(module, "STALE", -1.0)
        other.look()
        assert other.take("a")
        assert not slow.has("a")
        assert other.has("a")


@pytest.mark.parametrize(
    ("queue", "silent", "alive"),
    [
        ([slurm.Queued(slurm.Task("7", "1", 2), "RUNNING")], 1e9, True),
        ([slurm.Queued(slurm.Task("7", "1", 2), "PENDING")], 0.0, False),  # preempted, it waits
        ([slurm.Queued(slurm.Task("7", "1", 3), "RUNNING")], 0.0, False),  # started anew: the process is another
        ([slurm.Queued(slurm.Task("7", "0", 2), "RUNNING")], 0.0, False),
        ([], 0.0, False),
        (None, 10.0, True),  # no queue answers
        (None, 1e9, False),
    ],
)
def test_a_task_elsewhere_lives_as_long_as_the_queue_says_so(tmp_path, monkeypatch, queue, silent, alive) -> None:
    monkeypatch.setattr(slurm, "queued", lambda job: queue if job == "7" else [])
    for name, value in {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_RESTART_COUNT": "2"}.items():
        monkeypatch.setenv(name, value)
    with Leases(tmp_path) as task:
        monkeypatch.setattr(module, "_machine", lambda: "another machine")
        os.utime(tmp_path / f"{task.worker.id}.worker", (0, time.time() - silent))
        (worker,) = workers(tmp_path)
        assert worker.alive == alive


def compete(folder: Path, seed: int) -> None:
    """Take cells in any order; while one has a cell, nobody else may be in its room."""
    rng = random.Random(seed)
    with Leases(folder / "leases") as leases:
        for _ in range(150):
            cell = f"{rng.randrange(6)}"
            leases.look()
            if leases.take(cell):
                room = os.open(folder / cell, os.O_CREAT | os.O_EXCL)  # FileExistsError if it is not alone
                os.close(room)
                time.sleep(rng.random() / 1000)
                os.unlink(folder / cell)
                leases.give_back([cell])


def test_processes_that_compete_are_never_two_in_a_room(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    die_with(tmp_path / "leases", *map(str, range(6)))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=compete, args=(tmp_path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
