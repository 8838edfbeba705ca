"""Compress(g) to 2^g sqrt(n) points, no Gram matrix given, against goodpoints' compiled `compress_kt` and against its
`compress` with `halve_K` called back; with swaps after each round, against `compress_kt` with its own. Errors in the
same kernel, root mean squares over seeds.

The package balances exp(<k - mu, k' - mu>) about the mean mu of the keys; on the sphere that is the peers' Gaussian
kernel up to factors exp<mu, k>, within a few per cent of 1. In one thread, unless said.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from attention_coresets import Cache, make_coreset
from benchmarks import goodpoints_peer
from benchmarks.kernel import DIMENSION, distance, kernel_means, points
from benchmarks.memory import Specification, peaks
from benchmarks.records import OURS, PEER, Part, Row, Target, missing, ratio, timed_row, with_memory
from benchmarks.timing import Task, in_threads, interleaved, once

OVERSAMPLING = 3
SIZES = {"smoke": (256,), "quick": (1024, 4096), "full": (1024, 4096, 16384, 65536)}  # powers of 4
SEEDS = {"smoke": 2, "quick": 4, "full": 10}
BUDGET = {"smoke": 0.1, "quick": 1.0, "full": 10.0}  # seconds a size
PLAIN, SWAPS = "Compress", "Compress with swaps"  # ours: kernel halving
COMPILED, CALLED, SWAPPED = "goodpoints compress_kt", "goodpoints compress", "goodpoints compress_kt with swaps"
BESIDE = {COMPILED: PLAIN, SWAPPED: SWAPS, CALLED: PLAIN}
LARGE, FASTER = 4096, Target(1.0)  # what the target speaks of, beside the peer in Python
_SMALL = {"n": 256}


def ours(n: int, device: str = "cpu", seed: int = 0, name: str = PLAIN) -> Task:
    """The package's kernel halving in Compress's recursion, unweighted, on keys alone."""
    x = points(n)[0].to(device)
    cache, build = Cache(x, torch.ones_like(x[:, :1])), _construction(name)
    generator = torch.Generator().manual_seed(seed)
    return Task(lambda _: build(cache, _size(n), 1.0, generator).indices.cpu().numpy())


def theirs(n: int, name: str, seed: int = 0) -> Task:
    """One of the peers on the same points."""
    x = points(n)[0].numpy()
    run: dict[str, Callable[[], np.ndarray]] = {
        COMPILED: lambda: goodpoints_peer.compress(x, OVERSAMPLING, seed),
        SWAPPED: lambda: goodpoints_peer.compress(x, OVERSAMPLING, seed, swaps=True),
        CALLED: lambda: goodpoints_peer.compress_by_calls(x, OVERSAMPLING, seed),
    }
    return Task(lambda _: run[name]())


def measure(tier: str, device: str) -> Part:
    """Rows at every size, and the ratios of times and errors to each peer's."""
    part, why = Part(), goodpoints_peer.absent()
    for name in (PLAIN, SWAPS):
        once(ours(**_SMALL, device=device, name=name))
    with in_threads(1):
        for n in SIZES[tier]:
            _one_size(part, tier, n, device, why)
    if not why and LARGE in SIZES[tier]:
        tasks = {PLAIN: ours(LARGE, device), CALLED: theirs(LARGE, CALLED)}
        part.ratios.append(goodpoints_peer.in_two_threads(tasks, LARGE, BUDGET[tier], FASTER))
    with_memory(part, peaks([_specification(row, device) for row in part.rows]))
    return part


def _one_size(part: Part, tier: str, n: int, device: str, why: str) -> None:
    peers = () if why else tuple(BESIDE)
    makes = {name: partial(ours, n, device, name=name) for name in (PLAIN, SWAPS)}
    makes |= {name: partial(theirs, n, name) for name in peers}
    found = interleaved({name: make() for name, make in makes.items()}, BUDGET[tier])
    x, count = points(n)[0].numpy(), SEEDS[tier]
    size = {"m": _size(n), "d": DIMENSION, "error_kind": f"RKHS distance, {count} seeds"}
    errors, means = {}, kernel_means(x)
    for name, spent in found.seconds.items():
        errors[name] = [distance(x, once(makes[name](seed=seed))[1], means) for seed in range(count)]
        error = math.sqrt(float(np.mean(np.square(errors[name]))))
        part.rows.append(timed_row(name, PEER if name in peers else OURS, spent, n, error=error, **size))
    for name in peers:
        mine, of = BESIDE[name], f"{BESIDE[name]} / {name}, n = {n}"
        target = FASTER if (n, name) == (LARGE, CALLED) else None
        part.ratios.append(ratio(f"time of {of}", found.seconds[mine], found.seconds[name], target=target))
        part.ratios.append(ratio(f"error of {of}", errors[mine], errors[name]))
    if why:
        part.rows.append(Row(COMPILED, PEER, n, m=_size(n), d=DIMENSION, note=why))
        part.ratios.append(missing(f"time of {PLAIN} / {COMPILED}, n = {n}", None, why))


def _construction(name: str):
    refinement = "round_swaps" if name == SWAPS else "none"
    return make_coreset("kernel_halving", model="unweighted", scale="one", recursion="compress", refinement=refinement)


def _size(n: int) -> int:
    return 2**OVERSAMPLING * math.isqrt(n)


def _specification(row: Row, device: str) -> Specification | None:
    if row.note:
        return None
    maker, named = ("theirs", {}) if row.who == PEER else ("ours", {"device": device})
    named |= {"name": row.case}
    return Specification("benchmarks.compress", maker, {"n": row.n} | named, _SMALL | named)
