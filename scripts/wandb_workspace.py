"""The panels of a tier's dashboard as code: a W&B workspace and a report.

python scripts/wandb_workspace.py [--tier reduced] [--results DIR]     # writes outputs/workspace-TIER.json
python scripts/wandb_workspace.py --push TEAM                          # saves both in an account: `wandb login` first

The panels are those of the experiments, arms and settings in the table; the runs come from scripts/publish_wandb.py.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import json
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from attention_coresets.study.checks import TIERS
from attention_coresets.study.curves import metric, placed
from attention_coresets.study.disk import StudyError, write_atomically
from attention_coresets.study.table import read_table

REPOSITORY = Path(__file__).resolve().parents[1]
MOST = 24  # panels of an experiment
LEAGUE = ("league", "league_unseen")


def main() -> int:
    options = _parse()
    if find_spec("wandb_workspaces") is None:
        print("wandb_workspace: needs wandb-workspaces; pip install wandb-workspaces", file=sys.stderr)
        return 2
    try:
        table = placed(read_table(options.results / options.tier / "table.parquet"))
        path = options.outputs / f"workspace-{options.tier}.json"
        made = workspace(table, options.tier, options.push or "TEAM", options.project)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(serialised(made), indent=1))
        print(f"written: {path}")
        if options.push:
            _push(made, options)
    except (StudyError, OSError) as error:
        print(f"wandb_workspace: {error}", file=sys.stderr)
        return 2
    return 0


def sections(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Panels by section, in order."""
    wr = _panels()
    found: dict[str, list[Any]] = {"state of the sweeps": _state()}
    for experiment, rows in table.groupby("experiment"):
        settings = sorted(rows["setting"].unique())
        number = f"{MOST} of {len(settings)}" if len(settings) > MOST else str(len(settings))
        name = "loss" if bool(rows["error"].isna().all()) else "error"
        found[f"{name} against size: {experiment}, {number} settings"] = [
            _curves(setting, [f"{name}_median", f"{name}_q25", f"{name}_q75"]) for setting in settings[:MOST]
        ]
    bounded = table.dropna(subset=["certificate", "floor_v"], how="all")
    names = ["error_median", "certificate_median", "floor_v_median"]
    found["floors and ceilings"] = [_curves(each, names) for each in sorted(bounded["setting"].unique())[:MOST]]
    found["league"] = _league(table.loc[table["experiment"].isin(LEAGUE)])
    found["exponents with intervals"] = [wr.WeavePanelSummaryTable(table_name="exponents")]
    found["claims"] = [wr.WeavePanelSummaryTable(table_name="claims")]
    found["cells"] = [wr.WeavePanelSummaryTable(table_name="cells"), _parallel(table)]
    return {section: panels for section, panels in found.items() if panels}


def workspace(table: pd.DataFrame, tier: str, entity: str, project: str) -> Any:
    """The workspace of a tier."""
    import wandb_workspaces.workspaces as ws

    parts = [
        ws.Section(name=name, panels=panels, is_open=position < 2)
        for position, (name, panels) in enumerate(sections(table).items())
    ]
    settings = ws.WorkspaceSettings(x_axis="size", max_runs=50)
    runs = ws.RunsetSettings(filters=[ws.Config("tier") == tier])
    return ws.Workspace(
        entity=entity, project=project, name=f"coresets {tier}", sections=parts, settings=settings, runset_settings=runs
    )


def report(table: pd.DataFrame, tier: str, entity: str, project: str) -> Any:
    """The same panels as a report, under a heading each."""
    wr = _panels()
    blocks: list[Any] = []
    for name, panels in sections(table).items():
        runs = wr.Runset(entity=entity, project=project, filters=f"Config('tier') = '{tier}'")
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(project=project, entity=entity, title=f"Attention coresets, {tier}", blocks=blocks)


def _panels() -> Any:
    return import_module("wandb_workspaces.reports.v2")


def serialised(made: Any) -> dict[str, Any]:
    """What is sent to W&B, as plain JSON."""
    return made._to_model().model_dump(mode="json", by_alias=True)


def _state() -> list[Any]:
    wr = _panels()
    counts = [f"progress/{name}" for name in ("finished", "failed", "left")]
    seconds = "progress/seconds"
    return [
        wr.LinePlot(title="cells", x=seconds, y=counts),
        wr.LinePlot(title="seconds left", x=seconds, y=["progress/seconds_left"]),
    ]


def _curves(setting: str, names: list[str]) -> Any:
    """Statistics of a setting by size, a line for each arm; both axes logarithmic."""
    wr = _panels()
    keys = [metric(name, setting) for name in names]
    return wr.LinePlot(title=setting, x="size", y=keys, log_x=True, log_y=True, title_x="size", max_runs_to_show=50)


def _league(rows: pd.DataFrame) -> list[Any]:
    wr = _panels()
    pairs = sorted(set(zip(rows["size"].tolist(), rows["setting"].tolist(), strict=True)))[:MOST]
    return [
        wr.BarPlot(
            title=f"{setting}, size {size}",
            metrics=[wr.SummaryMetric(metric(f"error_at_{size}", setting))],
            max_bars_to_show=50,
        )
        for size, setting in pairs
    ]


def _parallel(table: pd.DataFrame) -> Any:
    """Cells of tracking.per=cell by what was asked of them, with the error at the size that most of them have."""
    wr = _panels()
    size = table["size"].mode().iloc[0]
    asked = [wr.Config(name) for name in ("arm", "cache.name", "n", "d", "rho", "seed")]
    columns = [wr.ParallelCoordinatesPlotColumn(metric=each) for each in asked]
    found = wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(f"error_at_{size}"), log=True)
    return wr.ParallelCoordinatesPlot(title=f"error at size {size}", columns=[*columns, found])


def _push(made: Any, options: argparse.Namespace) -> None:
    import wandb
    from wandb.errors import UsageError

    try:
        wandb.Api()
    except UsageError as error:
        raise StudyError(f"--push {options.push}: not logged in; run `wandb login` and try again") from error
    made.save()
    table = placed(read_table(options.results / options.tier / "table.parquet"))
    report(table, options.tier, options.push, options.project).save()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tier", choices=TIERS, default="reduced")
    parser.add_argument("--project", default="attention-coresets")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results", help="folder of the tiers")
    parser.add_argument("--outputs", type=Path, default=REPOSITORY / "outputs")
    parser.add_argument("--push", metavar="TEAM", help="save both in this team or user's account")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
