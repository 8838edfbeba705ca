"""The targets that need a GPU: a walk of 16,384 vectors, 96 walks of 4096, 96 halvings; and the profile of a walk."""

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import goodpoints_peer, halving
from benchmarks.limits import cholesky_and_inverse
from benchmarks.records import LIMIT, OURS, PEER, Part, Row, Target, missing, ratio, timed_row
from benchmarks.timing import Task, interleaved, once
from benchmarks.walk import walk

ONE = {"smoke": 96, "quick": 16384, "full": 16384}
BATCH = {"smoke": (4, 48), "quick": (96, 4096), "full": (96, 4096)}  # heads, n
BUDGET = {"smoke": 0.1, "quick": 15.0, "full": 60.0}
WITHIN_ONE, WITHIN_BATCH, FASTER = Target(5.0), Target(10.0), Target(5.0, at_most=False)
_PROFILED = 12  # lines of the profile that are kept


def measure(tier: str, device: str) -> Part:
    """Seconds against the targets, the profile's largest entries as notes, throughput against goodpoints in turn."""
    part = Part()
    n, (heads, small) = ONE[tier], BATCH[tier]
    once(walk(128, device=device))
    for task, size, count, target in ((walk(n, 1, device), n, 1, WITHIN_ONE), (None, small, heads, WITHIN_BATCH)):
        _walk(part, task or walk(size, count, device), size, count, target, tier, device)
    _halvings(part, tier, device)
    return part


def _walk(part: Part, task: Task, n: int, heads: int, target: Target, tier: str, device: str) -> None:
    limit = cholesky_and_inverse(n, device)
    once(limit)
    seconds = interleaved({"walk": task, "limit": limit}, BUDGET[tier], least=2).seconds
    part.rows.append(timed_row("Gram walk", OURS, seconds["walk"], n, operations=heads * n**3, heads=heads))
    part.rows.append(timed_row("Cholesky + inverse", LIMIT, seconds["limit"], n, operations=n**3))
    ones = [1.0] * len(seconds["walk"])
    part.ratios.append(ratio(f"seconds for {heads} × {n} walked on the GPU", seconds["walk"], ones, target=target))
    name = f"Gram walk, {heads} × {n} / as many (Cholesky + inverse)"
    part.ratios.append(ratio(name, seconds["walk"], seconds["limit"], factor=1 / heads))
    part.notes.append(f"profile of {heads} × {n}:\n{_profile(task)}")


def _profile(task: Task) -> str:
    """What the run's time goes to, largest first, as torch.profiler prints it."""
    given = task.prepare()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as found:
        task.run(given)
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return found.key_averages().table(sort_by=key, row_limit=_PROFILED, max_name_column_width=40)


def _halvings(part: Part, tier: str, device: str) -> None:
    heads, n = BATCH[tier]
    task, why = halving.ours(n, heads, device), goodpoints_peer.absent()
    once(task)
    seconds = interleaved({"ours": task}, BUDGET[tier] / 3).seconds["ours"]
    part.rows.append(timed_row("kernel halving", OURS, seconds, n, heads=heads, m=n // 2))
    name = f"throughput over halve_K's on the CPU, {heads} × {n}"
    if why:
        part.ratios.append(missing(name, FASTER, why))
        part.rows.append(Row("goodpoints halve_K", PEER, n, note=why))
        return
    peer = halving.theirs(n)
    once(peer)
    theirs = interleaved({"theirs": peer}, 1.0, least=len(seconds), most=len(seconds)).seconds["theirs"]
    part.rows.append(timed_row("goodpoints halve_K", PEER, theirs, n, m=n // 2))
    part.ratios.append(ratio(name, theirs, seconds, factor=heads, target=FASTER))
