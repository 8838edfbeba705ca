"""Certificates on the device and on the CPU: times, equal ceilings, none of them below what the ascent found."""

from collections.abc import Iterator

import torch

from attention_coresets import make_cache, make_coreset
from attention_coresets.adversary.ascent import ascend
from attention_coresets.adversary.certificate import CERTIFICATES
from benchmarks.gpu.journal import Found
from benchmarks.gpu.measuring import in_turn
from benchmarks.records import Target, ratio
from benchmarks.timing import Task, once

SIZES = {"smoke": ((64, 16, 4, 2),), "full": ((2048, 256, 8, 2), (2048, 256, 64, 2))}  # n, m, d, heads
BUDGET = {"smoke": 0.05, "full": 3.0}
RHO, DIGITS = 2.0, 1e-6  # ceilings on the two devices agree so far, relative; set before it was measured
NOT_SLOWER = Target(1.0)


def measure(tier: str, device: str) -> Iterator[Found]:
    """Rows of both devices, and their ratio, which is to be at most 1."""
    for n, m, d, heads in SIZES[tier]:
        cpu = make_cache("clusters", n=n, d=d, heads=heads)
        kept = make_coreset("uniform")(cpu, m, RHO, torch.Generator().manual_seed(0))
        cache, coreset = cpu.to(device), type(kept)(kept.indices.to(device))
        found = ascend(cache, coreset, RHO).error
        for name, certificate in CERTIFICATES.items():
            tasks = {
                device: Task(lambda _, f=certificate, c=cache, k=coreset: f(c, k, RHO)),
                "the CPU": Task(lambda _, f=certificate, c=cpu, k=kept: f(c, k, RHO)),
            }
            once(tasks[device])
            runs = in_turn(tasks, BUDGET[tier], least=1)
            for where, run in runs.items():
                yield run.row(f"certificate {name}, {where}", n, m=m, d=d, heads=heads)
            here, there = runs[device], runs["the CPU"]
            title = f"time of certificate {name}, {device} / the CPU, {heads} × {n}, d = {d}"
            yield ratio(title, here.seconds, there.seconds, target=NOT_SLOWER if device != "cpu" else None)
            yield _judged(f"certificate {name}, d = {d}", here.result.cpu(), there.result, found.cpu())


def _judged(title: str, here: torch.Tensor, there: torch.Tensor, found: torch.Tensor) -> str:
    apart = float(((here - there).abs() / there).max())
    below = int((here < found * (1 - DIGITS)).sum())
    agree = "agree" if apart <= DIGITS else "DO NOT AGREE"
    low = f"BELOW the ascent in {below} heads" if below else "none below the ascent"
    return f"{title}: ceilings {agree} with the CPU's, {apart:.1e} apart at most; {low}"
