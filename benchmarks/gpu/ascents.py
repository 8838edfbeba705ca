"""The adversary's climbing steps in float32 for 1 and 16 heads, against the device's matrix-product rate."""

from collections.abc import Iterator

import torch

from attention_coresets import Coreset, make_cache
from attention_coresets.adversary.ascent import ascend, climb
from benchmarks.adversary import RHO
from benchmarks.gpu.journal import Found
from benchmarks.gpu.measuring import in_turn, timed
from benchmarks.limits import matrix_product
from benchmarks.records import LIMIT, Target, ratio
from benchmarks.timing import Task, once

SIZES = {"smoke": (128, 8, 16, 16, 64), "full": (8192, 64, 256, 512, 8192)}  # n, d, climbs, m, matrix of the limit
HEADS = {"smoke": (1, 2), "full": (1, 16)}
STEPS = {"smoke": 3, "full": 60}
BUDGET = {"smoke": 0.05, "full": 5.0}
SHARE = Target(0.4, at_most=False)


def measure(tier: str, device: str) -> Iterator[Found]:
    """A step's seconds and flops, its share of the product's rate, and a whole ascent."""
    n, d, climbs, m, square = SIZES[tier]
    product = matrix_product(square, torch.float32, device)
    once(product)
    for heads in HEADS[tier]:
        cache = make_cache("sphere", n=n, d=d, heads=heads, dtype=torch.float32, device=device)
        coreset = Coreset(torch.arange(0, n, n // m, device=device)[:m].repeat(heads, 1))
        first = torch.randn(heads, climbs, d, generator=torch.Generator().manual_seed(0)).to(device)
        task = Task(lambda _, c=cache, k=coreset, q=first: climb(c, k, RHO, q, STEPS[tier]))
        once(task)
        runs = in_turn({"climb": task, "product": product}, BUDGET[tier])
        flops = 4 * heads * climbs * (n + m) * 2 * d
        step = runs["climb"]._replace(seconds=[x / (STEPS[tier] + 1) for x in runs["climb"].seconds])
        yield step.row("climbing step, float32", n, m=m, d=d, heads=heads, operations=flops)
        if heads == 1:
            yield runs["product"].row("matrix product, float32", square, LIMIT, operations=2 * square**3)
        yield ratio(
            f"climbing steps, share of the matrix-product rate, {heads} × {n}, d = {d}, {climbs} climbs",
            runs["product"].seconds,
            step.seconds,
            factor=flops / (2 * square**3),
            target=SHARE if heads > 1 else None,
        )
        whole = timed(Task(lambda _, c=cache, k=coreset: ascend(c, k, RHO, restarts=climbs)), 0.0)
        yield whole.row(f"whole ascent, {climbs} climbs, 60 steps and polish", n, m=m, d=d, heads=heads)
