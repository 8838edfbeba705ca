"""The workspace as code: it comes back as it was sent, and its panels show what the dashboards hold."""

import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("wandb_workspaces")

from attention_coresets.study.curves import placed, points, statistics, summary
from attention_coresets.study.table import read_table
from command_line import REPOSITORY, Shell, script

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def made():
    return script("wandb_workspace")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rows = placed(read_table(REPOSITORY / "results" / "quick" / "table.parquet"))
    return rows.loc[rows["experiment"].isin(["league", "epsilon_rate", "lower_bound_orthonormal", "real_language"])]


def test_the_workspace_comes_back_as_it_was_sent(made, table) -> None:
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.workspaces.internal import View

    sent = made.workspace(table, "quick", "team", "project")
    plain = made.serialised(sent)
    back = ws.Workspace._from_model(View.model_validate(plain))
    assert [section.name for section in back.sections] == list(made.sections(table))
    assert made.serialised(back)["spec"]["section"]["panelBankConfig"] == plain["spec"]["section"]["panelBankConfig"]
    assert "quick" in str(plain["spec"]["section"]["runSets"])
    panel = back.sections[1].panels[0]
    assert (panel.x.name, panel.log_x, panel.log_y) == ("size", True, True)


def test_panels_show_metrics_that_runs_have(made, table) -> None:
    curves = [statistics(rows) for _, rows in table.groupby(["experiment", "arm"])]
    metrics = {key for each in curves for point in points(each) for key in point}
    told = {key for each in curves for key in summary(each)}
    found = made.sections(table)
    against_size = [name for name in found if "against size" in name]
    assert [name.partition(": ")[2].partition(",")[0] for name in against_size] == sorted(table["experiment"].unique())
    assert any(name.startswith("loss against size: real_language") for name in against_size)
    for name in against_size:
        assert 1 <= len(found[name]) <= made.MOST
        for panel in found[name]:
            assert set(panel.y) <= metrics
    for panel in found["floors and ceilings"]:
        assert panel.y[0] in metrics
        assert {*panel.y[1:]} & metrics
    assert {bar.name for panel in found["league"] for bar in panel.metrics} <= told
    assert found["league"]


def test_the_report_has_the_same_panels(made, table) -> None:
    report = made.report(table, "quick", "team", "project")
    headings, grids = report.blocks[::2], report.blocks[1::2]
    found = made.sections(table)
    assert [heading.text for heading in headings] == list(found)
    assert [[type(panel) for panel in grid.panels] for grid in grids] == [
        [type(panel) for panel in panels] for panels in found.values()
    ]


def test_pushing_without_a_login_is_refused_in_words(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where a login would be kept
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    outcome = Shell(tmp_path, monkeypatch, capfd)._run(
        "wandb_workspace", ["--tier", "quick", "--outputs", str(tmp_path), "--push", "team"]
    )
    assert outcome.code == 2
    assert "--push team: not logged in; run `wandb login`" in outcome.err
    assert (tmp_path / "workspace-quick.json").exists()
    sys.modules.pop("wandb_workspace", None)
