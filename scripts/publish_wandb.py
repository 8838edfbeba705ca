"""Replay committed results into W&B runs, with the dashboard's panels as code.

python scripts/publish_wandb.py [--tier reduced] [--experiment NAME ...] [--project attention-coresets]

One run a cell (group = experiment, the cell in its configuration): its error and constant by size. One run "dashboard":
tables of cells, exponents and claims; charts of error against size for each experiment and of the exponents; the
figures.
Offline by default, no account needed: files go to outputs/wandb. See them with `wandb leet outputs/wandb`, or upload
them with `wandb login` and `wandb sync outputs/wandb/offline-run-*`. WANDB_MODE=online publishes at once.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from attention_coresets.analysis.parts.results import Results, ResultsError, load
from attention_coresets.analysis.report.decided import decided
from attention_coresets.study.checks import TIERS
from attention_coresets.study.tracking import open_run

REPOSITORY = Path(__file__).resolve().parents[1]
BY_SIZE = [
    *("error", "constant", "heldout_mean", "heldout_p99", "loss", "kl", "needle_found", "seconds_construct"),
    "seconds_adversary",
]
CELL = ["experiment", "cell", "arm", "cache", "coreset", "model", "rho", "seed", "n", "d", "cache_params", "revision"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tier", choices=TIERS, default="reduced")
    parser.add_argument("--experiment", nargs="*", help="only these experiments; default: all in the table")
    parser.add_argument("--project", default="attention-coresets")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results")
    parser.add_argument("--outputs", type=Path, default=REPOSITORY / "outputs")
    options = parser.parse_args()
    try:
        results = load(options.results / options.tier)
    except ResultsError as error:
        print(f"publish_wandb: {error}", file=sys.stderr)
        return 2
    known = sorted(results.table["experiment"].unique())
    wanted = options.experiment or known
    if unknown := sorted(set(wanted) - set(known)):
        reason = f"no such experiment in the table: {', '.join(unknown)}; it has {', '.join(known)}"
        print(f"publish_wandb: {reason}", file=sys.stderr)
        return 2
    table = results.table.loc[results.table["experiment"].isin(wanted)]
    try:
        options.outputs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"publish_wandb: cannot write to {options.outputs}: {error.strerror}; make it writable", file=sys.stderr)
        return 2
    cells = publish_cells(table, options.tier, options.project, options.outputs)
    publish_dashboard(results, table, options.project, options.outputs)
    print(f"{cells} cell runs and 1 dashboard run in {options.outputs / 'wandb'}")
    print(f"see them:    wandb leet {options.outputs / 'wandb'}")
    print(f"upload them: wandb sync {options.outputs / 'wandb'}/offline-run-*")
    return 0


def publish_cells(table: pd.DataFrame, tier: str, project: str, outputs: Path) -> int:
    """A run for each cell, one step a size, means over the cell's heads; how many."""
    groups = table.groupby(["experiment", "cell"], sort=False)
    for _, rows in tqdm(groups, total=groups.ngroups, desc="cells", unit="run"):
        first = rows.iloc[0]
        run = open_run(
            outputs,
            project=project,
            group=first["experiment"],
            id=first["cell"],
            name=f"{first['arm']} {first['cache']} rho={first['rho']:g} seed={first['seed']}",
            tags=[tier],
            config={key: first[key].item() if hasattr(first[key], "item") else first[key] for key in CELL},
        )
        run.define_metric("*", step_metric="size")
        for size, at in rows.groupby("size"):
            run.log({"size": size, **at[BY_SIZE].mean().dropna().to_dict()})
        run.finish()
    return groups.ngroups


def publish_dashboard(results: Results, table: pd.DataFrame, project: str, outputs: Path) -> None:
    """The panels: state of cells, error against size, exponents with intervals, claims, figures."""
    import wandb

    run = open_run(
        outputs, project=project, group="dashboard", id=f"dashboard-{results.tier}", name=f"dashboard {results.tier}"
    )
    panels: dict[str, Any] = {
        "cells/state": wandb.Table(dataframe=_state(table)),
        "exponents/table": wandb.Table(dataframe=_exponents(results)),
        "claims/table": wandb.Table(dataframe=_claims(results)),
    }
    panels["exponents/chart"] = wandb.plot.bar(panels["exponents/table"], "law", "value", title="Fitted exponents")
    for experiment, rows in table.groupby("experiment"):
        panels[f"error_against_size/{experiment}"] = _error_chart(rows, str(experiment))
    for picture in sorted((REPOSITORY / "figures" / results.tier).glob("*.png")):
        panels[f"figures/{picture.stem}"] = wandb.Image(str(picture))
    run.log(panels)
    run.finish()


def _state(table: pd.DataFrame) -> pd.DataFrame:
    grouped = table.assign(seconds=table["seconds_construct"] + table["seconds_adversary"]).groupby("experiment")
    state = grouped.agg(
        cells=("cell", "nunique"), rows=("error", "size"), seconds=("seconds", "sum"), dirty=("dirty", "any")
    )
    return state.reset_index()


def _exponents(results: Results) -> pd.DataFrame:
    rows = [
        {
            "law": f"{fit['name']} {' '.join(map(str, fit['fixed'].values()))} {symbol}",
            **{k: found[k] for k in ("value", "low", "high")},
        }
        for fit in results.fits
        if fit["status"] == "fitted"
        for symbol, found in fit["coefficients"].items()
    ]
    return pd.DataFrame(rows, columns=["law", "value", "low", "high"])


def _claims(results: Results) -> pd.DataFrame:
    rows = []
    for outcome in decided(results).values():
        claim = outcome.claim
        parts = "; ".join(f"{part.setting}: {part.estimate.value:.3g}" for part, _ in outcome.parts)
        rows.append({"claim": claim.statement, "models": claim.models, "measured": parts, "status": outcome.status})
    return pd.DataFrame(rows, columns=["claim", "models", "measured", "status"])


def _error_chart(rows: pd.DataFrame, title: str):
    """Median worst-case error (loss, where a language model ran) by size, a line for each arm and cache family."""
    import wandb

    name = "error" if len(rows["error"].dropna()) else "loss"
    median = rows.groupby(["arm", "cache", "size"], as_index=False)[name].median()
    median = median.assign(line=median["arm"] + " " + median["cache"])  # groupby has put the sizes in order
    lines = [(str(line), at) for line, at in median.groupby("line")]
    return wandb.plot.line_series(
        xs=[at["size"].tolist() for _, at in lines],
        ys=[at[name].tolist() for _, at in lines],
        keys=[line for line, _ in lines],
        title=f"{title}: median {'worst-case error' if name == 'error' else name} against size",
        xname="size",
    )


if __name__ == "__main__":
    sys.exit(main())
