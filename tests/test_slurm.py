"""Sweeps on a real Slurm: the table is the in-process one, row by row, whatever happens to its tasks and its head.

`bash scripts/test.sh -m slurm`, as root on Debian; skipped where Slurm cannot be installed.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from attention_coresets.study import slurm
from attention_coresets.study.progress import Board
from attention_coresets.study.records import records, shard
from attention_coresets.study.store import Store
from cluster import Cluster, NoClusterError
from command_line import REPOSITORY

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
NAPS = """
import time
from dataclasses import dataclass
from typing import ClassVar

import attention_coresets as ac


@dataclass(frozen=True)
class Naps(ac.Construction):
    model: ClassVar[str] = "unweighted"
    seconds: float = 0.0

    def choose(self, request):
        time.sleep(self.seconds)
        return ac.make_coreset("uniform").choose(request)


ac.register_construction("naps", Naps)
"""
KEPT = ["cell", "seed", "size", "head", "error", "reached", "sigma", "radius", "constant", "coreset_params"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    try:
        # two arrays of at most two tasks where three are asked for
        with Cluster(tmp_path_factory.mktemp("slurm"), cpus=2, largest_array=2) as cluster:
            yield cluster
    except NoClusterError as reason:
        pytest.skip(str(reason))


class Folder:
    """A user's folder with a construction of their own, and sweeps started there."""

    def __init__(self, path: Path, naps: float, cells: int) -> None:
        self.path, self.cells = path, cells
        (path / "naps.py").write_text(NAPS)
        self.arguments = [
            *("-m", "plugins=[naps]", "coreset=naps", f"coreset.seconds={naps}", f"seed=range(0,{cells})"),
            *("cache=sphere", "cache.n=16", "cache.d=2", "sizes=[4]", "adversary=tiny", "compute.threads=1"),
            *(f"paths.results={path / 'results'}", f"paths.outputs={path / 'outputs'}"),
        ]

    def start(self, *more: str) -> subprocess.Popen:
        command = [sys.executable, str(REPOSITORY / "scripts" / "sweep.py"), *self.arguments, *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.path)

    def on_slurm(self, *more: str) -> subprocess.Popen:
        return self.start("launcher=slurm", "hydra.launcher.mem_gb=0.1", "hydra.launcher.cells_per_job=1", *more)

    def until(self, true: Callable[[Counter], bool]) -> None:
        """Wait for the number of posts by state."""
        deadline = time.monotonic() + 240
        while not true(Counter(post.state for post in self.posts())):
            assert time.monotonic() < deadline, self.posts()
            time.sleep(0.1)

    def posts(self) -> list:
        return [post for path in (self.path / "outputs").rglob("board") for post in Board(path).look()]

    def jobs(self) -> list[str]:
        return [job for path in (self.path / "outputs").glob("*/*") for job in slurm.jobs_of(path)]

    def table(self) -> pd.DataFrame:
        """All rows there are on disk, those of a cell that was computed twice twice."""
        store = Store(self.path / "results")
        rows = [row for path in store.logs.glob("*.log") for record in records(path)[0] for row in record.rows()]
        for path in store.shards.glob("*.parquet"):
            table = shard(path)
            assert table is not None
            rows += table.to_pylist()
        return pd.DataFrame(rows)[KEPT].sort_values("seed", ignore_index=True)


def ended(head: subprocess.Popen) -> tuple[int, str]:
    _, err = head.communicate(timeout=300)
    return head.returncode, err


def undisturbed(folder: Folder, tmp_path: Path) -> pd.DataFrame:
    """The table of the same cells, computed in one process."""
    (tmp_path / "alone").mkdir()
    alone = Folder(tmp_path / "alone", 0.0, folder.cells)
    assert ended(alone.start())[0] == 0
    return alone.table()


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Every cell once, with the numbers of the undisturbed sweep. Naps are in a cell's name and in nothing else."""
    rest = ["cell", "coreset_params"]
    pd.testing.assert_frame_equal(found.drop(columns=rest), expected.drop(columns=rest))
    assert found["cell"].is_unique


def test_more_tasks_than_an_array_may_have(cluster, tmp_path) -> None:
    folder = Folder(tmp_path, 0.0, 40)
    code, err = ended(folder.on_slurm("hydra.launcher.array_parallelism=3"))
    assert code == 0, err
    assert "40 computed, 0 already done, 0 failed" in err
    assert len(folder.jobs()) == 2
    same(folder.table(), undisturbed(folder, tmp_path))


