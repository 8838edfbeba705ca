"""Replay results into W&B runs: the same runs as a sweep with tracking=wandb writes, and one of what the tier says.

python scripts/publish_wandb.py [--tier reduced] [--experiment NAME ...] [--per cell] [--results DIR]

A run for each experiment, one for each of its arms (or cells), and one "results" with exponents, claims and figures.
Offline by default, no account needed: files go to outputs/wandb. See them with `wandb leet outputs/wandb`, or upload
them with `wandb login` and `wandb sync outputs/wandb/offline-run-*`. WANDB_MODE=online publishes at once.
docs/dashboards.md lists what is in them.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from attention_coresets.analysis.figures.style import save, style
from attention_coresets.analysis.parts.results import Results, ResultsError, load
from attention_coresets.analysis.parts.topic import HEADS_FILE
from attention_coresets.analysis.report.decided import decided
from attention_coresets.analysis.report.gallery import FIGURES, draw
from attention_coresets.study.checks import GRANULARITIES, TIERS
from attention_coresets.study.curves import placed
from attention_coresets.study.disk import StudyError
from attention_coresets.study.sweep_runs import SweepRuns
from attention_coresets.study.table import read_table
from attention_coresets.study.wandb_runs import Dashboard, GrowingTable

REPOSITORY = Path(__file__).resolve().parents[1]
EXPONENTS: dict[str, str] = {"law": "str", "symbol": "str", "value": "float64", "low": "float64", "high": "float64"}
CLAIMS: dict[str, str] = dict.fromkeys(("claim", "models", "measured", "status"), "str")


def main() -> int:
    options = _parse()
    try:
        results = load(options.results / options.tier)
        table = placed(read_table(options.results / options.tier / "table.parquet"))
        experiments = _wanted(table, options.experiment)
        where = (options.results.resolve(), options.outputs.resolve(), options.project)
        whole = Dashboard(*where, "replay", options.tier, sweep="results", experiment="results")
        with whole.alone():
            for experiment in tqdm(experiments, desc="experiments"):
                dashboard = replace(whole, sweep=experiment, experiment=experiment)
                replay(dashboard, options.per, table.loc[table["experiment"] == experiment])
            publish_results(whole, results, figures(results, options))
    except (ResultsError, StudyError) as error:
        print(f"publish_wandb: {error}", file=sys.stderr)
        return 2
    print(f"see them:    wandb leet {options.outputs / 'wandb'}")
    print(f"upload them: wandb sync {options.outputs / 'wandb'}/offline-run-*")
    return 0


def replay(dashboard: Dashboard, per: str, rows: pd.DataFrame) -> None:
    """The runs of an experiment, all of whose cells are in the table."""
    arms = rows[["arm", "construction"]].drop_duplicates().itertuples(index=False, name=None)
    runs = SweepRuns(dashboard, per, arms)
    runs.add(rows, dict.fromkeys(rows["cell"], "already done"))
    for _, own in rows.groupby(["arm", "construction"], sort=False):
        arm, construction = own[["arm", "construction"]].iloc[0].tolist()
        runs.draw(arm, construction, sorted(set(own["setting"])))
    runs.close({})


def publish_results(dashboard: Dashboard, results: Results, pictures: list[Path]) -> None:
    """One run of what the tier says: exponents with intervals, claims, figures."""
    import wandb

    name = f"results {results.tier}"
    run = dashboard.begin(
        "results", name, dashboard.id("results"), {"revision": sorted(set(results.table["revision"]))}
    )
    run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in pictures})
    for key, columns, rows in (("exponents", EXPONENTS, _exponents(results)), ("claims", CLAIMS, _claims(results))):
        GrowingTable(run, key, columns).add(pd.DataFrame(rows, columns=list(columns)))
    run.finish()


def figures(results: Results, options: argparse.Namespace) -> list[Path]:
    """Pictures of these results: those in --figures, or drawn where there are none."""
    folder = options.figures
    if folder is None and options.results.resolve() == REPOSITORY / "results":
        folder = REPOSITORY / "figures"
    if folder is not None:
        return sorted((folder / options.tier).glob("*.png"))
    known = set(results.table["experiment"]) | ({HEADS_FILE} if results.heads is not None else set())
    drawn = []
    with style():
        for name in tqdm([name for name, (experiment, _) in FIGURES.items() if experiment in known], desc="figures"):
            drawn.append(save(draw(name, results), options.outputs / "figures" / options.tier, name)[0])
    return drawn


def _wanted(table: pd.DataFrame, asked: list[str] | None) -> list[str]:
    known = sorted(table["experiment"].unique())
    if unknown := sorted(set(asked or known) - set(known)):
        raise StudyError(f"no such experiment in the table: {', '.join(unknown)}; it has {', '.join(known)}")
    return asked or known


def _exponents(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "law": " ".join((fit["name"], *map(str, fit["fixed"].values()))),
            "symbol": symbol,
            **{key: found[key] for key in ("value", "low", "high")},
        }
        for fit in results.fits
        if fit["status"] == "fitted"
        for symbol, found in fit["coefficients"].items()
    ]


def _claims(results: Results) -> list[dict[str, Any]]:
    rows = []
    for outcome in decided(results).values():
        parts = "; ".join(f"{part.setting}: {part.estimate.value:.3g}" for part, _ in outcome.parts)
        claim = outcome.claim
        rows.append({"claim": claim.statement, "models": claim.models, "measured": parts, "status": outcome.status})
    return rows


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tier", choices=TIERS, default="reduced")
    parser.add_argument("--experiment", nargs="*", help="only these experiments; default: all in the table")
    parser.add_argument("--per", choices=GRANULARITIES, default="arm", help="a run for each arm, or for each cell")
    parser.add_argument("--project", default="attention-coresets")
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results", help="folder of the tiers")
    parser.add_argument("--figures", type=Path, help="folder of their figures; default: drawn, or the committed ones")
    parser.add_argument("--outputs", type=Path, default=REPOSITORY / "outputs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
