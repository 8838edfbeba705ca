"""What the terminal shows of a sweep: one bar with the time left, failures as a line each, whatever the launcher.

Every process that works on a sweep appends to a file of its own on the sweep's board; a thread of the process that
started the sweep, or that watches it, reads what was added.
"""

import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from attention_coresets.study.disk import appended, not_written
from attention_coresets.study.finished import Finished
from attention_coresets.study.plan import Sweep

LOG = logging.getLogger("attention_coresets.sweep")  # written by the process that started the sweep, to sweep.log
_BAR = "{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} cells, {elapsed} gone, {remaining} left{postfix}"
_LOOK, _LOOK_AT_STORE = 0.5, 5.0  # seconds between looks


class Post(NamedTuple):
    """What a process said of a job: running, computed, failed, back (given back). Or stopped, and why."""

    state: str
    job: int
    seconds: float = 0.0
    text: str = ""
    traceback: str = ""


class Poster:
    """A process's own file on the board."""

    def __init__(self, folder: Path, worker: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = os.open(folder / f"{worker}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def post(self, post: Post) -> None:
        """Say something. NotWrittenError where the disk is full."""
        try:
            os.write(self._file, json.dumps(post).encode() + b"\n")
        except OSError as error:
            raise not_written(self._folder, error) from error

    def close(self) -> None:
        os.close(self._file)


class Board:
    """All posts of a sweep so far, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._read = folder, Counter[str]()
        self.begun: Counter[int] = Counter()
        self.active: dict[str, int] = {}  # by process
        self.computed: dict[int, float] = {}
        self.failed: dict[int, Post] = {}
        self.stopped: list[str] = []

    @property
    def workers(self) -> set[str]:
        """The processes that have posted anything."""
        return {name.removesuffix(".log") for name in self._read}

    def look(self) -> list[Post]:
        """What was posted since the last look."""
        new: list[Post] = []
        for path in sorted(self._folder.glob("*.log")):
            text = appended(path, self._read[path.name])
            self._read[path.name] += len(text)
            for post in _posts(text):
                self._take(path.name, post)
                new.append(post)
        return new

    def _take(self, process: str, post: Post) -> None:
        if post.state == "running":
            self.begun[post.job] += 1
            self.active[process] = post.job
            return
        self.active.pop(process, None)
        if post.state == "back":
            self.begun[post.job] -= 1
        elif post.state == "computed":
            self.computed[post.job] = post.seconds
        elif post.state == "failed":
            self.failed[post.job] = post
        else:
            self.stopped.append(post.text)


def monitor_of(sweep: Sweep) -> "Monitor":
    """The bar of a planned sweep."""
    jobs = sweep.jobs()
    return Monitor(
        Board(sweep.board), sweep.store.finished(jobs.names), jobs.names, jobs.labels, sweep.done, sweep.title
    )


def _posts(text: bytes) -> Iterator[Post]:
    return (Post(*json.loads(line)) for line in text.splitlines())


@dataclass
class Monitor:
    """The bar of a sweep as a context manager; afterwards `board` and `elsewhere` hold what became of its jobs."""

    board: Board
    finished: Finished
    names: Sequence[str]
    labels: Sequence[str]
    done: int
    title: str
    _said: set[str] = field(default_factory=set)
    _ended: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._jobs = {name: job for job, name in enumerate(self.names)}
        self._ended.update(self._jobs[name] for name in self.finished)

    def __enter__(self) -> "Monitor":
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self.done + len(self.labels),
            initial=self.done + len(self._ended),
            desc=self.title,
            unit="cell",
            dynamic_ncols=terminal,
            ascii=None if terminal else " #",
            mininterval=0.1 if terminal else 10,  # a log file gets a line now and then, not a film
            smoothing=0,
            bar_format=_BAR,
            disable=not self.labels,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.look()
        self.look_at_store()
        self._bar.set_postfix_str("", refresh=False)
        self._bar.close()

    @property
    def elsewhere(self) -> set[int]:
        """Jobs that others, working on another sweep, have finished."""
        return self._ended - self.board.computed.keys() - self.board.failed.keys()

    @property
    def left(self) -> int:
        """How many jobs are neither finished nor failed."""
        return len(self.names) - len(self._ended)

    def summary(self) -> str:
        """How many cells were computed, were there already, failed, are left."""
        computed, failed, elsewhere = len(self.board.computed), len(self.board.failed), len(self.elsewhere)
        parts = [f"{computed} computed", f"{self.done + elsewhere} already done", f"{failed} failed"]
        return ", ".join(parts + ([f"{self.left} not finished"] if self.left else []))

    def look(self) -> None:
        """Bring the bar up to what the board says."""
        before = len(self._ended)
        for post in self.board.look():
            if post.state in ("computed", "failed"):
                self._ended.add(post.job)
            if post.state == "stopped":
                self._say(f"a process stopped: {post.text}")
            elif post.state == "failed":
                LOG.info("failed: %s: %s", self.labels[post.job], post.text)
                self._say(f"failed: {self.labels[post.job]}: {post.text}", post.text)
        self._bar.update(len(self._ended) - before)
        active = sorted(self.board.active.values())
        self._bar.set_postfix_str("now " + self.labels[active[0]] if active else "", refresh=sys.stderr.isatty())

    def look_at_store(self, except_of: Collection[str] = ()) -> None:
        """Bring the bar up to what is finished, whoever did it."""
        before = len(self._ended)
        self._ended.update(self._jobs[name] for name in self.finished.refresh(except_of))
        self._bar.update(len(self._ended) - before)

    def _say(self, line: str, message: str | None = None) -> None:
        """A line above the bar; the same message of other cells is only counted."""
        if (message or line) not in self._said:
            self._bar.write(line, file=sys.stderr)
        self._said.add(message or line)

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._stop.wait(_LOOK):
            self.look()
            if time.monotonic() - looked > _LOOK_AT_STORE:
                looked = time.monotonic()
                self.look_at_store(except_of=self.board.workers)
