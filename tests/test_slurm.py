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
from collections.abc import Iterator

import pytest

from attention_coresets.study import slurm
from benchmarks.cluster import Cluster, NoClusterError
from command_line import REPOSITORY
from napping import Folder, ended, same, undisturbed

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    try:
        # two arrays of at most two tasks where three are asked for
        with Cluster(tmp_path_factory.mktemp("slurm"), cpus=2, largest_array=2) as cluster:
            yield cluster
    except NoClusterError as reason:
        pytest.skip(str(reason))


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
    # of a minute's 60 seconds the last 20 begin no cell, however fast the machine: 15 cells of 3 seconds do not fit
    folder = Folder(tmp_path, 3.0, 15)
    head = folder.on_slurm("hydra.launcher.array_parallelism=1", "hydra.launcher.timeout_min=1")
    code, err = ended(head)
    assert code == 0, err
    assert Counter(post.state for post in folder.posts()) == {"running": 15, "computed": 15}
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
