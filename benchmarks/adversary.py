"""The adversary's climbing steps in float32 against the machine's matrix products, and against a plain torch step.

A step costs 4 products with keys and values on either side, 4 b (n + m)(d + dv) flops for b climbs. Its time is the
difference between two ascents of more and of fewer steps, so that the choice of starts and the polish cancel.
"""

import torch
from torch import Tensor

from attention_coresets import Cache, Coreset, make_cache
from attention_coresets.adversary.ascent import ascend
from benchmarks.limits import matrix_product
from benchmarks.records import LIMIT, OURS, PEER, Part, Target, ratio, timed_row
from benchmarks.timing import Task, interleaved, once

# tokens, dimension, climbs, tokens kept, matrix of the limit
SIZES = {"smoke": (256, 8, 16, 32, 64), "quick": (8192, 64, 256, 512, 2048), "full": (8192, 64, 256, 512, 4096)}
STEPS = {"smoke": (2, 4), "quick": (8, 48), "full": (10, 110)}
BUDGET = {"smoke": 0.1, "quick": 6.0, "full": 40.0}
SHARE = Target(0.4, at_most=False)
RHO = 4.0


def problem(n: int, d: int, m: int, device: str) -> tuple[Cache, Coreset]:
    """A sphere's cache in float32 and every (n / m)-th of its tokens."""
    cache = make_cache("sphere", n=n, d=d, dtype=torch.float32, device=device)
    return cache, Coreset(torch.arange(0, n, n // m, device=device)[:m])


def climb(cache: Cache, coreset: Coreset, restarts: int, steps: int) -> Task:
    """The package's ascent with so many steps, and the least polish."""
    return Task(lambda _: ascend(cache, coreset, RHO, restarts=restarts, steps=steps, polish=1))


def plain_step(query: Tensor, cache: Cache, kept: Cache) -> Tensor:
    """One step's error gradient as one would write it in torch: the reference peer; query ``[b, d]``."""
    sides = [((query @ x.keys.mT).softmax(-1), x) for x in (cache, kept)]
    difference = sides[0][0] @ cache.values - sides[1][0] @ kept.values  # [b, dv]
    parts = []
    for weights, x in sides:
        along = difference @ x.values.mT  # [b, n]
        parts.append(weights * (along - (weights * along).sum(-1, keepdim=True)) @ x.keys)
    return parts[0] - parts[1]


def measure(tier: str, device: str) -> Part:
    """The share of the machine's float32 matrix-product rate that a climbing step reaches."""
    n, d, restarts, m, square = SIZES[tier]
    fewer, more = STEPS[tier]
    cache, coreset = problem(n, d, m, device)
    kept = Cache(*cache.take(coreset.indices))
    query = torch.randn(restarts, d, generator=torch.Generator().manual_seed(0)).to(device)
    tasks = {
        "fewer": climb(cache, coreset, restarts, fewer),
        "more": climb(cache, coreset, restarts, more),
        "plain": Task(lambda _: [plain_step(query, cache, kept) for _ in range(more - fewer)]),
        "product": matrix_product(square, torch.float32, device),
    }
    for name in ("fewer", "plain", "product"):
        once(tasks[name])
    seconds = interleaved(tasks, BUDGET[tier]).seconds
    return _part(tier, seconds, 4 * restarts * (n + m) * 2 * d)


def _part(tier: str, seconds: dict[str, list[float]], flops: int) -> Part:
    n, d, restarts, m, square = SIZES[tier]
    count = STEPS[tier][1] - STEPS[tier][0]
    # a difference of two timings: on a busy machine it can come out at nothing, which is no step's time
    step = [max(b - a, 0.01 * b) / count for a, b in zip(seconds["fewer"], seconds["more"], strict=True)]
    plain = [spent / count for spent in seconds["plain"]]
    product = seconds["product"]
    size = {"m": m, "d": d, "heads": 1}
    rows = [
        timed_row("climbing step", OURS, step, n, operations=flops, **size),
        timed_row("climbing step, plain torch", PEER, plain, n, operations=flops, **size),
        timed_row("matrix product, float32", LIMIT, product, square, operations=2 * square**3),
        timed_row(f"ascent of {STEPS[tier][1]} steps, whole", OURS, seconds["more"], n, **size),
    ]
    share = flops / (2 * square**3)  # makes the ratio of times one of rates
    of = "share of the matrix-product rate"
    setting = f"n = {n}, d = {d}, {restarts} restarts, float32"
    ratios = [
        ratio(f"climbing steps, {of}, {setting}", product, step, factor=share, target=SHARE),
        ratio(f"plain torch, {of}, {setting}", product, plain, factor=share),
    ]
    return Part(rows, ratios)
