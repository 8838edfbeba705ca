"""The adversary's climbing steps in float32 against the machine's matrix products, and against a plain torch step.

A step costs 4 products with keys and values on either side: 4 b (n + m)(d + dv) flops for b climbs.
"""

import torch
from torch import Tensor

from attention_coresets import Cache, Coreset, make_cache
from attention_coresets.adversary.ascent import ascend, climb
from benchmarks.limits import matrix_product
from benchmarks.records import LIMIT, OURS, PEER, Part, Target, ratio, timed_row
from benchmarks.timing import Task, interleaved, once

# tokens, dimension, climbs, tokens kept, matrix of the limit
SIZES = {"smoke": (256, 8, 16, 32, 64), "quick": (8192, 64, 256, 512, 2048), "full": (8192, 64, 256, 512, 4096)}
STEPS = {"smoke": 3, "quick": 15, "full": 60}
BUDGET = {"smoke": 0.1, "quick": 5.0, "full": 40.0}  # seconds
SHARE = Target(0.4, at_most=False)
RHO = 4.0


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
    cache = make_cache("sphere", n=n, d=d, dtype=torch.float32, device=device)
    coreset = Coreset(torch.arange(0, n, n // m, device=device)[:m])
    kept, steps = Cache(*cache.take(coreset.indices)), STEPS[tier]
    query = torch.randn(restarts, d, generator=torch.Generator().manual_seed(0)).to(device)
    tasks = {
        "ours": Task(lambda _: climb(cache, coreset, RHO, query, steps)),
        "plain": Task(lambda _: [plain_step(query, cache, kept) for _ in range(steps + 1)]),
        "product": matrix_product(square, torch.float32, device),
    }
    for task in tasks.values():
        once(task)
    seconds = interleaved(tasks, BUDGET[tier]).seconds
    whole, _ = once(Task(lambda _: ascend(cache, coreset, RHO, restarts=restarts)))
    return _part(tier, seconds | {"whole": [whole]})


def _part(tier: str, seconds: dict[str, list[float]]) -> Part:
    n, d, restarts, m, square = SIZES[tier]
    flops = 4 * restarts * (n + m) * 2 * d
    # a climb evaluates its start as well
    step, plain = ([spent / (STEPS[tier] + 1) for spent in seconds[name]] for name in ("ours", "plain"))
    product, size = seconds["product"], {"m": m, "d": d}
    rows = [
        timed_row("climbing step", OURS, step, n, operations=flops, **size),
        timed_row("climbing step, plain torch", PEER, plain, n, operations=flops, **size),
        timed_row("matrix product, float32", LIMIT, product, square, operations=2 * square**3),
        timed_row("whole ascent, 60 steps and polish", OURS, seconds["whole"], n, **size),
    ]
    share = flops / (2 * square**3)  # makes the ratio of times one of rates
    of = "share of the matrix-product rate"
    setting = f"n = {n}, d = {d}, {restarts} restarts, float32"
    ratios = [
        ratio(f"climbing steps, {of}, {setting}", product, step, factor=share, target=SHARE),
        ratio(f"plain torch, {of}, {setting}", product, plain, factor=share),
    ]
    return Part(rows, ratios)
