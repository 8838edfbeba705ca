"""What a cell would take: memory and time, told and limited before any work.

Estimates rest on the orders that constructions state (`Construction.cost`), on a speed that one core of an ordinary
processor has, and on what caches and certificates hold. They are meant to tell an hour from a year, no more.
"""

import os
from collections.abc import Mapping
from typing import Any

from attention_coresets.adversary.ascent import Effort
from attention_coresets.coresets.base import Construction, Cost
from attention_coresets.study.disk import StudyError

FLOPS = 1e10  # a second, of one core in float64
_GIGABYTE = 1e9
_FAST = 6  # matrix products, most of them in float32, are so many times as fast


def check_cost(config: Mapping[str, Any], construct: Construction) -> None:
    """Raises StudyError where the estimate exceeds compute.max_gb or compute.max_hours."""
    found, compute = cell_cost(config, construct), config["compute"]
    gigabytes, hours = found.numbers * 8 / _GIGABYTE, found.flops / FLOPS / 3600
    limits = {
        "max_gb": (gigabytes, compute.get("max_gb") or machine_memory() / _GIGABYTE, "GB of memory"),
        "max_hours": (hours, compute.get("max_hours", 24.0), "hours on one core"),
    }
    for key, (needed, limit, unit) in limits.items():
        if needed > limit:
            raise StudyError(
                f"cache.n={tokens(config['cache'])} with coreset={config['coreset']['name']}: takes about {needed:.2g} "
                f"{unit}, above the limit of {limit:.2g}; take a smaller cache.n, or raise compute.{key}"
            )


def cell_cost(config: Mapping[str, Any], construct: Construction) -> Cost:
    """Estimates a cell of task=errors: float64 numbers held at once, and flops of all sizes and heads."""
    n, d, heads = tokens(config["cache"]), config["cache"].get("d") or 64, config["heads"]
    sizes, adversary = [min(size, n) for size in config["sizes"]], config["adversary"]
    costs = [construct.cost(n, size, d) for size in sizes]
    counts = adversary["restarts"], adversary["steps"], adversary["polish"]
    effort = Effort(*counts, racing=adversary.get("racing", False))
    climbs = 4 * (sum(count * steps for count, steps in effort.rounds) + effort.finalists * effort.polish)
    searched = sum(2 * d * (n + size) * (climbs + 2 * (2700 + min(n, 4096))) for size in sizes) / _FAST
    certified = 3 * n**2 * d * len(sizes) if adversary["certify"] else 0
    flops = heads * (sum(cost.flops for cost in costs) + searched + certified)
    return Cost(numbers=4 * heads * n * d + max(cost.numbers for cost in costs), flops=flops)


def tokens(cache: Mapping[str, Any]) -> int:
    """Returns the number of tokens of a configuration's cache; signed clusters may leave it to their own number."""
    return cache["n"] or (cache["clusters"] or cache["d"]) * cache["d"]


def machine_memory() -> float:
    """Returns the bytes of memory of this machine."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
