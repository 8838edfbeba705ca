"""Dashboards, read back from the files that W&B writes: what docs/dashboards.md lists, and the table's own numbers."""

import importlib.util
import itertools
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attention_coresets.study import job
from attention_coresets.study.curves import placed, points, statistics, summary
from attention_coresets.study.disk import StudyError
from attention_coresets.study.table import COLUMNS, read_table, to_frame
from attention_coresets.study.wandb_runs import Dashboard, GrowingTable
from command_line import REPOSITORY, Shell, script
from napping import Folder, ended
from synthetic_results import synthetic_table
from wandb_files import Written, written

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb"),
    pytest.mark.filterwarnings("default"),  # W&B's own
]
PAGE = (REPOSITORY / "docs" / "dashboards.md").read_text(encoding="utf-8")
SOURCES = {"sweep", "arm", "cell", "results"}


@pytest.fixture
def shell(tmp_path: Path, monkeypatch, capfd) -> Shell:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    return Shell(tmp_path, monkeypatch, capfd)


def listed(section: str) -> set[str]:
    """The names in the first column of a section's tables."""
    part = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    firsts = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return set(re.findall(r"`([^`]+)`", " ".join(firsts)))


def columns_listed(table: str) -> list[str]:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{table}` |"))
    return re.findall(r"`(\w+)`", line.split("|")[3])


def general(key: str) -> str:
    """A key as the page lists it."""
    name, slash, _ = key.partition("/")
    if name in ("progress", "figures"):
        return key if name == "progress" else "figures/NAME"
    name = re.sub(r"_at_\d+$", "_at_M", name)
    return re.sub(r"^size_for_[\d_]+$", "size_for_EPSILON", name) + (slash and "/SETTING")


def keys(run: Written) -> tuple[set[str], set[str], set[str]]:
    """Metrics, summaries and configuration keys, as the page lists them."""
    config = {f"{key}.*" if isinstance(value, dict) else key for key, value in run.config.items()}
    scalars = {key for key, value in run.summary.items() if not isinstance(value, dict)}
    return {general(key) for point in run.points for key in point}, set(map(general, scalars)), config


def replayed(shell: Shell, *arguments: str) -> list[Written]:
    outputs = shell.directory / "replay"
    outcome = shell._run("publish_wandb", ["--outputs", str(outputs), "--results", str(shell.results), *arguments])
    assert outcome.code == 0, outcome.err
    return written(outputs)


def fails_for(arm: str, monkeypatch):
    """One arm's cells fail from here on."""
    run_cell = job.run_cell

    def fails(config):
        if config["arm"] == arm:
            raise RuntimeError("no luck")
        return run_cell(config)

    monkeypatch.setattr(job, "run_cell", fails)


def test_live_and_replay_are_the_page_and_the_table(shell: Shell, monkeypatch) -> None:
    assert shell.probe("tracking=wandb").code == 0
    assert shell.collect("--tier", "smoke").code == 0
    monkeypatch.setattr("attention_coresets.analysis.report.gallery.FIGURES", {})
    live, replay = written(shell.outputs), replayed(shell, "--tier", "smoke")
    table = read_table(shell.results / "smoke" / "table.parquet")
    assert len({run.id for run in (*live, *replay)}) == len(live) + len(replay) == 4 + 5

    assert [(run.job_type, run.name) for run in live] == [
        ("arm", "halving_unweighted"),
        ("arm", "uniform"),
        ("arm", "walk_tilted"),
        ("sweep", "probe smoke"),
    ]
    for run in live[:3]:
        holds_the_table(run, table.loc[table["arm"] == run.name])
    same_but_for_source(live, replay)
    (sweep,) = (run for run in live if run.job_type == "sweep")
    assert Counter(row["state"] for row in sweep.tables["cells"]) == {"computed": 6}
    last = sweep.points[-1]
    assert (last["progress/finished"], last["progress/failed"], last["progress/left"]) == (6, 0, 0)
    assert last["progress/seconds_left"] == 0
    metrics, summaries, config = (set().union(*each) for each in zip(*map(keys, (*live, *replay)), strict=True))
    assert metrics <= listed("Metrics")
    assert summaries <= listed("Summaries")
    assert config == listed("Configurations") - {"cell", "setting", "replicate"}
    assert {key for run in live for key in run.tables} == {"rows", "cells"}


def holds_the_table(run: Written, table: pd.DataFrame) -> None:
    """To the last digit: rows as they are, and medians and quartiles of each setting, here the whole arm."""
    columns = columns_listed("rows")
    assert run.columns["rows"] == columns
    assert in_order(run.tables["rows"]) == in_order(records(placed(table), columns))
    (setting,) = {row["setting"] for row in run.tables["rows"]}
    letters = re.sub(r"\W", "_", setting)
    for name in ("error", "constant", "seconds_construct", "seconds_adversary"):
        errors = {size: own[name].to_list() for size, own in table.groupby("size")}
        assert run.curve(f"{name}_median/{letters}") == {size: middle(values) for size, values in errors.items()}
    for word, weight in (("q25", 0.25), ("q75", 0.75)):
        for size, found in run.curve(f"error_{word}/{letters}").items():
            low, high = sorted(table.loc[table["size"] == size, "error"])  # of two, in proportion
            assert found == pytest.approx(low + weight * (high - low), rel=1e-14)
    assert run.summary["cells_finished"] == 2
    for size in (8, 16):
        assert run.summary[f"error_at_{size}/{letters}"] == run.curve(f"error_median/{letters}")[size]
    assert run.config["cache"] == {"name": "clusters", "n": 64, "d": 4, "clusters": 32, "concentration": 20.0}
    assert (run.config["seed"], run.config["sizes"], run.config["rho"]) == ([0, 1], [8, 16], 1)
    assert run.config["device"] == table["device"].iloc[0]


def middle(values: list[float]) -> float:
    low, high = sorted(values)
    return low + 0.5 * (high - low)


def records(rows: pd.DataFrame, columns: list[str]) -> list[dict]:
    """Rows in plain Python, NaN as None."""
    plain = rows[columns].to_dict("records")
    return [{key: None if value != value else value for key, value in row.items()} for row in plain]


def in_order(rows: list[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: [row[key] for key in ("cell", "size", "head")])


def same_but_for_source(live: list[Written], replay: list[Written]) -> None:
    by_name = {(run.job_type, run.name): run for run in replay}
    for run in live:
        other = by_name[run.job_type, run.name]
        assert run.config | {"source": "replay"} == other.config
        assert (run.tags, run.group) == (
            [tag.replace("replay", "live") for tag in other.tags],
            other.group.replace("replay", "live"),
        )
        told = {key: value for key, value in run.summary.items() if key not in ("cells_failed", "cells_left", "cells")}
        assert told.keys() == other.summary.keys() - {"cells"}
        if run.job_type == "arm":
            assert in_order(run.tables["rows"]) == in_order(other.tables["rows"])
            assert run.points == other.points
            numbers = {key for key in told if key not in ("rows", "seconds")}
            assert {key: told[key] for key in numbers} == {key: other.summary[key] for key in numbers}
            assert told["seconds"] == pytest.approx(other.summary["seconds"], rel=1e-12)  # added in another order


def test_failures_and_what_was_done_before_leave_their_trace(shell: Shell, monkeypatch) -> None:
    """And a sweep that is resumed has every cell once."""
    with monkeypatch.context() as patch:
        fails_for("uniform", patch)
        assert shell.probe("tracking=wandb").code == 1
    before = {run.name: run for run in written(shell.outputs)}
    states = {(row["arm"], row["state"], row["message"]) for row in before["probe smoke"].tables["cells"]}
    done = {(arm, "computed", "") for arm in ("halving_unweighted", "walk_tilted")}
    assert states == done | {("uniform", "failed", "RuntimeError: no luck")}
    assert before["uniform"].summary == {"cells_finished": 0, "seconds": 0, "cells_failed": 2, "cells_left": 0}
    assert {name: run.exit_code for name, run in before.items()} == {
        **{"uniform": 1, "probe smoke": 1},
        **{"halving_unweighted": 0, "walk_tilted": 0},
    }
    assert shell.probe("tracking=wandb").code == 0
    after = {run.name: run for run in written(shell.outputs)}
    assert {name: run.id for name, run in after.items()} == {name: run.id for name, run in before.items()}
    cells = after["probe smoke"].tables["cells"]
    assert Counter((row["arm"] == "uniform", row["state"]) for row in cells) == {
        (True, "computed"): 2,
        (False, "already done"): 4,
    }
    was, now = ({key: in_order(rows) for key, rows in runs["walk_tilted"].tables.items()} for runs in (before, after))
    assert now == was  # in whichever order the cells came
    assert all(run.exit_code == 0 for run in after.values())


def test_a_run_for_each_cell(shell: Shell, monkeypatch) -> None:
    fails_for("halving_unweighted", monkeypatch)
    assert shell.probe("tracking=wandb", "tracking.per=cell", "seed=0").code == 1
    *cells, _ = written(shell.outputs)
    names = ["halving_unweighted", "uniform", "walk_tilted"]
    setting = "clusters n=64 d=4 clusters=32 concentration=20 rho=1"
    assert [run.name for run in cells] == [f"{name} {setting} seed=0" for name in names]
    failed, *finished = cells
    assert (failed.summary["message"], failed.exit_code, failed.tables) == ("RuntimeError: no luck", 1, {})
    assert keys(failed)[1] <= listed("Summaries")
    for run in finished:
        assert (run.config["rho"], run.config["seed"], run.config["n"], run.config["heads"]) == (1, 0, 64, 1)
        assert keys(run)[2] == listed("Configurations") - {"per", "arms"}
        for name in ("error_at_8", "error_at_16"):  # under a name that all cells share
            assert run.summary[name] == run.summary[f"{name}/{re.sub(r'[^A-Za-z0-9]', '_', setting)}"]
        assert keys(run)[1] <= listed("Summaries")
        assert len(run.curve(f"error_median/{re.sub(r'[^A-Za-z0-9]', '_', setting)}")) == 2


def test_a_cell_alone_is_there_once(shell: Shell) -> None:
    small = ("cache=sphere", "cache.n=16", "cache.d=2", "sizes=[4]", "adversary=tiny", "coreset=uniform")
    for _ in range(2):
        assert shell.sweep(*small, "tracking=wandb").code == 0
    (run,) = written(shell.outputs)
    assert (run.job_type, run.name) == ("cell", "uniform sphere n=16 d=2 rho=1 seed=0")
    assert len(run.tables["rows"]) == 1


def test_language_cells_and_results_of_ones_own(shell: Shell, monkeypatch) -> None:
    """What language cells have is there and what they have not is not; claims and figures are those of the folder."""
    rows = synthetic_table().query("experiment == 'real_language'")
    rows = rows.assign(**{name: default(kind) for name, kind in COLUMNS.items() if name not in rows})
    rows["cell"] += rows["cache_params"]
    path = shell.results / "quick" / "table.parquet"
    path.parent.mkdir(parents=True)
    rows.to_parquet(path)
    publish = script("publish_wandb")
    name = next(name for name, (of, _) in publish.FIGURES.items() if of == "real_language")
    for figure in set(publish.FIGURES) - {name}:
        monkeypatch.delitem(publish.FIGURES, figure)
    *arms, results, _ = replayed(shell, "--tier", "quick")
    assert {run.name for run in arms} == set(rows["arm"])
    for run in arms:
        found = {general(key).removesuffix("/SETTING") for point in run.points for key in point}
        told = {f"{name}_{word}" for name in ("loss", "kl") for word in ("median", "q25", "q75")}
        told |= {f"{name}_median" for name in ("kl_p99", "agreement", "needle_found")}
        assert found == told | {"size", "seconds_construct_median", "seconds_adversary_median"}
        assert not any(math.isnan(value) for point in run.points for value in point.values())
        own = rows.loc[(rows["arm"] == run.name) & rows["cache_params"].str.contains("code")]
        expected = own.groupby("size")["loss"].median().to_dict()
        assert run.curve("loss_median/model_n_2048_d_64_text_code_rho_4") == pytest.approx(expected, rel=1e-14)
    assert results.columns["claims"] == columns_listed("claims")
    assert list(results.pictures) == [f"figures/{name}"]
    drawn = shell.directory / "replay" / "figures" / "quick" / f"{name}.png"
    assert results.pictures[f"figures/{name}"].read_bytes() == drawn.read_bytes()


def default(kind: str):
    return {"str": "", "bool": False, "int64": 0}.get(kind, math.nan)


def full_row() -> pd.DataFrame:
    """A row that has a value in every column."""
    row = to_frame([dict.fromkeys(COLUMNS, 0.0) | {name: "" for name, kind in COLUMNS.items() if kind == "str"}])
    return row.assign(cache_params="{}", coreset_params="{}")


def test_a_row_that_has_everything_has_every_metric_and_summary_that_the_page_lists() -> None:
    curves = statistics(placed(full_row().assign(size=8, error=0.05)))
    (point,) = points(curves)
    progress = {name for name in listed("Metrics") if name.startswith("progress/")}
    assert {general(key) for key in point} | progress == listed("Metrics")
    assert set(map(general, summary(curves))) == {name for name in listed("Summaries") if name.endswith("/SETTING")}


def test_settings_are_never_pooled() -> None:
    """n, d, rho and every parameter of a cache keep curves apart; heads, seeds and draws do not."""
    base = full_row()
    changes: list[dict] = [{"rho": 2.0}, {"cache": "product"}, {"objective": "own"}]
    changes += [{"cache_params": f'{{"n": {n}, "d": {d}, "x": {x}}}'} for n, d, x in ((1, 2, 3), (1, 2, 4), (2, 2, 3))]
    apart = pd.concat([base.assign(cell=str(k), **change) for k, change in enumerate([{}, *changes])])
    assert len(statistics(placed(apart))) == len(apart) == 7
    pooled = pd.concat([base.assign(cell=str(k), seed=k, draw=k, head=k, error=float(k)) for k in range(5)])
    ((_, curve),) = statistics(placed(pooled)).items()
    (found,) = curve.values()
    assert (found["error_q25"], found["error_median"], found["error_q75"]) == (1.0, 2.0, 3.0)


def test_size_for_an_error_is_fixed_from_above() -> None:
    """A size that is good by luck below one that is not does not count."""
    errors = {8: 0.25, 16: 0.09, 32: 0.2, 64: 0.1, 128: 0.02}
    curve = {size: {"error_median": error} for size, error in errors.items()}
    found = summary({"s": curve})
    assert {key: value for key, value in found.items() if key.startswith("size_for")} == {
        **{"size_for_0_3/s": 8, "size_for_0_1/s": 64, "size_for_0_03/s": 128},
    }
    assert [point["size"] for point in points({"s": curve})] == [8, 16, 32, 64, 128]


def test_ids_do_not_collide(tmp_path: Path) -> None:
    names = (("arm", "z"), ("cell", "z"))
    parts = itertools.product(("a", "b"), ("live", "replay"), ("quick", "full"), ("x", "y"), names)
    ids = [
        Dashboard(tmp_path / folder, tmp_path, "p", source, tier, sweep, "e").id(*names)
        for folder, source, tier, sweep, names in parts
    ]
    assert len(set(ids)) == len(ids) == 32
    assert all(re.fullmatch(r"[a-z0-9-]{1,64}", id) for id in ids)


def test_a_second_writer_is_refused_in_words(tmp_path: Path) -> None:
    dashboard = Dashboard(tmp_path, tmp_path, "p", "live", "quick", "x", "e")
    refused = pytest.raises(StudyError, match="another process writes the dashboard of x")
    with dashboard.alone(), refused, dashboard.alone():
        pass
    with dashboard.alone():
        pass


def test_increments_are_few_and_hold_every_row_once(tmp_path: Path) -> None:
    logged = []

    class Run:
        def log(self, values):
            (table,) = values.values()
            logged.append(len(table.data))

    table = GrowingTable(Run(), "rows", {"x": "float64", "name": "str"})
    for start in range(300):
        table.add(pd.DataFrame({"x": [start], "name": "a"}))
    table.add(pd.DataFrame({"x": np.arange(300, 15000), "name": "a"}))
    table.flush()
    assert len(logged) < 100
    assert max(np.diff(logged)) <= 5000
    assert [row[0] for row in table._table.data] == list(range(15000))


@pytest.mark.slow
def test_a_killed_sweep_that_is_resumed_has_every_cell_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 0.5, 24)
    head = folder.start("tracking=wandb")
    folder.until(lambda posts: posts["computed"] >= 6)
    head.kill()
    head.communicate()
    code, err = ended(folder.start("tracking=wandb"))
    assert code == 0, err
    runs = {run.job_type: run for run in written(tmp_path / "outputs")}
    cells = [row["cell"] for row in runs["sweep"].tables["cells"]]
    assert len(set(cells)) == len(cells) == 24
    assert Counter(row["cell"] for row in runs["arm"].tables["rows"]) == Counter(cells)
    states = Counter(row["state"] for row in runs["sweep"].tables["cells"])
    assert states["already done"] >= 6
    assert states["computed"] == 24 - states["already done"] > 0
