"""Thinning to n/8 with a pass of swaps, Gram matrix given: kernel halvings and `kernel_swaps` against goodpoints'
`thin_K`. Errors in the same kernel, root mean squares over seeds.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from attention_coresets.coresets.balancing.kernel_halving import kernel_halving_signs
from attention_coresets.coresets.kernel.kernel_swaps import kernel_swaps
from benchmarks import goodpoints_peer
from benchmarks.kernel import DIMENSION, distance, gram, kernel_means, points
from benchmarks.memory import Specification, peaks
from benchmarks.records import OURS, PEER, Part, Row, Target, missing, ratio, timed_row, with_memory
from benchmarks.timing import Task, in_threads, interleaved, once

ROUNDS = 3
SIZES = {"smoke": (64,), "quick": (1024, 4096), "full": (1024, 2048, 4096, 8192, 16384)}
SEEDS = {"smoke": 2, "quick": 4, "full": 10}  # up to ERRORS tokens; one beyond
BUDGET = {"smoke": 0.1, "quick": 1.0, "full": 8.0}  # seconds a size
ERRORS = 4096
LARGE, FASTER = 4096, Target(1.0)  # what the target speaks of
_SMALL = {"n": 128}
OURS_NAME, PEER_NAME = "kernel halvings + swaps", "goodpoints thin_K"


def thin(matrix: Tensor, seed: int) -> np.ndarray:
    """n / 2^ROUNDS indices of one head: halvings of what is left, then a pass of swaps towards the mean of all."""
    n, generator = matrix.shape[-1], torch.Generator().manual_seed(seed)
    left, tokens = torch.arange(n, device=matrix.device), None
    for _ in range(ROUNDS):
        numbers = torch.rand(1, len(left), dtype=matrix.dtype, generator=generator).to(matrix.device)
        signs = kernel_halving_signs(matrix.unsqueeze(0), torch.zeros_like(numbers), numbers, tokens=tokens)
        left = left[signs[0]]
        tokens = left.unsqueeze(0)
    kept = torch.zeros(1, n, dtype=torch.bool, device=matrix.device)
    kept[0, left] = True
    target = matrix.mean(-1, keepdim=True).mT * len(left)
    return kernel_swaps(matrix.unsqueeze(0), kept, target)[0].nonzero().squeeze(-1).cpu().numpy()


def ours(n: int, device: str = "cpu", seed: int = 0) -> Task:
    """`thin` of n points."""
    matrix = gram(n, device=device)[0]
    return Task(lambda _: thin(matrix, seed))


def theirs(n: int, seed: int = 0) -> Task:
    """thin_K of the same points."""
    matrix = gram(n)[0].numpy()
    return Task(lambda _: goodpoints_peer.thin(matrix, ROUNDS, seed))


def measure(tier: str, device: str) -> Part:
    """Rows at every size, and the ratios of times and of errors."""
    part, why = Part(), goodpoints_peer.absent()
    once(ours(**_SMALL, device=device))
    with in_threads(1):
        for n in SIZES[tier]:
            _one_size(part, tier, n, device, why)
    if not why and LARGE in SIZES[tier]:
        tasks = {OURS_NAME: ours(LARGE, device), PEER_NAME: theirs(LARGE)}
        part.ratios.append(goodpoints_peer.in_two_threads(tasks, LARGE, BUDGET[tier], FASTER))
    with_memory(part, peaks([_specification(row, device) for row in part.rows]))
    return part


def _one_size(part: Part, tier: str, n: int, device: str, why: str) -> None:
    tasks = {OURS_NAME: ours(n, device)} | ({} if why else {PEER_NAME: theirs(n)})
    found = interleaved(tasks, BUDGET[tier])
    count = SEEDS[tier] if n <= ERRORS else 1
    makers = {OURS_NAME: lambda seed: ours(n, device, seed), PEER_NAME: lambda seed: theirs(n, seed)}
    errors = {name: _errors(makers[name], n, count) for name in tasks}
    size = {"m": n >> ROUNDS, "d": DIMENSION, "error_kind": f"RKHS distance, {count} seeds"}
    for name, spent in found.seconds.items():
        error = float(np.sqrt(np.mean(np.square(errors[name]))))
        part.rows.append(timed_row(name, OURS if name == OURS_NAME else PEER, spent, n, error=error, **size))
    name = f"{OURS_NAME} / {PEER_NAME}, n = {n}"
    if why:
        part.rows.append(Row(PEER_NAME, PEER, n, m=n >> ROUNDS, d=DIMENSION, note=why))
        part.ratios.append(missing(f"time of {name}", None, why))
        return
    target = FASTER if n == LARGE else None
    part.ratios.append(ratio(f"time of {name}", found.seconds[OURS_NAME], found.seconds[PEER_NAME], target=target))
    part.ratios.append(ratio(f"error of {name}", errors[OURS_NAME], errors[PEER_NAME]))


def _errors(make: Callable[[int], Task], n: int, count: int) -> list[float]:
    x = points(n)[0].numpy()
    means = kernel_means(x)
    return [distance(x, once(make(seed))[1], means) for seed in range(count)]


def _specification(row: Row, device: str) -> Specification | None:
    if row.note:
        return None
    if row.who == PEER:
        return Specification("benchmarks.thin", "theirs", {"n": row.n}, _SMALL)
    return Specification("benchmarks.thin", "ours", {"n": row.n, "device": device}, _SMALL)
