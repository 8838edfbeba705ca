"""The Gram-Schmidt walk: 96 × 4096 given their Gram matrices, the same through a construction, and one of 16,384."""

from collections.abc import Iterator

import torch

from attention_coresets import make_cache, make_coreset
from benchmarks.gpu.journal import Found
from benchmarks.gpu.measuring import in_turn, timed
from benchmarks.kernel import DIMENSION, distance, points
from benchmarks.limits import cholesky_and_inverse
from benchmarks.records import LIMIT, Target, ratio
from benchmarks.timing import Task, once
from benchmarks.walk import walk

BATCH = {"smoke": (4, 48), "full": (96, 4096)}  # heads, n
ONE = {"smoke": 96, "full": 16384}
BUDGET = {"smoke": 0.05, "full": 4.0}  # seconds a task
WITHIN_ONE, WITHIN_BATCH = Target(5.0), Target(10.0)
SHARE, RHO = 8, 2.0  # a construction keeps n / SHARE tokens


def measure(tier: str, device: str) -> Iterator[Found]:
    """Seconds, peak memory, the RKHS distance of the first head's half; ratios against the targets."""
    (heads, n), large = BATCH[tier], ONE[tier]
    once(walk(128, 2, device))
    once(construct(2, 128, device))
    run = timed(construct(heads, n, device), BUDGET[tier])
    yield run.row("make_coreset, Gram-Schmidt walk", n, m=n // SHARE, d=DIMENSION, heads=heads)
    ones = [1.0] * len(run.seconds)
    yield ratio(f"seconds for {heads} × {n} through make_coreset", run.seconds, ones, target=WITHIN_BATCH)
    runs = in_turn(
        {"walk": walk(large, 1, device), "limit": cholesky_and_inverse(large, device)}, BUDGET[tier], least=1
    )
    error = _error(large, runs["walk"].result, 1)
    yield runs["walk"].row("Gram walk", large, operations=large**3, d=DIMENSION, **error)
    yield runs["limit"].row("Cholesky + inverse", large, LIMIT, operations=large**3)
    seconds, limit = runs["walk"].seconds, runs["limit"].seconds
    yield ratio(f"seconds for a walk of {large}", seconds, [1.0] * len(seconds), target=WITHIN_ONE)
    yield ratio(f"Gram walk / (Cholesky + inverse), n = {large}", seconds, limit)
    # last, for it takes the most memory: five times the Gram matrices, 64 GB
    run = timed(walk(n, heads, device), BUDGET[tier])
    yield run.row("Gram walk", n, operations=heads * n**3, d=DIMENSION, heads=heads, **_error(n, run.result, heads))


def construct(heads: int, n: int, device: str) -> Task:
    """Coresets of n / SHARE tokens of a batch, from keys and values on the device."""
    cache, build = make_cache("clusters", n=n, d=DIMENSION, heads=heads, device=device), make_coreset("walk_tilted")
    return Task(lambda _: build(cache, n // SHARE, RHO, torch.Generator().manual_seed(0)))


def _error(n: int, kept: torch.Tensor, heads: int) -> dict:
    """Of the first head, where all heads have points of their own."""
    x = points(n, heads)[0].numpy()
    return {"error": distance(x, kept[0].cpu().nonzero().squeeze(-1).numpy()), "error_kind": "RKHS distance"}
