"""Timing on a GPU: every repeat with the peak of the device's memory, as rows that need no second run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from benchmarks.records import OURS, Row, timed_row
from benchmarks.timing import Task, interleaved


class Run(NamedTuple):
    """Seconds of each repeat, the last result, and the peak of the device's memory in bytes (None on the CPU)."""

    seconds: list[float]
    result: Any
    peak: int | None

    def row(self, case: str, n: int, who: str = OURS, **rest: Any) -> Row:
        return timed_row(case, who, self.seconds, n, **{"memory": self.peak, **rest})


def timed(task: Task, budget: float, *, least: int = 1, most: int = 11) -> Run:
    """Repeats `task` until `budget` seconds are spent. The peak counts the task's own input."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    found = interleaved({"": task}, budget, least=least, most=most)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return Run(found.seconds[""], found.results[""], peak)


def in_turn(tasks: Mapping[str, Task], budget: float, *, least: int = 2) -> dict[str, Run]:
    """Several tasks side by side; their peaks cannot be told apart."""
    found = interleaved(tasks, budget, least=least)
    return {name: Run(found.seconds[name], found.results[name], None) for name in tasks}