def test_a_cancelled_task_loses_the_cell_in_hand_at_most(cluster, tmp_path) -> None:
    folder = Folder(tmp_path, 0.5, 40)
    head = folder.on_slurm("hydra.launcher.array_parallelism=2")
    folder.until(lambda posts: posts["computed"] >= 4)
    subprocess.run(["scancel", f"{folder.jobs()[0]}_0"], check=True)
    code, err = ended(head)
    assert code == 0, err
    assert Counter(post.state for post in folder.posts())["running"] <= 41
    same(folder.table(), undisturbed(folder, tmp_path))


def test_two_heads_one_of_them_killed(cluster, tmp_path) -> None:
    """The tasks of a head that was killed go on; the same command again shares the cells with them."""
    folder = Folder(tmp_path, 0.5, 40)
    first = folder.on_slurm("hydra.launcher.array_parallelism=1")
    folder.until(lambda posts: posts["computed"] >= 4)
    first.kill()
    first.communicate()
    second = folder.on_slurm("hydra.launcher.array_parallelism=1")
    code, err = ended(second)
    assert code == 0, err
    assert Counter(post.state for post in folder.posts()) == {"running": 40, "computed": 40}
    same(folder.table(), undisturbed(folder, tmp_path))


def test_ctrl_c_says_what_still_runs_and_how_to_end_it(cluster, tmp_path) -> None:
    folder = Folder(tmp_path, 0.5, 60)
    head = folder.on_slurm("hydra.launcher.array_parallelism=2")
    folder.until(lambda posts: posts["computed"] >= 2)
    head.send_signal(signal.SIGINT)
    code, err = ended(head)
    assert code == 130
    (job,) = folder.jobs()
    assert f"still running: job {job} (2 tasks); to end it: scancel {job}" in err
    command = [sys.executable, str(REPOSITORY / "scripts" / "running.py")]
    listed = subprocess.run(
        [*command, "--results", str(tmp_path / "results")], capture_output=True, text=True, check=True
    )
    assert "2 RUNNING" in listed.stdout
    subprocess.run(re.search("scancel .*", err)[0].split(), check=True)  # type: ignore[index]
    while slurm._ask(job):
        time.sleep(0.2)
    code, err = ended(folder.start("launcher=joblib"))
    assert code == 0, err
    same(folder.table(), undisturbed(folder, tmp_path))


def test_a_task_near_its_limit_of_time_is_queued_again(cluster, tmp_path) -> None:
    folder = Folder(tmp_path, 2.0, 30)
    head = folder.on_slurm("hydra.launcher.array_parallelism=1", "hydra.launcher.timeout_min=1")
    code, err = ended(head)
    assert code == 0, err
    assert Counter(post.state for post in folder.posts()) == {"running": 30, "computed": 30}
    boards = [path.name for path in (tmp_path / "outputs").rglob("board/*.log")]
    assert len(boards) >= 2  # one task, started again
    same(folder.table(), undisturbed(folder, tmp_path))


def test_a_preempted_task_and_a_node_that_fails(cluster, tmp_path) -> None:
    folder = Folder(tmp_path, 0.5, 60)
    head = folder.on_slurm("hydra.launcher.array_parallelism=2")
    folder.until(lambda posts: posts["computed"] >= 4)
    urgent = ["sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap", "sleep 1"]
    subprocess.run(urgent, check=True, capture_output=True)
    folder.until(lambda posts: posts["back"] >= 1 and posts["computed"] >= 12)
    cluster.kill("slurmd", signal.SIGKILL)
    time.sleep(3)
    cluster.start_node()
    code, err = ended(head)
    assert code == 0, err
    same(folder.table(), undisturbed(folder, tmp_path))


def test_a_full_disk_stops_the_tasks_and_is_said(cluster, tmp_path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("no small disk can be mounted here")
    try:
        folder = Folder(disk, 0.0, 400)
        code, err = ended(folder.on_slurm("hydra.launcher.array_parallelism=2"))
        assert code == 1
        assert "the disk is full; free some space" in err
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        code, err = ended(folder.start())
        assert code == 0, err
        same(folder.table(), undisturbed(folder, tmp_path))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_no_slurm_here_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slurm.StudyError, match=r"scontrol: no such command here; .* or use launcher=joblib"):
        slurm.submit(tmp_path, 1, slurm.Slurm())
    assert os.listdir(tmp_path) == ["slurm"]
