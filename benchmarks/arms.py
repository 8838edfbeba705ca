"""Every arm of the league beside the tilted walk, at the league's size, three heads together, in one thread.

Seconds of rounds in which each arm runs once, so that a busy machine slows all alike: in a sweep arms run at other
times, beside other work. docs/which.md says from these which arms are faster than the walk.
"""

from pathlib import Path

import torch
import yaml

from attention_coresets import make_cache, make_coreset
from attention_coresets.coresets.arms import ARMS
from benchmarks.records import OURS, Part, ratio, timed_row
from benchmarks.timing import Task, in_threads, interleaved, once

LEAGUE = Path(__file__).resolve().parent.parent / "conf" / "experiment" / "league.yaml"
WALK = "walk_tilted"
FAMILY, RHO, HEADS = "sphere", 2.0, 3
SIZES = {
    "smoke": ((64, 16, 4),),
    "quick": ((1024, 128, 32),),
    "full": ((1024, 128, 8), (1024, 128, 32), (1024, 128, 64)),  # n, m, d
}
BUDGET = {"smoke": 0.1, "quick": 1.0, "full": 30.0}  # seconds a size; three rounds at least


def arms() -> list[str]:
    """The league's arms, as its file lists them."""
    listed = yaml.safe_load(LEAGUE.read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]["arm"]
    return [name.strip() for name in listed.split(",")]


def measure(tier: str, device: str) -> Part:
    """Rows of every arm at every size, and the walk's time over theirs, round by round."""
    with in_threads(1):
        part = Part()
        for n, m, d in SIZES[tier]:
            tasks = {arm: _task(arm, n, m, d, device) for arm in arms()}
            for task in tasks.values():
                once(task)  # compiles
            found = interleaved(tasks, BUDGET[tier])
            for arm, spent in found.seconds.items():
                part.rows.append(timed_row(arm, OURS, spent, n, m=m, d=d, heads=HEADS))
                name = f"time of walk_tilted / {arm}, n = {n}, m = {m}, d = {d}"
                part.ratios.append(ratio(name, found.seconds[WALK], spent))
    return part


def _task(arm: str, n: int, m: int, d: int, device: str) -> Task:
    row = ARMS[arm]
    construct, cache = (
        make_coreset(row.construction, **row.parameters),
        make_cache(FAMILY, n=n, d=d, heads=HEADS, device=device),
    )
    return Task(lambda _: construct(cache, m, RHO, torch.Generator().manual_seed(0)))
