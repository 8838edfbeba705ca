"""Cells on disk: what names them, what they hold, which belong to an experiment, and the table they become."""

import copy
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_coresets.study.disk import StudyError
from attention_coresets.study.identity import cell_hash, identity
from attention_coresets.study.store import Manifest, Member, Store
from attention_coresets.study.table import COLUMNS, LABELS, gather, merge, read_table, to_frame, write_table

CONFIG = {
    "cache": {"name": "sphere", "n": 32, "d": 4},
    "coreset": {"name": "uniform", "sinks": 0},
    "rho": 1.0,
    "seed": 0,
    "heads": 1,
    "sizes": [8],
    "adversary": {"restarts": 8, "steps": 10, "polish": 5, "certify": False},
    "compute": {"device": "auto", "dtype": "float64", "threads": None},
    "tracking": {"name": "none", "project": "p"},
    "paths": {"results": "here", "outputs": "there"},
    "experiment": "one",
    "tier": "smoke",
    "arm": "uniform",
}
FILLER = {"str": "x", "float64": 0.5, "int64": 1, "bool": False}


def changed(key: str, value) -> dict:
    config = copy.deepcopy(CONFIG)
    *parents, last = key.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    return config


def row(cell: str, **values) -> dict:
    return {name: FILLER[kind] for name, kind in COLUMNS.items() if name not in LABELS} | {"cell": cell} | values


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def keep(store: Store, seed: int) -> str:
    config = changed("seed", seed)
    store.write(config, [row(cell_hash(config), seed=seed, size=size) for size in (8, 16)])
    return cell_hash(config)


@pytest.mark.parametrize(
    "change",
    [
        ("compute.device", "cuda"),
        ("compute.threads", 2),
        ("tracking.name", "wandb"),
        ("paths.results", "elsewhere"),
        ("experiment", "two"),
        ("tier", "full"),
        ("arm", "other"),
    ],
)
def test_hash_ignores_what_changes_no_number(change) -> None:
    assert cell_hash(changed(*change)) == cell_hash(CONFIG)


@pytest.mark.parametrize(
    "change",
    [
        ("cache.n", 64),
        ("coreset.sinks", 4),
        ("rho", 2.0),
        ("seed", 1),
        ("heads", 2),
        ("sizes", [8, 16]),
        ("adversary.steps", 11),
        ("compute.dtype", "float32"),
    ],
)
def test_hash_sees_what_changes_numbers(change) -> None:
    assert cell_hash(changed(*change)) != cell_hash(CONFIG)


@given(st.permutations(list(CONFIG)))
def test_hash_does_not_depend_on_the_order_of_keys(order) -> None:
    assert cell_hash({key: CONFIG[key] for key in order}) == cell_hash(CONFIG)


def test_parameters_that_came_later_do_not_rename_old_cells():
    later = {"refinement": "none", "form": "gram", "rank": None}
    assert cell_hash(CONFIG | {"coreset": CONFIG["coreset"] | later}) == cell_hash(CONFIG)
    for key, value in (("refinement", "kernel_swaps"), ("form", "random_features"), ("rank", 64)):
        assert cell_hash(CONFIG | {"coreset": CONFIG["coreset"] | later | {key: value}}) != cell_hash(CONFIG)


def test_rows_come_back_as_they_were(store: Store) -> None:
    assert store.read(cell_hash(CONFIG)) is None
    rows = [row(cell_hash(CONFIG), error=1 / 3, size=8)]
    assert store.write(CONFIG, rows) == cell_hash(CONFIG)
    assert store.read(cell_hash(CONFIG)) == rows
    assert list(store.finished()) == [cell_hash(CONFIG)]


def write_older(store: Store, content: str | None = None) -> Path:
    """A cell as it was kept before there were logs."""
    path = store.cells / f"{cell_hash(CONFIG)}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content or json.dumps({"config": CONFIG, "rows": [row(cell_hash(CONFIG), error=1 / 3)]}, indent=1))
    return path


def test_cells_in_files_of_their_own_are_read(store: Store) -> None:
    write_older(store)
    assert store.read(cell_hash(CONFIG)) == [row(cell_hash(CONFIG), error=1 / 3)]
    assert list(store.finished()) == [cell_hash(CONFIG)]
    assert store.intact(cell_hash(CONFIG))


