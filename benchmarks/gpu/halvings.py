"""96 kernel halvings on the device beside a CPU core's: goodpoints' `halve_K`, or our own compiled loop without it."""

from collections.abc import Iterator

import torch

from benchmarks import goodpoints_peer, halving
from benchmarks.gpu.journal import Found
from benchmarks.gpu.measuring import timed
from benchmarks.kernel import DIMENSION
from benchmarks.records import OURS, PEER, Target, ratio
from benchmarks.timing import once

BATCH = {"smoke": (4, 64), "full": (96, 4096)}  # heads, n
ON_CPU = {"smoke": 2, "full": 4}  # heads that the CPU halves, one after another
BUDGET = {"smoke": 0.05, "full": 4.0}
FASTER = Target(5.0, at_most=False)


def measure(tier: str, device: str) -> Iterator[Found]:
    """Throughput over one core's. The same points must be kept: the note says in how many heads they were."""
    (heads, n), few, budget = BATCH[tier], ON_CPU[tier], BUDGET[tier]
    once(halving.ours(128, 2, device))
    run = timed(halving.ours(n, heads, device), budget)
    yield run.row("kernel halving", n, heads=heads, m=n // 2, d=DIMENSION)
    theirs, name, who = _peer(n, few)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    once(_peer(128, 1)[0])
    peer = timed(theirs, budget / 2)
    torch.set_num_threads(threads)
    yield peer.row(f"{name}, one core", n, who, heads=few, m=n // 2, d=DIMENSION, memory=None)
    a, b = min(peer.seconds) / few, min(run.seconds) / heads
    yield ratio(f"throughput over one core's {name}, {heads} × {n}", [a], [b], target=FASTER)
    same = sum(_kept(ours) == _kept(other) for ours, other in zip(run.result[:few], peer.result, strict=True))
    yield f"the same points kept as on the CPU: {same} of {few} heads"


def _peer(n: int, heads: int):
    """The task, its name and whose it is."""
    if goodpoints_peer.absent():
        return halving.ours(n, heads), "kernel halving", OURS
    return halving.theirs(n, heads), "goodpoints halve_K", PEER


def _kept(found) -> list[int]:
    """Sorted tokens: of signs (a tensor of booleans) or of goodpoints' indices."""
    return found.cpu().nonzero().squeeze(-1).tolist() if isinstance(found, torch.Tensor) else list(map(int, found))
