"""Tasks timed side by side: rounds in which each runs once, so that whatever else the machine does disturbs all."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Task:
    """run(input) is timed; prepare() makes a fresh input for each repeat, untimed, for some tasks overwrite theirs."""

    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = _nothing


class Timings(NamedTuple):
    """Seconds of each task, one number a round, and what each task returned last."""

    seconds: dict[str, list[float]]
    results: dict[str, Any]


@contextmanager
def in_threads(count: int) -> Iterator[None]:
    """Gives torch, and where threadpoolctl is installed NumPy's BLAS too, so many threads."""
    before = torch.get_num_threads()
    with import_module("threadpoolctl").threadpool_limits(count) if find_spec("threadpoolctl") else nullcontext():
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def once(task: Task) -> tuple[float, Any]:
    """Seconds of one run, with the GPU's queue empty before and after, and its result."""
    given = task.prepare()
    _wait()
    start = time.perf_counter()
    result = task.run(given)
    _wait()
    return time.perf_counter() - start, result


def interleaved(tasks: Mapping[str, Task], budget: float, *, least: int = 3, most: int = 51) -> Timings:
    """Rounds until `budget` seconds of the clock are spent, at least `least` and at most `most`; each starts elsewhere.

    Warm-up (compilers, first touch of memory) is the caller's: time nothing that was not run once before.
    """
    names, start = list(tasks), time.perf_counter()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, Any] = {}
    rounds = 0
    while rounds < least or (rounds < most and time.perf_counter() - start < budget):
        turn = rounds % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            spent, results[name] = once(tasks[name])
            seconds[name].append(spent)
        rounds += 1
    return Timings(seconds, results)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
