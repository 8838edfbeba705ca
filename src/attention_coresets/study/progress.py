"""What the terminal shows of a sweep: one bar with the time left, failures as a line each, whatever the launcher.

Jobs, in this process or in others, leave a small file for each change of state in one directory; a thread of the
process that started the sweep reads them.
"""

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from attention_coresets.study.store import replacing

_BAR = "{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} cells, {elapsed} gone, {remaining} left{postfix}"
STATES = ("running", "computed", "failed")


@dataclass(frozen=True)
class Board:
    """States of the jobs of a sweep, `<directory>/<job>.<state>`, readable by every process that shares the disk."""

    directory: Path

    def post(self, job: int, state: str, text: str = "") -> None:
        with replacing(self.directory / f"{job}.{state}", durable=False) as part:
            part.write_text(text, encoding="utf-8")

    def read(self) -> dict[str, set[int]]:
        """Jobs by state; a job that has ended is still listed as running too."""
        found: dict[str, set[int]] = {state: set() for state in STATES}
        for path in self.directory.glob("[0-9]*"):
            found[path.suffix[1:]].add(int(path.stem))
        return found

    def failure(self, job: int) -> str:
        """The first line of what a failed job said."""
        return (self.directory / f"{job}.failed").read_text(encoding="utf-8").partition("\n")[0]


@dataclass
class Monitor:
    """The bar of a sweep as a context manager; afterwards `computed` and `failures` hold what became of its jobs."""

    board: Board
    labels: Sequence[str]
    done: int
    title: str
    computed: set[int] = field(default_factory=set)
    failures: dict[int, str] = field(default_factory=dict)

    def __enter__(self) -> "Monitor":
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=self.done + len(self.labels),
            initial=self.done,
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
        self._bar.set_postfix_str("", refresh=False)
        self._bar.close()

    def summary(self) -> str:
        failed = len(self.failures)
        left = len(self.labels) - len(self.computed) - failed
        parts = [f"{len(self.computed)} computed", f"{self.done} already done", f"{failed} failed"]
        return ", ".join(parts + ([f"{left} not finished"] if left else []))

    def fail(self, job: int, message: str) -> None:
        """Show a failure once; the same message from other cells is only counted."""
        if message not in self.failures.values():
            self._bar.write(f"failed: {self.labels[job]}: {message}", file=sys.stderr)
        self.failures[job] = message
        self._bar.update()

    def look(self) -> None:
        """Bring the bar up to what the board says."""
        states = self.board.read()
        for _ in states["computed"] - self.computed:
            self._bar.update()
        self.computed |= states["computed"]
        for job in sorted(states["failed"] - set(self.failures)):
            self.fail(job, self.board.failure(job))
        active = sorted(states["running"] - self.computed - set(self.failures))
        self._bar.set_postfix_str("now " + self.labels[active[0]] if active else "", refresh=sys.stderr.isatty())

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.look()
