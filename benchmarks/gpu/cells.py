"""Cells of the study at the size of its tier `full`, from plain dictionaries: no Hydra is needed where they run."""

import math
from collections.abc import Iterator
from typing import Any

from attention_coresets.coresets.arms import ARMS
from attention_coresets.study.cell import run_cell
from benchmarks.gpu.journal import Found
from benchmarks.records import OURS, Row
from benchmarks.timing import Task, once

THOROUGH = {"restarts": 1280, "steps": 120, "polish": 160, "certify": False, "gap": 1e-4}  # conf/adversary/
TINY = {"restarts": 8, "steps": 10, "polish": 5, "certify": False, "gap": 1e-4}


def cells(tier: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Experiment and cell: a slice of rho_rate, of lower_bound_orthonormal and of the league."""
    n, d, sizes = (8192, 8, [256, 1024]) if tier == "full" else (48, 4, [8, 16])
    shape, halves = ({"d": 64, "clusters": 64}, [1024, 2048]) if tier == "full" else ({"d": 4, "clusters": 4}, [8])
    yield "rho_rate", cell(tier, "tilted_draws", {"name": "sphere", "n": n, "d": d}, sizes, heads=5)
    yield "rho_rate", cell(tier, "walk_tilted", {"name": "sphere", "n": n, "d": d}, sizes, heads=5)
    yield "lower_bound", cell(tier, "walk_unweighted", {"name": "signed_clusters", **shape}, halves, heads=5)
    league = {"name": "clusters", "n": n, "d": 4 * d}
    for arm in ("kernel_halving_tilted_compress_pp_kernel_swaps", "frank_wolfe", "minimax_free"):
        yield "league", cell(tier, arm, league, sizes[:1], heads=3)


def cell(tier: str, arm: str, cache: dict[str, Any], sizes: list[int], *, heads: int) -> dict[str, Any]:
    """The configuration of one cell, as `study.config.Study` resolves it, less what only a sweep reads."""
    if tier != "full":
        heads = 2
    return {
        "cache": cache,
        "coreset": {"name": ARMS[arm].construction, **ARMS[arm].parameters},
        "arm": arm,
        "rho": 1.0,
        "seed": 0,
        "heads": heads,
        "sizes": sizes,
        "adversary": THOROUGH if tier == "full" else TINY,
        "compute": {"device": "cpu", "dtype": "float64", "threads": None},
    }


def measure(tier: str, device: str) -> Iterator[Found]:
    """A row a size: seconds of the construction for all heads, and the largest error of a head."""
    for experiment, config in cells(tier):
        config["compute"]["device"] = device
        seconds, rows = once(Task(lambda _, c=config: run_cell(c)))
        for size in config["sizes"]:
            own = [row for row in rows if row["size"] == size]
            built = own[0]["seconds_construct"] * len(own)
            yield Row(
                *(f"{experiment}: {config['arm']}", OURS, own[0]["n"], size, own[0]["d"], len(own)),
                *(built, built, built, 1),
                error=max(row["error"] for row in own),
                error_kind="worst query",
            )
        attack = math.fsum(row["seconds_adversary"] for row in rows)
        yield f"{experiment}, {config['arm']}: the cell took {seconds:.2f} s, of which the adversary {attack:.2f} s"
