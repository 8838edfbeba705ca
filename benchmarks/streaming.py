"""A million tokens streamed to 4096 by merge and reduce: seconds, memory, and error against the same rule at once.

`stream.py` does the reading; this makes a part of it, with the project's targets.
"""

import torch

from attention_coresets import Cache, make_cache, make_coreset, worst_query
from benchmarks.records import OURS, Part, Row, Target, single
from benchmarks.stream import RHO, read

CONSTRUCT = "kernel_halving"
# tokens, dimension, size, prefix for the comparison with one-shot; prefix and size for that with a walk
SIZES = {
    "smoke": ((4096, 8, 128, 2048), (512, 64)),
    "quick": ((100_000, 64, 1024, 8192), (4096, 512)),
    "full": ((1_000_000, 64, 4096, 32_768), (8192, 1024)),
}
MINUTES, MEGABYTES, ERROR = Target(300.0), Target(500.0), Target(2.0)


def measure(tier: str, device: str) -> Part:
    """One row for the stream, and its three ratios; the fourth sets it beside a Gram-Schmidt walk at once."""
    (n, d, size, prefix), (short, few) = SIZES[tier]
    cache = make_cache("clusters", n=n, d=d, dtype=torch.float32, device=device)
    build = make_coreset(CONSTRUCT)
    read(_first(cache, min(n, 4096)), build, min(size, 256))  # compiles
    taken = read(cache, build, size)
    row = Row(
        *(f"stream, {CONSTRUCT}", OURS, n, size, d, 1, taken.seconds, taken.seconds, taken.seconds, 1),
        memory=round(taken.megabytes * 1e6),
    )
    same = _error_ratio(_first(cache, prefix), CONSTRUCT, size)
    walk = _error_ratio(_first(cache, short), "gram_schmidt_walk", few)
    ratios = [
        single(f"seconds for {n} tokens, d = {d}, to {size}", taken.seconds, MINUTES),
        single("MB beyond the input", taken.megabytes, MEGABYTES),
        single(f"stream's error / one-shot, {prefix} to {size}", same, ERROR),
        single(f"stream's error / Gram-Schmidt walk at once, {short} to {few}", walk),
    ]
    notes = [f"{taken.held} tokens held at most, {taken.processor:.0f} s of processor time"]
    return Part([row], ratios, notes=notes)


def _first(cache: Cache, n: int) -> Cache:
    return Cache(cache.keys[:n], cache.values[:n])


def _error_ratio(cache: Cache, one_shot: str, size: int) -> float:
    """Worst error of the stream over that of a construction called once."""
    streamed = read(cache, make_coreset(CONSTRUCT), size).coreset
    once = make_coreset(one_shot)(cache, size, RHO, torch.Generator().manual_seed(1))
    errors = [float(worst_query(cache, coreset, RHO).error) for coreset in (streamed, once)]
    return errors[0] / errors[1]
