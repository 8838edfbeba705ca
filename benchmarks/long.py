"""Long caches: 4096 to a million tokens by every rule whose time grows no faster than about n, in one thread.

Of each: processor seconds, peak memory beyond the input, and the error of the worst query that 48 climbs find, which
start alike for all. Beside them uniform draws, and slower rules up to where they end in time. Float32 input, d =
64, rho = 2, family `clusters`. Up to 65,536 tokens of several caches, the medians; beyond, of one.
"""

from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from attention_coresets import Cache, Coreset, make_cache, make_coreset
from attention_coresets.adversary import climb
from benchmarks.records import OURS, Part, Target, ratio, single, timed_row
from benchmarks.stream import RHO, Taken, read, taken
from benchmarks.timing import in_threads

D, KEEP = 64, 8
SIZES = {
    "smoke": ((512, 32), (1024, 32)),
    "quick": ((4096, 64), (16_384, 128)),
    "full": ((4096, 64), (16_384, 128), (65_536, 512), (262_144, 1024), (1_048_576, 4096)),
}
SEEDS = {4096: 9, 16_384: 5, 65_536: 3}  # caches of a size; one where it is not here
CLIMBS, STEPS = 48, 40
TWO_STAGES, PLAIN = "stream, two_stage", "stream, kernel_halving"
WITH_SWAPS = "kernel_halving, Compress++ with swaps"
MOST = {
    "herding": 16_384,
    "kernel_halving, Compress++": 262_144,
    WITH_SWAPS: 65_536,
    "two_stage": 65_536,
    PLAIN: 262_144,
}  # tokens
SECONDS, MEGABYTES, ERROR = Target(180.0), Target(500.0), Target(0.7)


def measure(tier: str, device: str) -> Part:
    """Rows of every size, the targets at the largest, and the ratios of errors at each."""
    with in_threads(1):
        part = Part(notes=["seconds are those of the processor, in one thread"])
        for rule in _rules().values():
            rule(make_cache("clusters", n=1024, d=D, dtype=torch.float32, device=device), 32)  # compiles
        for n, size in SIZES[tier]:
            _one_size(part, n, size, device)
    n, size = SIZES[tier][-1]
    row = next(row for row in part.rows if (row.case, row.n) == (TWO_STAGES, n))
    part.ratios[:0] = [
        single(f"processor seconds of {TWO_STAGES}, {n} to {size}", row.seconds or 0.0, SECONDS),
        single(f"MB beyond the input of {TWO_STAGES}, {n} to {size}", (row.memory or 0) / 1e6, MEGABYTES),
    ]
    return part


def _rules(seed: int = 0) -> dict[str, Callable[[Cache, int], Taken]]:
    def once(name: str, **parameters) -> Callable[[Cache, int], Taken]:
        construct = make_coreset(name, **parameters)
        return lambda cache, size: taken(lambda: construct(cache, size, RHO, seed))

    def streamed(name: str, **parameters) -> Callable[[Cache, int], Taken]:
        construct = make_coreset(name, **parameters)
        return lambda cache, size: read(cache, construct, size, seed)

    return {
        "uniform": once("uniform"),
        "herding": once("herding"),
        "kernel_halving, Compress++": once("kernel_halving", recursion="compress_pp"),
        WITH_SWAPS: once("kernel_halving", recursion="compress_pp", refinement="round_swaps"),
        "two_stage": once("two_stage", keep=KEEP),
        TWO_STAGES: streamed("two_stage", keep=KEEP),
        PLAIN: streamed("kernel_halving"),
    }


def _one_size(part: Part, n: int, size: int, device: str) -> None:
    errors: dict[str, list[float]] = {}
    runs: dict[str, list[Taken]] = {}
    for seed in range(SEEDS.get(n, 1)):
        cache = make_cache("clusters", n=n, d=D, seed=seed, dtype=torch.float32, device=device)
        for name, rule in _rules(seed).items():
            if n <= MOST.get(name, n):
                runs.setdefault(name, []).append(rule(cache, size))
                errors.setdefault(name, []).append(error_of(cache, runs[name][-1].coreset))
    for name, found in runs.items():
        memory = max(0, round(max(one.megabytes for one in found) * 1e6))
        row = timed_row(name, OURS, [one.processor for one in found], n, m=size, d=D, memory=memory)
        kind = f"worst of {CLIMBS} climbs, ρ = {RHO:g}"
        part.rows.append(replace(row, error=median(errors[name]), error_kind=kind))
    for name in errors:
        if name != "uniform":
            part.ratios.append(ratio(f"error of {name} / uniform, {n} to {size}", errors[name], errors["uniform"]))
    if PLAIN in errors:
        name = f"error of {TWO_STAGES} / {PLAIN}, {n} to {size}"
        part.ratios.append(ratio(name, errors[TWO_STAGES], errors[PLAIN], target=ERROR))


def error_of(cache: Cache, coreset: Coreset) -> float:
    """Error of the worst query that climbs find: half of them begin at keys, half in random directions."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(cache.n, (CLIMBS // 2,), generator=generator)
    centred = cache.keys[tokens] - cache.keys.mean(dim=0)
    starts = torch.cat([centred, torch.randn(CLIMBS - len(tokens), D, generator=generator).to(centred)])
    starts = RHO * starts / starts.norm(dim=-1, keepdim=True)
    return float(climb(cache, coreset, RHO, starts, STEPS)[1].max())
