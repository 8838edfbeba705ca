"""Peak memory of tasks beyond their input, each measured alone in a process of its own.

    python -m benchmarks.memory < specifications    # one JSON object a line: {"module", "make", "arguments"}

`make(**arguments)` in `module` gives a Task. tracemalloc does not see torch's memory: the peak of the resident set is
read instead (reset before the run; Linux), or on a GPU torch's own count. Prints one number a line, null where the
system cannot tell.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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
    """Bytes beyond the input at the peak of each task, None for None; all in one child process, in their order.

    RuntimeError with the child's last words where it fails.
    """
    wanted = [one for one in specifications if one is not None]
    found = iter(_measured(wanted) if wanted else [])
    return [None if one is None else next(found) for one in specifications]


def _measured(specifications: Sequence[Specification]) -> list[int | None]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory"],
        input="".join(json.dumps(asdict(one)) + "\n" for one in specifications),
        cwd=ROOT,
        env=os.environ | _ALLOCATOR,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the memory run ended with code {done.returncode}: {done.stderr.strip()[-800:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


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
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
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
