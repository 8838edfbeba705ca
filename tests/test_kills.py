"""Whatever is killed, and whenever: no cell is lost, none is kept twice, and the table is an undisturbed sweep's."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from attention_coresets.study import slurm
from attention_coresets.study.leases import workers
from attention_coresets.study.store import Store
from benchmarks.cluster import Cluster, NoClusterError
from napping import Folder, ended, same, undisturbed

KILLS, CELLS, SECONDS = 20, 400, 0.1
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    try:
        with Cluster(tmp_path_factory.mktemp("slurm"), cpus=2) as cluster:
            yield cluster
    except NoClusterError as reason:
        pytest.skip(str(reason))


class Killing:
    """A sweep that is started again whenever its head has ended, and what can be killed of it."""

    def __init__(self, folder: Folder, start: Callable[[], subprocess.Popen], rng: random.Random) -> None:
        self.folder, self.start, self.rng = folder, start, rng
        self.head = start()

    def head_dies(self) -> None:
        if self.head.poll() is None:
            self.head.kill()
        self.head.communicate()
        self.head = self.start()

    def process_dies(self) -> None:
        living = [
            worker for worker in workers(Store(self.folder.path / "results").leases) if worker.alive and worker.sweep
        ]
        if living:
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(living).pid, signal.SIGKILL)

    def task_is_cancelled(self) -> None:
        running = [task for job in self.folder.jobs() for task in slurm._ask(job) or [] if task.state == "RUNNING"]
        if running:
            task = self.rng.choice(running).task
            subprocess.run(["scancel", f"{task.job}_{task.index}"], check=False)

    def finish(self) -> None:
        """Start it until it has nothing left to do."""
        for _ in range(10):
            if ended(self.head)[0] == 0:
                return
            self.head = self.start()
        raise AssertionError("the sweep does not come to its end")


def disturbed(folder: Folder, start: Callable[[], subprocess.Popen], others: Callable[[Killing], list]) -> None:
    killing = Killing(folder, start, random.Random(7))
    for _ in range(KILLS):
        time.sleep(killing.rng.uniform(0.0, 6.0))
        killing.rng.choice([killing.head_dies, killing.process_dies, *others(killing)])()
    killing.finish()


def test_processes_and_heads_killed_at_any_moment(tmp_path) -> None:
    folder = Folder(tmp_path, SECONDS, CELLS)
    disturbed(folder, lambda: folder.start("launcher=joblib"), lambda killing: [])
    same(folder.table(), undisturbed(folder, tmp_path))


@pytest.mark.slurm
def test_tasks_heads_and_nodes_killed_at_any_moment(cluster, tmp_path) -> None:
    def node_dies() -> None:
        cluster.kill("slurmd", signal.SIGKILL)
        time.sleep(1)
        cluster.start_node()

    folder = Folder(tmp_path, SECONDS, CELLS)
    start = lambda: folder.on_slurm("hydra.launcher.array_parallelism=2")  # noqa: E731
    disturbed(folder, start, lambda killing: [killing.task_is_cancelled, node_dies])
    same(folder.table(), undisturbed(folder, tmp_path))
