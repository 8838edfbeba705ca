"""Every construction by its registered name: seconds, peak memory, worst-case error, and the exponents of cost."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from attention_coresets import CORESETS, Coreset, make_cache, make_coreset, worst_query
from benchmarks.exponents import exponent, verdict
from benchmarks.memory import Specification, peaks
from benchmarks.records import OURS, Part, Row, with_memory
from benchmarks.stated import LEFT_OUT, STATED
from benchmarks.timing import Task, once

FAMILY, RHO = "clusters", 2.0
_USUAL = {"n": 4096, "m": 256, "d": 16}
BASE = {"smoke": {"n": 192, "m": 32, "d": 8}, "quick": _USUAL, "full": _USUAL}
_SMALL = {"n": 128, "m": 32, "d": 16}  # for the warm-up
_N = tuple(1024 * 2**k for k in range(7))
SWEEPS: dict[str, dict[str, tuple[int, ...]]] = {
    "smoke": {"n": (96, 128, 192)},
    "quick": {"n": _N[:4]},
    "full": {"n": _N, "m": (64, 128, 256, 512, 1024), "d": (8, 16, 32, 64)},
}
BUDGET = {"smoke": 0.02, "quick": 0.25, "full": 15.0}  # seconds an arm and sweep, give or take the last run
ERRORS = {"smoke": (192,), "quick": (4096,), "full": _N}
_ROUNDS, _LEAST_SIZES = 5, 3
Make = Callable[..., Task]
LEAST_MEMORY = 2**21  # a peak below 2 MiB says nothing of growth
# variants worth a row of their own beside the defaults
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "gram_schmidt_walk": {"unweighted": {"model": "unweighted"}, "halving": {"recursion": "halving"}},
    "kernel_halving": {"unweighted": {"model": "unweighted"}},
}


@dataclass(frozen=True)
class Arm:
    """A construction with parameters, under a label: its name, and its variant where it has one."""

    label: str
    name: str
    parameters: dict[str, Any]


def arms(tier: str) -> list[Arm]:
    """Every registered construction that has a row, with its defaults; in the full tier the variants as well."""
    found = []
    for name in CORESETS:
        if name in LEFT_OUT:
            continue
        found.append(Arm(name, name, {}))
        variants = VARIANTS.get(name, {}) if tier == "full" else {}
        found += [Arm(f"{name}, {word}", name, parameters) for word, parameters in variants.items()]
    return found


def construct(name: str, parameters: dict[str, Any], n: int, m: int, d: int, device: str = "cpu") -> Task:
    """A coreset of m of n tokens in R^d; the same cache and random numbers each time.

    An eviction heuristic that scores tokens by queries gets 64 random ones of norm rho.
    """
    build, cache = make_coreset(name, **parameters), make_cache(FAMILY, n=n, d=d, device=device)
    queries = torch.randn(1, 64, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    queries = RHO * queries / queries.norm(dim=-1, keepdim=True)
    more: dict[str, Any] = {"queries": queries} if build.needs_queries else {}
    return Task(lambda _: build(cache, m, RHO, torch.Generator().manual_seed(0), **more))


def measure(tier: str, device: str) -> Part:
    """Rows of every arm over each sweep as far as its budget goes, and the fitted exponents beside the stated ones."""
    part = Part(notes=[f"{name}: left out, {why}" for name, why in LEFT_OUT.items()])
    sweeps: list[tuple[Arm, str, list[Row]]] = []
    for arm in arms(tier):
        make = partial(construct, arm.name, arm.parameters, device=device)
        once(construct(arm.name, arm.parameters, **_SMALL, device=device))
        for variable, values in SWEEPS[tier].items():
            rows, note = _sweep(arm, variable, values, make, tier)
            part.notes += [f"{arm.label}: {note}"] if note else []
            sweeps.append((arm, variable, rows))
    part.rows = [row for _, _, rows in sweeps for row in rows]
    chosen = {arm.label: arm for arm, _, _ in sweeps}
    with_memory(part, peaks([_specification(chosen[row.case], row, device) for row in part.rows]))
    remembered = iter(part.rows)
    for arm, variable, rows in sweeps:
        part.fits += _fits(arm, variable, [next(remembered) for _ in rows], tier)
    return part


def _sweep(arm: Arm, variable: str, values: Sequence[int], make: Make, tier: str) -> tuple[list[Row], str]:
    """Rows at ascending values while the next is expected within the budget, repeated in rounds; why it stopped."""
    tasks: dict[int, Task] = {}
    seconds: dict[int, list[float]] = {}
    results: dict[int, Coreset] = {}
    end, note = time.perf_counter() + BUDGET[tier], ""
    for value in values:
        setting = BASE[tier] | {variable: value}
        if note := _refusal(arm, variable, setting, seconds, end - time.perf_counter()):
            break
        tasks[value] = make(**setting)
        spent, results[value] = once(tasks[value])
        seconds[value] = [spent]
    for _ in range(1, _ROUNDS):
        if time.perf_counter() > end:
            break
        for value, task in tasks.items():
            seconds[value].append(once(task)[0])
    return [_row(arm, BASE[tier] | {variable: v}, seconds[v], results[v], variable, tier) for v in seconds], note


def _refusal(arm: Arm, variable: str, setting: dict[str, int], seconds: dict[int, list[float]], left: float) -> str:
    """Why the sweep ends before this setting, empty where it goes on: three are measured whatever they take."""
    value = setting[variable]
    if not _room(arm, setting["n"]):
        return f"{variable} = {value} left out, its Gram matrix would not fit the memory"
    if len(seconds) < _LEAST_SIZES:
        return ""
    last, stated = max(seconds), STATED.get(arm.name)
    power = stated.time[variable] if stated else 3.0
    expected = seconds[last][0] * (value / last) ** max(1.0, power)
    return f"{variable} = {value} left out, some {expected:.2g} s expected" if expected > left else ""


def _room(arm: Arm, n: int) -> bool:
    """Four n x n matrices fit into half of the memory that is free, or the construction states that it keeps none."""
    stated = STATED.get(arm.name)
    if stated and stated.memory["n"] < 2:
        return True
    info = Path("/proc/meminfo")
    if not info.exists():
        return n <= 2**13
    free = (
        next(int(x.split()[1]) for x in info.read_text(encoding="utf-8").splitlines() if x.startswith("MemAvailable"))
        * 1024
    )
    return 4 * 8 * n * n <= free / 2


def _row(arm: Arm, setting: dict[str, int], spent: list[float], coreset: Coreset, variable: str, tier: str) -> Row:
    error = None
    if variable == "n" and setting["n"] in ERRORS[tier]:
        cache = make_cache(FAMILY, n=setting["n"], d=setting["d"], device=coreset.indices.device)
        error = float(worst_query(cache, coreset, RHO, restarts=32, steps=40, polish=20).error)
    kind = f"worst case found, ρ = {RHO:g}" if error is not None else ""
    times = {"seconds": median(spent), "fastest": min(spent), "slowest": max(spent), "repeats": len(spent)}
    return Row(arm.label, OURS, **setting, **times, error=error, error_kind=kind)


def _specification(arm: Arm, row: Row, device: str) -> Specification:
    fixed = {"name": arm.name, "parameters": arm.parameters, "device": device}
    return Specification(
        "benchmarks.constructions", "construct", fixed | {"n": row.n, "m": row.m, "d": row.d}, fixed | _SMALL
    )


def _fits(arm: Arm, variable: str, rows: Sequence[Row], tier: str) -> list[dict[str, Any]]:
    """Time by the fastest repeats, for other work on the machine only adds; memory by the peaks that are not tiny."""
    stated = STATED.get(arm.name)
    where = [getattr(row, variable) for row in rows]
    large = [(x, row.memory) for x, row in zip(where, rows, strict=True) if (row.memory or 0) >= LEAST_MEMORY]
    fits = []
    for quantity, x, y in (
        ("time", where, [row.fastest or 0.0 for row in rows]),
        ("memory", [x for x, _ in large], [float(y or 0) for _, y in large]),
    ):
        found = exponent(x, y)
        claimed = None if stated is None else getattr(stated, quantity)[variable]
        if tier == "quick" and found is not None:
            claimed = None  # up to n = 8192 blocks of fixed size still grow: the full tier decides
        word = "below 2 MiB" if quantity == "memory" and len(large) < min(3, len(rows)) else verdict(found, claimed)
        fits.append(
            {"construction": arm.label, "quantity": quantity, "variable": variable, "stated": claimed, "verdict": word}
            | ({} if found is None else {"exponent": found.value, "error": found.error, "points": found.points})
        )
    return fits
