"""Sweeps of cells that take a known time, in a folder of a test's own; and whether their table is what it has to be."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from attention_coresets.study import slurm
from attention_coresets.study.progress import Board
from attention_coresets.study.records import records, shard
from attention_coresets.study.store import Store
from command_line import REPOSITORY

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
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.path, preexec_fn=hears_ctrl_c, **pipes)

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


def hears_ctrl_c() -> None:
    """A suite that runs in the background may have been told to ignore Ctrl-C, and its children with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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
