"""Logs and shards: what is written comes back, torn and damaged parts are known and cost their cells alone."""

import multiprocessing
import os
from pathlib import Path

import pytest

from attention_coresets.study import records as module
from attention_coresets.study.identity import cell_hash
from attention_coresets.study.leases import Leases
from attention_coresets.study.manifests import Manifest, Member
from attention_coresets.study.store import Store
from test_store import changed, row


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def cell(seed: int) -> tuple[dict, list[dict]]:
    config = changed("seed", seed)
    return config, [
        row(cell_hash(config), seed=seed, size=size, error=seed / 7, radius=float("inf")) for size in (8, 16)
    ]


def fill(store: Store, worker: str, seeds: range) -> list[str]:
    """Cells in the log of a process; their names."""
    log = store.log(worker)
    for seed in seeds:
        config, rows = cell(seed)
        log.add(cell_hash(config), config, rows)
    log.close()
    return [cell_hash(cell(seed)[0]) for seed in seeds]


def packed(store: Store) -> Path:
    module.pack(store.logs.iterdir(), store.shards)
    (path,) = store.shards.iterdir()
    return path


def test_rows_are_the_same_in_a_log_and_in_a_shard(store: Store) -> None:
    names = fill(store, "w-1", range(5))
    config, rows = cell(7)
    del rows[0]["heldout_max"]  # not every row has every column
    odd = store.write(config, rows)
    before = {name: store.read(name) for name in [*names, odd]}
    assert before[names[3]] == cell(3)[1]
    packed(store)
    assert not list(store.logs.iterdir())
    assert {name: store.read(name) for name in before} == before
    assert set(store.finished()) == set(before)


def test_a_log_that_grows_is_packed_and_goes_on(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(module, "PACK_CELLS", 4)
    log, seen = store.log("w-1"), store.finished()
    for seed in range(10):
        config, rows = cell(seed)
        log.add(cell_hash(config), config, rows)
        log.sync()
        seen.refresh()
        assert len(seen) == seed + 1  # also by who reads while it is packed
    assert len(list(store.shards.iterdir())) == 2
    log.close()
    assert len(store.finished()) == 10


def test_a_torn_last_line_is_no_cell(store: Store) -> None:
    names = fill(store, "w-1", range(3))
    (path,) = store.logs.iterdir()
    os.truncate(path, path.stat().st_size - 30)
    assert set(store.finished()) == set(names[:2])
    assert store.read(names[2]) is None


def test_a_damaged_line_costs_its_cell_alone(store: Store) -> None:
    names = fill(store, "w-1", range(3))
    (path,) = store.logs.iterdir()
    path.write_bytes(path.read_bytes().replace(b'"seed":1,', b'"seed":3,', 1))
    assert set(store.finished()) == {names[0], names[2]}


@pytest.mark.parametrize("damage", ["bit", "short"])
def test_a_damaged_shard_is_named_and_costs_its_cells_alone(store: Store, capsys, damage: str) -> None:
    names = fill(store, "w-1", range(3))
    path = packed(store)
    others = fill(store, "w-2", range(3, 5))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "bit" else content[:-20])
    assert set(store.finished()) == set(others)
    said = capsys.readouterr().err
    assert f"note: {path} is damaged" in said
    assert "its cells are computed again" in said
    assert path.with_name(f"{path.name}.damaged").exists()
    fill(store, "w-3", range(3))
    assert set(store.finished()) == set(names + others)


def test_a_process_that_was_taken_for_dead_loses_nothing(store: Store) -> None:
    """Its log is packed while it goes on writing: the file it holds has no name any more."""
    log = store.log("w-1")
    config, rows = cell(0)
    log.add(cell_hash(config), config, rows)
    log.sync()
    packed(store)
    for seed in (1, 2):
        config, rows = cell(seed)
        log.add(cell_hash(config), config, rows)
    log.close()
    assert set(store.finished()) == {cell_hash(cell(seed)[0]) for seed in range(3)}


def test_logs_of_the_living_are_not_packed(store: Store, monkeypatch) -> None:
    monkeypatch.setattr("attention_coresets.study.store._FEW_LOGS", 1)
    with Leases(store.leases) as leases:
        fill(store, leases.worker.id, range(2))
        fill(store, "dead-1", range(2, 4))
        fill(store, "dead-2", range(4, 6))
        store.pack_idle()
        assert [path.name for path in store.logs.iterdir()] == [f"{leases.worker.id}-0.log"]
    assert len(store.finished()) == 6


def test_a_cell_that_is_there_twice_is_read_once(store: Store) -> None:
    names = fill(store, "w-1", range(3))
    packed(store)
    fill(store, "w-2", range(1, 4))
    rows = [each for table in store.tables(set(store.finished())) for each in table.to_pylist()]
    assert sorted((each["seed"], each["size"]) for each in rows) == [(s, m) for s in range(4) for m in (8, 16)]
    assert store.read(names[1]) == cell(1)[1]


def keep_grids(results: Path, first: int) -> None:
    for seed in range(first, first + 40):
        member = Member(f"{seed:016d}", "uniform", f"seed={seed}")
        Store(results).record(Manifest("one", "smoke", [member], [f"seed={seed}"]))


def test_grids_that_many_runs_record_at_once_are_all_kept(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=keep_grids, args=(store.results, 40 * k)) for k in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    members = store.manifest("smoke", "one").members
    assert {member.label for member in members} == {f"seed={seed}" for seed in range(160)}
    assert len(members) == 160
    store.record(Manifest("one", "smoke", members[:2], []))  # the file's own grid makes them obsolete
    assert store.manifest("smoke", "one").members == members[:2]
    assert len(list((store.cells / "index" / "smoke" / "one").iterdir())) == 1


def test_the_grid_of_before_counts_as_the_first_run(store: Store) -> None:
    path = store.cells / "index" / "smoke" / "one.json"
    path.parent.mkdir(parents=True)
    path.write_text(
        '{"experiment": "one", "tier": "smoke", "members": [{"cell": "a", "arm": "b", "label": "c"}], "overrides": []}'
    )
    assert store.manifest("smoke", "one") == Manifest("one", "smoke", [Member("a", "b", "c")], [])
    assert store.experiments("smoke") == ["one"]
    store.record(Manifest("one", "smoke", [Member("d", "e", "f")], ["seed=1"]))
    assert [member.cell for member in store.manifest("smoke", "one").members] == ["a", "d"]
