"""Minimax in each model beside the walk, on the device and on the CPU; with four heads, to show what a head costs."""

from collections.abc import Iterator

import torch

from attention_coresets import make_cache, make_coreset, worst_query
from benchmarks.gpu.journal import Found
from benchmarks.gpu.measuring import timed
from benchmarks.minimax import ARMS, FAMILY, RHO, WALK
from benchmarks.records import ratio
from benchmarks.timing import Task, once

SIZES = {"smoke": (48, 12, 4), "full": (1024, 128, 8)}  # n, m, d
HEADS = {"smoke": 2, "full": 4}
CASES = (WALK, "walk, kernel swaps", "minimax, tilted", "minimax, free")


def measure(tier: str, device: str) -> Iterator[Found]:
    """One run each after a small one: these are seconds long."""
    n, m, d = SIZES[tier]
    seconds = {}
    # the CPU's own at last: its loops are compiled first, which can take longer than they run
    for where, heads in ((device, 1), (device, HEADS[tier]), ("cpu", 1)):
        for case in CASES:
            once(construct(case, 32, 8, d, 1, where))
            run = timed(construct(case, n, m, d, heads, where), 0.0)
            cache = make_cache(FAMILY, n=n, d=d, heads=heads, device=where)
            error = float(worst_query(cache, run.result, RHO, generator=torch.Generator().manual_seed(0)).error.max())
            measured = {"m": m, "d": d, "heads": heads, "error": error, "error_kind": "worst query"}
            yield run.row(f"{case}, {where}", n, **measured)
            seconds[case, where, heads] = run.seconds
    for case in CASES:
        here, there = seconds[case, device, 1], seconds[case, "cpu", 1]
        yield ratio(f"time of {case}, {device} / cpu, n = {n}, d = {d}", here, there)


def construct(case: str, n: int, m: int, d: int, heads: int, device: str) -> Task:
    """The coreset of this arm on a batch of heads."""
    name, parameters = ARMS[case]
    build, cache = make_coreset(name, **parameters), make_cache(FAMILY, n=n, d=d, heads=heads, device=device)
    return Task(lambda _: build(cache, m, RHO, torch.Generator().manual_seed(0)))
