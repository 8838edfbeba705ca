"""Triton's kernels beside torch's loops on the same device: seconds of both, and whether they keep the CPU's tokens.

In the smoke tier they are interpreted, where scripts/gpu.sh has set TRITON_INTERPRET=1: then only the tokens count.
"""

from collections.abc import Iterator

import torch

from attention_coresets.compiled import backend, triton_fault
from benchmarks.gpu.journal import Found
from benchmarks.gpu.measuring import in_turn
from benchmarks.halving import ours as halving
from benchmarks.records import Target, ratio
from benchmarks.timing import Task, once
from benchmarks.walk import walk

SIZES = {"smoke": ((2, 24),), "full": ((96, 1024), (1, 4096))}  # heads, n
FASTER = Target(1.0, at_most=False)
BUDGET = {"smoke": 0.05, "full": 2.0}
ON_CPU = 2  # heads whose tokens are compared, where n is at most 1024: a CPU needs no longer than the device


def measure(tier: str, device: str) -> Iterator[Found]:
    """Seconds of the first run, which compiles; rows of both loops, their ratio, and whose tokens agree."""
    fault = triton_fault(device)
    if fault:
        yield f"Triton does not run on {device}: {fault}"
    for heads, n in SIZES[tier]:
        for name, make in (("walk", walk), ("kernel halving", halving)):
            yield from _compared(name, make(n, heads, device), make(n, heads), (heads, n), tier, fault is None)


def _compared(name: str, task: Task, on_cpu: Task, size: tuple[int, int], tier: str, kernels: bool) -> Iterator[Found]:
    heads, n = size
    tasks = {"torch": _within("torch", task)} | ({"Triton": _within("triton", task)} if kernels else {})
    for loop, one in tasks.items():
        yield f"{name}, {heads} × {n}: the first run by {loop} took {once(one)[0]:.2f} s, with what it compiles"
    runs = in_turn(tasks, BUDGET[tier], least=1)
    for loop, run in runs.items():
        yield run.row(f"{name} by {loop}", n, m=n // 2, heads=heads)
    if not kernels:
        return
    if tier != "smoke":  # interpreted, a kernel is slow
        title = f"time of {name} by torch's loop over that by Triton, {heads} × {n}"
        yield ratio(title, runs["torch"].seconds, runs["Triton"].seconds, target=FASTER)
    yield f"{name}, {heads} × {n}: {_alike(runs['Triton'].result, runs['torch'].result)} as by torch's loop"
    if n <= 1024:
        expected = once(_within("auto", on_cpu))[1][:ON_CPU]
        yield f"{name}, {heads} × {n}: {_alike(runs['Triton'].result[:ON_CPU], expected)} as on the CPU"


def _within(name: str, task: Task) -> Task:
    """The task by the loops of a backend."""

    def run(given: object) -> object:
        with backend(name):
            return task.run(given)

    return Task(run, task.prepare)


def _alike(found: torch.Tensor, expected: torch.Tensor) -> str:
    same = int((found.cpu() == expected.cpu()).all(-1).sum())
    return f"the same tokens kept in {same} of {len(found)} heads"
