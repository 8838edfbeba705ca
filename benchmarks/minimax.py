"""What our own construction costs, as a multiple of the walk's time on the same cache, and what its rivals cost."""

from typing import Any

import torch

from attention_coresets import make_cache, make_coreset, worst_query
from benchmarks.memory import Specification, peaks
from benchmarks.records import OURS, Part, Row, ratio, timed_row, with_memory
from benchmarks.timing import Task, interleaved, once

FAMILY, RHO = "clusters", 2.0
SIZES = {
    "smoke": ((64, 16, 4),),
    "quick": ((1024, 128, 8),),
    "full": ((1024, 128, 8), (1024, 128, 64)),  # n, m, d
}
BUDGET = {"smoke": 0.1, "quick": 1.0, "full": 30.0}  # seconds a size; three rounds at least
WALK = "Gram–Schmidt walk"
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    WALK: ("gram_schmidt_walk", {}),
    "walk, kernel swaps": ("gram_schmidt_walk", {"refinement": "kernel_swaps"}),
    "Frank–Wolfe": ("frank_wolfe", {}),
    "minimax, unweighted": ("gram_schmidt_walk", {"model": "unweighted", "refinement": "minimax"}),
    "minimax, tilted": ("gram_schmidt_walk", {"refinement": "minimax"}),
    "minimax, free": ("gram_schmidt_walk", {"model": "free", "refinement": "minimax"}),
}
_SMALL = {"n": 128, "m": 32, "d": 8}


def construct(case: str, n: int, m: int, d: int, device: str = "cpu") -> Task:
    """The coreset of this arm; the same cache and random numbers each time."""
    name, parameters = ARMS[case]
    build, cache = make_coreset(name, **parameters), make_cache(FAMILY, n=n, d=d, device=device)
    return Task(lambda _: build(cache, m, RHO, torch.Generator().manual_seed(0)))


def measure(tier: str, device: str) -> Part:
    """Rows of every arm at every size, and their times over the walk's, round by round."""
    part = Part()
    for case in ARMS:
        once(construct(case, **_SMALL, device=device))
    for n, m, d in SIZES[tier]:
        found = interleaved({case: construct(case, n, m, d, device) for case in ARMS}, BUDGET[tier])
        cache = make_cache(FAMILY, n=n, d=d, device=device)
        for case, spent in found.seconds.items():
            worst = worst_query(cache, found.results[case], RHO, generator=torch.Generator().manual_seed(0))
            size = {"m": m, "d": d, "error": float(worst.error.max()), "error_kind": "worst query"}
            part.rows.append(timed_row(case, OURS, spent, n, **size))
            if case != WALK:
                name = f"time of {case} / walk, n = {n}, m = {m}, d = {d}"
                part.ratios.append(ratio(name, spent, found.seconds[WALK]))
    with_memory(part, peaks([_specification(row, device) for row in part.rows]))
    return part


def _specification(row: Row, device: str) -> Specification:
    arguments = {"case": row.case, "n": row.n, "m": row.m, "d": row.d, "device": device}
    return Specification("benchmarks.minimax", "construct", arguments, _SMALL | {"case": row.case})
