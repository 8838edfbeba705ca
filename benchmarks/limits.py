"""Limits of the machine: the rate of matrix products in float64 and float32, and a dense Cholesky with inverse.

Nothing here is ours to speed up: every other part is read against these.
"""

import torch
from torch import Tensor

from benchmarks.kernel import gram
from benchmarks.records import LIMIT, Part, timed_row
from benchmarks.timing import Task, interleaved, once

SIZES = {"smoke": (64,), "quick": (1024, 2048), "full": (1024, 2048, 4096, 8192)}
BUDGET = {"smoke": 0.1, "quick": 1.5, "full": 10.0}  # seconds a size
_RIDGE = 1e-4


def matrix_product(n: int, dtype: torch.dtype, device: str) -> Task:
    """2 n^3 flops."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, n, dtype=torch.float64, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(x)
    return Task(lambda _: torch.mm(x, y, out=out))


def cholesky_and_inverse(n: int, device: str, matrix: Tensor | None = None) -> Task:
    """n^3 / 3 + 2 n^3 / 3 flops in float64, on `matrix` where it is given, which is not changed."""
    dense = gram(n, device=device)[0] if matrix is None else matrix.clone()
    dense.diagonal().add_(_RIDGE)
    return Task(lambda _: torch.cholesky_inverse(torch.linalg.cholesky(dense)))


def measure(tier: str, device: str) -> Part:
    """Rows alone: seconds and rates."""
    part = Part()
    for n in SIZES[tier]:
        tasks = {
            "matrix product, float64": matrix_product(n, torch.float64, device),
            "matrix product, float32": matrix_product(n, torch.float32, device),
            "Cholesky + inverse, float64": cholesky_and_inverse(n, device),
        }
        for task in tasks.values():
            once(task)
        seconds = interleaved(tasks, BUDGET[tier]).seconds
        for name, spent in seconds.items():
            flops = n**3 if name.startswith("Cholesky") else 2 * n**3
            part.rows.append(timed_row(name, LIMIT, spent, n, operations=flops))
    return part
