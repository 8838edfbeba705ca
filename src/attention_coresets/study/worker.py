"""A process that works on a planned sweep: it takes cells that nobody has, computes them, and says how it went.

python -m attention_coresets.study.worker SWEEP     # what the launchers start; any number, on any machine
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from attention_coresets.study import job, slurm
from attention_coresets.study.disk import NotWrittenError
from attention_coresets.study.explain import one_line
from attention_coresets.study.leases import Leases
from attention_coresets.study.plan import Sweep, load_sweep
from attention_coresets.study.plugins import load_plugins
from attention_coresets.study.progress import Post, Poster
from attention_coresets.study.queue import Queue
from attention_coresets.study.records import Log

TRIES = 3  # of a cell whose process dies
LEFT_OVER = 75  # exit code: out of time with cells left
_A_GPU = "ATTENTION_CORESETS_GPU"  # set in one of several processes of a task
_BEAT = 2.0
_SPARE, _LAST = 20.0, 8.0  # seconds before a limit of time: no further cell is begun, the one in hand is given up


class Stopped(BaseException):
    """Slurm, or whoever started this process, ends it."""


class Clock:
    """Signs of life, and the time that is left. `task`: queued again if its time ends in the midst of a cell."""

    def __init__(self, leases: Leases, task: slurm.Task | None, parent: int | None) -> None:
        self._leases, self._task, self._parent = leases, task, parent
        left = slurm.seconds_left() if task is not None else None
        self._deadline = None if left is None else time.monotonic() + left
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Clock":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def allows(self, seconds: float) -> bool:
        """Whether a cell that is to take so long may be begun."""
        orphan = self._parent is not None and os.getppid() != self._parent
        return not orphan and self._left() > _SPARE + 1.5 * seconds

    def _left(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _tick(self) -> None:
        while not self._end.wait(_BEAT):
            self._leases.beat()
            if self._left() < _LAST and self._task is not None:
                slurm.requeue(self._task)  # which ends this process
                return


def work(sweep: Sweep, task: slurm.Task | None = None, parent: int | None = None) -> bool:
    """Compute cells until none is left; whether it stopped for want of time, or because its parent is gone.

    A process that is no task of Slurm stays until the cells in others' hands are finished too, to take over those of
    processes that die. NotWrittenError where the disk is full: no other cell would escape that.
    """
    store = sweep.store
    with Leases(store.leases, sweep.folder) as leases, Clock(leases, task, parent) as clock:
        log, poster = store.log(leases.worker.id), Poster(sweep.board, leases.worker.id)
        queue = Queue(sweep, leases)
        begun = 0
        try:
            while not queue.empty:
                batch = queue.take()
                if not batch and task is not None:
                    return False
                if not batch:
                    time.sleep(0.3)
                for number in batch:
                    # whoever has all its time before it tries any cell: none would ever be begun that takes most of it
                    if not clock.allows(queue.expected(number) or 0.0 if begun else 0.0):
                        return True
                    begun += 1
                    _run(number, queue, leases, log, poster)
                log.sync()
                leases.give_back(queue.jobs.names[number] for number in batch)
            return False
        except NotWrittenError as error:
            with contextlib.suppress(NotWrittenError):
                poster.post(Post("stopped", -1, text=str(error)))
            raise
        finally:
            poster.close()
            log.close()


def _run(number: int, queue: Queue, leases: Leases, log: Log, poster: Poster) -> None:
    """Compute one cell and say how it went, whatever goes wrong in it."""
    if queue.board.begun[number] >= TRIES:
        text = f"not finished: {TRIES} processes ended in it (out of memory, or longer than the limit of time?)"
        return poster.post(Post("failed", number, text=text))
    poster.post(Post("running", number))
    start = time.perf_counter()
    config = queue.jobs.config(number)
    try:
        rows = job.computed_rows(config)
        if not leases.has(queue.jobs.names[number]):
            return None  # it took so long without a sign of life that another process has it now
        log.add(queue.jobs.names[number], config, rows)
    except NotWrittenError:
        raise
    except Stopped:
        poster.post(Post("back", number))
        raise
    except Exception as error:
        return poster.post(Post("failed", number, text=one_line(error), traceback=traceback.format_exc()))
    return poster.post(Post("computed", number, time.perf_counter() - start))


def main(folder: Path, parent: int | None) -> int:
    """Work alone, as a child of a launcher, or with a process for each GPU; a task out of time is queued again."""
    signal.signal(signal.SIGTERM, _stop)
    sweep = load_sweep(folder)
    os.chdir(sweep.directory)
    load_plugins(sweep.plugins)
    task = slurm.this_task() if parent is None else None
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    over = _one_a_gpu(folder, gpus) if len(gpus) > 1 else work(sweep, task, parent)
    if over and task is not None and _A_GPU not in os.environ:
        slurm.requeue(task)
    return LEFT_OVER if over else 0


def _one_a_gpu(folder: Path, gpus: list[str]) -> bool:
    command = [sys.executable, "-m", "attention_coresets.study.worker", str(folder)]
    own = [os.environ | {"CUDA_VISIBLE_DEVICES": gpu, _A_GPU: gpu} for gpu in gpus]
    with ended_with([subprocess.Popen(command, env=environment) for environment in own]) as children:
        codes = [child.wait() for child in children]
    return LEFT_OVER in codes


@contextlib.contextmanager
def ended_with(children: list[subprocess.Popen[bytes]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """End processes before going on, whatever happens."""
    try:
        yield children
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def _stop(*_: object) -> None:
    raise Stopped


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None))
    except NotWrittenError as error:
        sys.exit(f"error: {error}")
    except Stopped:
        sys.exit(143)