TAMPERED = json.dumps({"config": changed("rho", 9.0), "rows": [row("x")]})


@pytest.mark.parametrize("content", ["[", "{", "[]", '{"rows": [1]}', '{"config": 3, "rows": []}', TAMPERED])
def test_a_damaged_file_of_a_cell_is_set_aside_and_named(store: Store, capsys, content: str) -> None:
    path = write_older(store, content)
    assert not store.intact(cell_hash(CONFIG))
    said = capsys.readouterr().err
    assert f"note: {path} is damaged" in said
    assert "its cells are computed again" in said
    assert path.with_name(f"{path.name}.damaged").read_text() == content
    assert store.read(cell_hash(CONFIG)) is None
    assert list(store.finished()) == []


def manifest(*cells: str, overrides: tuple[str, ...] = ()) -> Manifest:
    return Manifest("one", "smoke", [Member(cell, "uniform", f"cell {cell[:4]}") for cell in cells], list(overrides))


def test_table_holds_the_present_grid_and_no_stale_cell(store: Store) -> None:
    a, b, c = (keep(store, seed) for seed in range(3))
    store.record(manifest(a, b))
    store.record(manifest(b, c))  # the experiment's file has changed
    gathered = gather(store, "smoke", "one")
    assert set(gathered.rows["cell"]) == {b, c}
    assert gathered.missing == []


def test_a_run_with_overrides_adds_to_the_grid(store: Store) -> None:
    a, b, c = (keep(store, seed) for seed in range(3))
    store.record(manifest(a, b))
    store.record(manifest(b, c, overrides=("seed=1,2",)))
    gathered = gather(store, "smoke", "one")
    assert set(gathered.rows["cell"]) == {a, b, c}
    assert gathered.manifest.overrides == ["seed=1,2"]


def test_missing_cells_are_listed_by_label(store: Store) -> None:
    a = keep(store, 0)
    store.record(manifest(a, "f" * 16))
    gathered = gather(store, "smoke", "one")
    assert gathered.missing == ["cell ffff"]
    assert len(gathered.rows) == 2


def test_a_cell_shared_by_experiments_and_arms_takes_their_labels(store: Store) -> None:
    a = keep(store, 0)
    for experiment, tier in (("one", "smoke"), ("two", "quick")):
        store.record(Manifest(experiment, tier, [Member(a, arm, arm) for arm in ("first", "second")], []))
    for experiment, tier in (("one", "smoke"), ("two", "quick")):
        rows = gather(store, tier, experiment).rows
        assert set(rows["experiment"]) == {experiment}
        assert set(rows["tier"]) == {tier}
        assert list(rows["arm"]) == ["first", "first", "second", "second"]
    assert store.experiments("smoke") == ["one"]


def test_damaged_manifest_is_refused(store: Store) -> None:
    path = store.cells / "index" / "smoke" / "one.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"members": [{"cell": "a"}]}')
    with pytest.raises(StudyError, match="is damaged"):
        gather(store, "smoke", "one")


def test_table_keeps_experiments_that_were_not_run_here(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "smoke" / "table.parquet"
    a, b = keep(store, 0), keep(store, 1)
    store.record(manifest(a))
    committed = to_frame([row("0" * 16) | {"experiment": e, "tier": "smoke", "arm": "x"} for e in ("one", "elsewhere")])
    write_table(committed, path)
    store.record(manifest(a, b))
    table, kept = merge([gather(store, "smoke", "one")], path)
    assert kept == ["elsewhere"]
    assert set(table.loc[table["experiment"] == "one", "cell"]) == {a, b}
    rebuilt, kept = merge([gather(store, "smoke", "one")], path, keep=False)
    assert kept == []
    assert set(rebuilt["experiment"]) == {"one"}


def test_table_survives_parquet(store: Store, tmp_path: Path) -> None:
    store.record(manifest(keep(store, 0)))
    table = gather(store, "smoke", "one").rows
    write_table(table, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), table)
    assert list(table.columns) == list(COLUMNS)


def test_rows_of_another_version_are_refused() -> None:
    odd = row("abc", extra=1) | {"experiment": "one", "tier": "smoke", "arm": "x"}
    del odd["error"]
    with pytest.raises(StudyError, match=r"cells abc: columns error, extra do not fit"):
        to_frame([odd])


YOUNGER = ("floor_i", "floor_ii", "floor_iv", "floor_v")


