"""Peak memory of tasks beyond their input, each measured alone in a process of its own.

    python -m benchmarks.memory < specifications    # one JSON object a line: {"module", "make", "arguments"}

`make(**arguments)` in `module` gives a Task. tracemalloc does not see torch's memory: the peak of the resident set is
read instead (reset before the run; Linux), or on a GPU torch's own count. Prints one number a line, null where the
system cannot tell.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Task

ROOT = Path(__file__).resolve().parent.parent
# blocks from 64 kB go back to the system when freed: the baseline is then what is in use, not what was once
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}


@dataclass(frozen=True)
class Specification:
    """Where to find a function that makes a Task, and its arguments; the warm-up is that same call with `small`."""

    module: str
    make: str
    arguments: dict[str, Any]
    small: dict[str, Any] = field(default_factory=dict)


def peaks(specifications: Sequence[Specification | None]) -> list[int | None]:
    """Bytes beyond the input at the peak of each task, None for None; one child process serves every call.

    RuntimeError with the child's last words where it fails.
    """
    return [None if one is None else _child().ask(one) for one in specifications]


class _Child:
    """The process that measures, and where it complains."""

    def __init__(self) -> None:
        self.complaints = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (open as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.memory"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            cwd=ROOT,
            env=os.environ | _ALLOCATOR,
            text=True,
        )
        atexit.register(self.close)

    def ask(self, specification: Specification) -> int | None:
        """One peak; after a failure the next call starts another process."""
        assert self.process.stdin, "opened as a pipe"
        assert self.process.stdout, "opened as a pipe"
        self.process.stdin.write(json.dumps(asdict(specification)) + "\n")
        self.process.stdin.flush()
        if answer := self.process.stdout.readline():
            return json.loads(answer)
        code = self.process.wait()
        self.complaints.seek(0)
        words = self.complaints.read().strip()[-800:]
        self.close()
        _child.cache_clear()
        raise RuntimeError(f"measuring the memory of {specification} ended with code {code}: {words}")

    def close(self) -> None:
        """Ends the process, which stops at the end of its input, and closes what it left open."""
        self.process.communicate()
        self.complaints.close()
        atexit.unregister(self.close)


@cache
def _child() -> _Child:
    return _Child()


def peak(task: Task) -> int | None:
    """Bytes beyond the prepared input at the peak of one run in this process."""
    given = task.prepare()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        task.run(given)
        return torch.cuda.max_memory_allocated() - before
    if not _reset():
        return None
    before = _status("VmRSS")
    task.run(given)
    return max(0, _status("VmHWM") - before)


def _reset() -> bool:
    """Sets the recorded peak of the resident set to the present; False where the system has no such switch."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def _serve() -> None:
    warm: set[str] = set()
    for line in sys.stdin:
        one = Specification(**json.loads(line))
        make = getattr(import_module(one.module), one.make)
        key = json.dumps([one.module, one.make, one.small])
        if one.small and key not in warm:  # compiled code and thread pools are no part of the peak
            task = make(**one.small)
            task.run(task.prepare())
            warm.add(key)
        print(json.dumps(peak(make(**one.arguments))), flush=True)


if __name__ == "__main__":
    _serve()
