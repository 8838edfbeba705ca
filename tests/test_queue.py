"""In which order cells are handed out, and how many at a time."""

from pathlib import Path

import pytest

from attention_coresets.study.launchers import number_of_tasks
from attention_coresets.study.leases import Leases
from attention_coresets.study.plan import Cell, Sweep, write_plan
from attention_coresets.study.progress import Post, Poster
from attention_coresets.study.queue import Queue
from attention_coresets.study.slurm import Slurm
from test_store import changed


def planned(folder: Path, cells: list[tuple[int, int]], seconds: dict[int, float]) -> Sweep:
    """A sweep of (tokens, seed) in that order; what cells of so many tokens took before."""
    made = [
        Cell(f"{n:08d}{seed:08d}", f"n={n} seed={seed}", changed("cache.n", n) | {"seed": seed}) for n, seed in cells
    ]
    write_plan(folder, made)
    groups = {cell.config["cache"]["n"]: cell.group for cell in made}
    before = {groups[n]: value for n, value in seconds.items()}
    return Sweep(folder, "sweep", folder / "results", 0, [], folder, before)


def order(sweep: Sweep, leases: Leases) -> list[str]:
    """Labels in the order in which one process takes the cells, none of which it finishes."""
    queue, taken = Queue(sweep, leases), []
    while batch := queue.take():
        taken += [queue.jobs.labels[job] for job in batch]
    return taken


def test_unknown_cells_are_tried_first_then_the_slowest(tmp_path: Path) -> None:
    sweep = planned(tmp_path, [(8, 0), (8, 1), (16, 0), (16, 1), (32, 0)], {8: 0.5, 16: 3.0})
    with Leases(sweep.store.leases) as leases:
        assert order(sweep, leases) == ["n=32 seed=0", "n=16 seed=0", "n=16 seed=1", "n=8 seed=0", "n=8 seed=1"]


def test_what_this_sweep_has_seen_counts_more_than_what_was_before(tmp_path: Path) -> None:
    sweep = planned(tmp_path, [(8, 0), (8, 1), (16, 0), (16, 1)], {8: 0.5, 16: 3.0})
    Poster(sweep.board, "other").post(Post("computed", 0, 60.0))
    with Leases(sweep.store.leases) as leases:
        assert order(sweep, leases)[0] == "n=8 seed=1"


def test_unknown_groups_are_spread_over_processes(tmp_path: Path) -> None:
    sweep = planned(tmp_path, [(8, 0), (8, 1), (16, 0)], {})
    Poster(sweep.board, "other").post(Post("running", 0))
    with Leases(sweep.store.leases) as leases:
        assert order(sweep, leases)[0] == "n=16 seed=0"


def on_texts(folder: Path, task: str) -> Sweep:
    """Two arms on two texts, by text; the second arm is the slower one."""
    made = []
    for text in ("britannica", "code"):
        for arm in ("uniform", "kde_walk"):
            config = changed("cache.text", text) | {"task": task, "arm": arm, "coreset": {"name": arm}}
            made.append(Cell(f"{text}{arm}", f"{text} {arm}", config))
    write_plan(folder, made)
    return Sweep(folder, "sweep", folder / "results", 0, [], folder, {made[0].group: 2.0, made[1].group: 3.0})


@pytest.mark.parametrize("task", ["language", "replayed"])
def test_a_process_stays_with_the_text_that_it_has_read(tmp_path: Path, task: str) -> None:
    sweep = on_texts(tmp_path, task)
    by_text = ["britannica uniform", "britannica kde_walk", "code uniform", "code kde_walk"]
    with Leases(sweep.store.leases) as leases:
        assert order(sweep, leases) == by_text


def test_another_process_reads_another_text(tmp_path: Path) -> None:
    sweep = on_texts(tmp_path, "language")
    with Leases(sweep.store.leases) as others, Leases(sweep.store.leases) as leases:
        assert others.take("britannicauniform")
        assert order(sweep, leases) == ["code uniform", "code kde_walk", "britannica kde_walk"]


def test_cells_without_a_text_go_longest_first(tmp_path: Path) -> None:
    sweep = on_texts(tmp_path, "errors")
    with Leases(sweep.store.leases) as leases:
        assert order(sweep, leases) == ["britannica kde_walk", "code kde_walk", "britannica uniform", "code uniform"]


@pytest.mark.parametrize(("seconds", "expected"), [(0.001, 64), (0.1, 10), (0.4, 2), (3.0, 1)])
def test_a_process_takes_about_a_second_of_work(tmp_path: Path, seconds: float, expected: int) -> None:
    sweep = planned(tmp_path, [(8, seed) for seed in range(100)], {8: seconds})
    with Leases(sweep.store.leases) as leases:
        assert abs(len(Queue(sweep, leases).take()) - expected) <= 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Slurm(cells_per_job=30), 4),
        (Slurm(cells_per_job=1), 16),  # array_parallelism
        (Slurm(minutes_per_job=10.0), 5),  # 100 cells of 30 s are 50 minutes
        (Slurm(minutes_per_job=1000.0), 1),
    ],
)
def test_the_number_of_tasks_follows_from_the_work(tmp_path: Path, options: Slurm, expected: int) -> None:
    sweep = planned(tmp_path, [(8, seed) for seed in range(100)], {8: 30.0})
    assert number_of_tasks(sweep, options) == expected
