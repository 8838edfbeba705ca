"""A long cache thinned in two stages beside a Gram-Schmidt walk on a quarter of its length, to as many tokens, in one
thread; and kernel swaps at the walk's length, which hold no n x n matrix.

Of each: processor seconds, peak memory beyond the input, and the error of the worst query that 48 climbs find. Float32
input, d = 64, rho = 2. A row is one run: the walk takes minutes and some 6 GB.
"""

from dataclasses import replace

import torch

from attention_coresets import Cache, make_cache, make_coreset
from benchmarks.long import CLIMBS, D, error_of
from benchmarks.records import OURS, Part, Row, Target, single, timed_row
from benchmarks.stream import RHO, taken
from benchmarks.timing import in_threads

FAMILIES = {"smoke": ("clusters",), "quick": ("clusters",), "full": ("clusters", "sphere")}
SIZES = {"smoke": (256, 1024, 32), "quick": (2048, 8192, 128), "full": (16_384, 65_536, 512)}  # walk, long, kept
KEEPS = ((24, Target(0.85), Target(10.0)), (64, Target(0.65), Target(25.0)))  # error beside the walk's, seconds
SWAPS = {"recursion": "compress_pp", "refinement": "kernel_swaps"}


def measure(tier: str, device: str) -> Part:
    """Rows of every family, and the targets."""
    with in_threads(1):
        part, (short, long, size) = Part(notes=["seconds are those of the processor, in one thread"]), SIZES[tier]
        first = _cache("clusters", 256, device)
        for rule in (("gram_schmidt_walk", {}), ("kernel_halving", SWAPS), ("two_stage", {})):
            _row(first, 16, "", *rule)  # compiles
        part.rows.append(_row(_cache("clusters", short, device), size, "clusters", "kernel_halving", SWAPS))
        megabytes = (part.rows[0].memory or 0) / 1e6
        part.ratios.append(single(f"MB beyond the input of kernel swaps, {short} to {size}", megabytes))
        for family in FAMILIES[tier]:
            _one_family(part, family, (short, long, size), device)
    return part


def _one_family(part: Part, family: str, sizes: tuple[int, int, int], device: str) -> None:
    short, long, size = sizes
    cache = _cache(family, long, device)
    two = [_row(cache, size, family, "two_stage", {"keep": keep}) for keep, *_ in KEEPS]
    walk = _row(_cache(family, short, device), size, family, "gram_schmidt_walk", {})
    part.rows += [walk, *two]
    for (keep, error, seconds), row in zip(KEEPS, two, strict=True):
        name = f"two_stage, keep = {keep}, {family}, {long} to {size}"
        beside = (row.error or 0.0) / (walk.error or 0.0)
        part.ratios.append(single(f"error of {name} / a walk of {short}", beside, error))
        part.ratios.append(single(f"processor seconds of {name}", row.seconds or 0.0, seconds))


def _cache(family: str, n: int, device: str) -> Cache:
    return make_cache(family, n=n, d=D, dtype=torch.float32, device=device)


def _row(cache: Cache, size: int, family: str, name: str, parameters: dict) -> Row:
    construct = make_coreset(name, **parameters)
    found = taken(lambda: construct(cache, size, RHO, 0))
    words = ", ".join([name, *(f"{key} = {value}" for key, value in parameters.items()), family])
    row = timed_row(words, OURS, [found.processor], cache.n, m=size, d=D, memory=max(0, round(found.megabytes * 1e6)))
    row = replace(row, error=error_of(cache, found.coreset), error_kind=f"worst of {CLIMBS} climbs, ρ = {RHO:g}")
    print(f"{words}: {found.processor:.1f} s, {found.megabytes:.0f} MB, error {row.error:.4f}", flush=True)
    return row
