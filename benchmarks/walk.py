"""The Gram-Schmidt walk in Gram form, float64: against Cholesky + inverse, against a plain NumPy walk, one problem
against a batch.
"""

import torch

from attention_coresets.coresets.walks.walk import walk_signs
from benchmarks.kernel import DIMENSION, distance, gram, points
from benchmarks.limits import cholesky_and_inverse
from benchmarks.memory import Specification, peaks
from benchmarks.numpy_walk import numpy_walk
from benchmarks.records import LIMIT, OURS, PEER, Part, Row, Target, ratio, timed_row, with_memory
from benchmarks.timing import Task, interleaved, once

LARGE = {"smoke": 96, "quick": 4096, "full": 4096}  # the one large problem that the targets speak of
BATCH = {"smoke": (4, 48), "quick": (96, 1024), "full": (96, 1024)}  # heads, n
SIZES = {"smoke": (64, 96), "quick": (1024,), "full": (1024, 2048, 8192, 16384)}  # beside the large one
NUMPY = {"smoke": (64,), "quick": (1024,), "full": (1024, 2048)}  # cubic in memory traffic: a minute at 4096
BUDGET = {"smoke": 0.1, "quick": 6.0, "full": 40.0}  # seconds for the targets
OVER_CHOLESKY, BATCH_RATE = Target(2.0), Target(0.7, at_most=False)
_SMALL = 128


def walk(n: int, heads: int = 1, device: str = "cpu") -> Task:
    """Half of n points of each head by `walk_signs`, Gram matrices given (and overwritten, hence made anew)."""
    original = gram(n, heads, device)
    start = torch.zeros(heads, n, dtype=torch.float64, device=device)
    uniforms = torch.rand(heads, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    return Task(lambda copy: walk_signs(copy, start, uniforms), original.clone)


def plain(n: int) -> Task:
    """The same walk by `numpy_walk`."""
    matrix, start = gram(n)[0].numpy(), torch.zeros(n, dtype=torch.float64).numpy()
    uniforms = torch.rand(1, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))[0].numpy()
    return Task(lambda _: numpy_walk(matrix, start, uniforms))


def measure(tier: str, device: str) -> Part:
    """Ratios to Cholesky + inverse at every size, the batch's rate, the NumPy walk's time; memory and error."""
    part = Part()
    once(walk(_SMALL, device=device))
    _targets(part, tier, device)
    for n in SIZES[tier]:
        _one_size(part, tier, n, device)
    _memory(part, device)
    return part


def _targets(part: Part, tier: str, device: str) -> None:
    n, (heads, small) = LARGE[tier], BATCH[tier]
    tasks = {
        "one": walk(n, device=device),
        "cholesky": cholesky_and_inverse(n, device),
        "batch": walk(small, heads, device),
    }
    once(tasks["cholesky"])
    found = interleaved(tasks, BUDGET[tier])
    one, dense, batch = (found.seconds[name] for name in tasks)
    part.rows += [
        timed_row("Gram walk", OURS, one, n, operations=n**3, d=DIMENSION, **_error(n, found.results["one"])),
        timed_row("Cholesky + inverse", LIMIT, dense, n, operations=n**3),
        timed_row("Gram walk", OURS, batch, small, operations=heads * small**3, d=DIMENSION, heads=heads),
    ]
    name = f"Gram walk / (Cholesky + inverse), n = {n}, float64"
    part.ratios.append(ratio(name, one, dense, target=OVER_CHOLESKY))
    work = heads * small**3 / n**3
    name = f"per-flop rate of {heads} × {small} over that of one {n}"
    part.ratios.append(ratio(name, one, batch, factor=work, target=BATCH_RATE))


def _one_size(part: Part, tier: str, n: int, device: str) -> None:
    tasks = {"walk": walk(n, device=device), "cholesky": cholesky_and_inverse(n, device)}
    if n in NUMPY[tier]:
        tasks["numpy"] = plain(n)
    found = interleaved(tasks, BUDGET[tier] / 4, least=2 if n <= LARGE[tier] else 1)
    ours, dense = found.seconds["walk"], found.seconds["cholesky"]
    error = _error(n, found.results["walk"])
    part.rows.append(timed_row("Gram walk", OURS, ours, n, operations=n**3, d=DIMENSION, **error))
    part.rows.append(timed_row("Cholesky + inverse", LIMIT, dense, n, operations=n**3))
    part.ratios.append(ratio(f"Gram walk / (Cholesky + inverse), n = {n}", ours, dense))
    if "numpy" not in tasks:
        return
    theirs, kept = found.seconds["numpy"], torch.from_numpy(found.results["numpy"])[None]
    part.rows.append(timed_row("NumPy walk", PEER, theirs, n, operations=n**3, d=DIMENSION, **_error(n, kept)))
    part.ratios.append(ratio(f"NumPy walk / Gram walk, n = {n}", theirs, ours))


def _error(n: int, kept: torch.Tensor) -> dict:
    x = points(n)[0].numpy()
    return {"error": distance(x, kept[0].cpu().nonzero().squeeze(-1).numpy()), "error_kind": "RKHS distance"}


def _memory(part: Part, device: str) -> None:
    """Adds each row's peak, beside the Gram matrices that it was given."""
    makers = {"Gram walk": "walk", "NumPy walk": "plain", "Cholesky + inverse": "factor"}
    with_memory(part, peaks([_specification(row, makers[row.case], device) for row in part.rows]))


def _specification(row: Row, maker: str, device: str) -> Specification:
    rest = {"walk": {"heads": row.heads, "device": device}, "plain": {}, "factor": {"device": device}}[maker]
    return Specification("benchmarks.walk", maker, {"n": row.n, **rest}, {"n": _SMALL})


def factor(n: int, device: str = "cpu") -> Task:
    """Cholesky + inverse, for the memory run."""
    return cholesky_and_inverse(n, device)