def test_older_rows_and_tables_get_what_they_would_hold_now(tmp_path: Path) -> None:
    old = row("abc") | {"experiment": "one", "tier": "smoke", "arm": "x"}
    for name in YOUNGER:
        del old[name]
    table = to_frame([old])
    assert list(table.columns) == list(COLUMNS)
    assert table[list(YOUNGER)].isna().all(axis=None)
    table.drop(columns=list(YOUNGER)).to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), table)


def test_tables_of_the_floor_before_are_read_and_cells_with_its_values_refused(tmp_path: Path) -> None:
    """floor_iii stood where floor_v stands: a table's other floors still hold, cells with it would mix two sets."""
    labels = {"experiment": "one", "tier": "smoke", "arm": "x"}
    table = to_frame([row("abc") | labels])
    before = table.drop(columns="floor_v").assign(floor_i=0.2, floor_iii=0.1)
    before.to_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")
    assert list(found.columns) == list(COLUMNS)
    assert found["floor_i"].tolist() == [0.2]
    assert found["floor_v"].isna().all()
    old = {key: value for key, value in row("abc").items() if key != "floor_v"} | labels
    pd.testing.assert_frame_equal(to_frame([old | {"floor_iii": math.nan}]), to_frame([old]))
    with pytest.raises(StudyError, match=r"columns floor_iii do not fit; delete the cells"):
        to_frame([old | {"floor_iii": 0.1}, row("def") | labels])


def test_cells_whose_rows_had_no_floors_at_first_have_a_new_name() -> None:
    """Signed clusters with orthonormal centres are computed anew; all other cells keep the name they had."""
    shape = {"name": "signed_clusters", "d": 4}
    versions = [
        identity(changed("cache", cache))["format"]
        for cache in (CONFIG["cache"], shape | {"n": None, "clusters": 6}, shape | {"n": 24, "clusters": None})
    ]
    assert versions == [1, 1, 1]
    for cache in (shape | {"n": None, "clusters": 4}, shape | {"n": 8, "clusters": None}):
        assert identity(changed("cache", cache))["format"] == 2


def test_missing_and_damaged_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "smoke" / "table.parquet"
    with pytest.raises(StudyError, match=r"is missing: run `python scripts/collect.py --tier smoke`"):
        read_table(path)
    path.parent.mkdir()
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(StudyError, match=r"is damaged .*collect again"):
        read_table(path)
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(StudyError, match="other columns"):
        read_table(path)


def test_a_cell_is_in_the_table_once_whatever_its_labels(store: Store) -> None:
    """What a label leaves out depends on what else a run sweeps, and a value may be written in two ways."""
    a, b = (keep(store, seed) for seed in range(2))
    whole = [Member(a, "uniform", "seed=0 rho=1"), Member(a, "uniform", "seed=0 rho=1.0"), Member(b, "uniform", "b")]
    store.record(Manifest("one", "smoke", whole, []))
    store.record(Manifest("one", "smoke", [Member(a, "uniform", "the only cell")], ["seed=0"]))
    rows = gather(store, "smoke", "one").rows
    assert rows["cell"].value_counts().to_dict() == {cell: len(store.read(cell)) for cell in (a, b)}


def test_what_overlapping_grids_have_in_common_is_in_the_table_once(store: Store) -> None:
    """The cells differ, as more heads or other sizes were asked for; some of their rows are the same measurement."""
    cells = []
    for change, heads, sizes in (("rho", 1, [8]), ("heads", 3, [8]), ("sizes", 1, [8, 16]), ("sizes", 1, [16, 32])):
        config = changed(change, {"rho": 2.0, "heads": heads, "sizes": sizes}[change])
        cells.append(cell_hash(config))
        store.write(config, [row(cells[-1], head=head, size=size) for head in range(heads) for size in sizes])
        store.record(manifest(*cells[-1:], overrides=(f"{change}=x",)))
    gathered = gather(store, "smoke", "one")
    assert gathered.missing == []
    apart = gathered.rows["cell"] == cells[0]  # another rho is another measurement
    assert apart.sum() == 1
    found = gathered.rows.loc[~apart, ["head", "size"]]
    assert sorted(found.itertuples(index=False, name=None)) == [(0, 8), (0, 16), (0, 32), (1, 8), (2, 8)]
