"""Kernel halving, Gram matrix given, against goodpoints' compiled `halve_K`: one problem, and a batch of 96."""

import numpy as np
import torch
from torch import Tensor

from attention_coresets.coresets.balancing.kernel_halving import kernel_halving_signs
from benchmarks import goodpoints_peer
from benchmarks.kernel import DIMENSION, distance, gram, points
from benchmarks.memory import Specification, peaks
from benchmarks.records import OURS, PEER, Part, Row, Target, missing, ratio, timed_row, with_memory
from benchmarks.timing import Task, Timings, interleaved, once

LARGE = {"smoke": 64, "quick": 4096, "full": 4096}  # the one problem that the target speaks of
SIZES = {"smoke": (32, 64), "quick": (1024, 2048, 4096), "full": (1024, 2048, 4096, 8192, 16384)}
BATCH = {"smoke": (4, 32), "quick": (96, 1024), "full": (96, 2048)}  # heads, n
BUDGET = {"smoke": 0.1, "quick": 1.0, "full": 8.0}  # seconds a size
DELTA = 0.5
FASTER, IN_BATCH, IN_BATCH_GPU = Target(1.0), Target(2.0, at_most=False), Target(5.0, at_most=False)
_SMALL = {"n": 128}
_SINGLE = "ours, float32"


def uniforms(n: int, heads: int = 1) -> Tensor:
    """The same numbers for both, float64 on the CPU, ``[heads, n]``."""
    return torch.rand(heads, n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def ours(n: int, heads: int = 1, device: str = "cpu", dtype: str = "float64") -> Task:
    """Half of n points of each head; `dtype`: of the Gram matrices, the sums over them are float64."""
    matrices, numbers = gram(n, heads, device).to(getattr(torch, dtype)), uniforms(n, heads).to(device)
    start = torch.zeros_like(numbers)
    return Task(lambda _: kernel_halving_signs(matrices, start, numbers, DELTA))


def theirs(n: int, heads: int = 1) -> Task:
    """halve_K on each head, one after another."""
    matrices, numbers = gram(n, heads).numpy(), uniforms(n, heads).numpy()
    return Task(lambda _: [goodpoints_peer.halve(g, u, DELTA) for g, u in zip(matrices, numbers, strict=True)])


def measure(tier: str, device: str) -> Part:
    """Rows at every size and for the batch, ratios with their targets, and whether both keep the same points."""
    part, why = Part(), goodpoints_peer.absent()
    for dtype in ("float64", "float32"):  # compiled before anything is timed
        once(ours(_SMALL["n"], device=device, dtype=dtype))
    same = [_one_size(part, tier, n, device, why) for n in SIZES[tier]]
    same.append(_batch(part, tier, device, why))
    if why:
        part.notes.append(f"goodpoints: {why}")
    else:
        part.notes.append(f"same points kept as halve_K under shared uniforms: {sum(same)} of {len(same)} problems")
    with_memory(part, peaks([_specification(row, device) for row in part.rows]))
    return part


def _tasks(n: int, heads: int, device: str, why: str) -> dict[str, Task]:
    return {"ours": ours(n, heads, device)} | ({} if why else {"theirs": theirs(n, heads)})


def _one_size(part: Part, tier: str, n: int, device: str, why: str) -> bool:
    found = interleaved(_tasks(n, 1, device, why), BUDGET[tier])
    target = FASTER if n == LARGE[tier] else None
    _compare(part, found, n, 1, why)
    name = f"kernel halving / goodpoints halve_K, n = {n}, Gram given"
    part.ratios.append(
        missing(name, target, why)
        if why
        else ratio(name, found.seconds["ours"], found.seconds["theirs"], target=target)
    )
    return not why and _same(found)


def _batch(part: Part, tier: str, device: str, why: str) -> bool:
    """As `_one_size`, all heads at once; and with Gram matrices in float32, which halve_K does not take."""
    heads, n = BATCH[tier]
    tasks = _tasks(n, heads, device, why) | {_SINGLE: ours(n, heads, device, "float32")}
    found = interleaved(tasks, BUDGET[tier])
    _compare(part, found, n, heads, why)
    part.rows.append(
        timed_row("kernel halving, float32", OURS, found.seconds[_SINGLE], n, m=n // 2, d=DIMENSION, heads=heads)
    )
    name, target = f"throughput over halve_K's, {heads} × {n}", IN_BATCH if device == "cpu" else IN_BATCH_GPU
    for label, who, wanted in ((name, "ours", target), (f"{name}, ours in float32", _SINGLE, None)):
        part.ratios.append(
            missing(label, wanted, why)
            if why
            else ratio(label, found.seconds["theirs"], found.seconds[who], target=wanted)
        )
    return not why and _same(found) and _same(found, _SINGLE)


def _compare(part: Part, found: Timings, n: int, heads: int, why: str) -> None:
    x = points(n, heads)[0].numpy()
    kept = _kept(found.results["ours"])[0]
    size = {"m": n // 2, "d": DIMENSION, "heads": heads, "error_kind": "RKHS distance"}
    part.rows.append(timed_row("kernel halving", OURS, found.seconds["ours"], n, error=distance(x, kept), **size))
    if why:
        part.rows.append(Row("goodpoints halve_K", PEER, n, note=why, m=n // 2, d=DIMENSION, heads=heads))
        return
    error = distance(x, found.results["theirs"][0])
    part.rows.append(timed_row("goodpoints halve_K", PEER, found.seconds["theirs"], n, error=error, **size))


def _kept(signs: Tensor) -> list[np.ndarray]:
    return [row.nonzero().squeeze(-1).cpu().numpy() for row in signs]


def _same(found: Timings, who: str = "ours") -> bool:
    pairs = zip(_kept(found.results[who]), found.results["theirs"], strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _specification(row: Row, device: str) -> Specification | None:
    if row.note:
        return None
    arguments = {"n": row.n, "heads": row.heads}
    if row.who == PEER:
        return Specification("benchmarks.halving", "theirs", arguments, _SMALL)
    dtype = "float32" if row.case.endswith("float32") else "float64"
    return Specification("benchmarks.halving", "ours", arguments | {"device": device, "dtype": dtype}, _SMALL)
