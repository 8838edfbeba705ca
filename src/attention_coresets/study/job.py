"""One cell: what Hydra calls where a command names no sweep, and how any process computes one."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig

from attention_coresets.adversary.certificate import rounded_down, rounded_up
from attention_coresets.study.cell import run_cell
from attention_coresets.study.checks import check
from attention_coresets.study.config import Composed, resolve, sources_of, with_sources
from attention_coresets.study.disk import StudyError
from attention_coresets.study.explain import one_line, refuse_arm_with_coreset
from attention_coresets.study.identity import cell_hash
from attention_coresets.study.older import tell_older
from attention_coresets.study.plugins import PluginChecks
from attention_coresets.study.store import Row, Store
from attention_coresets.study.tracking import show_cell

_BOUNDS = {"certificate": rounded_up, "proven": rounded_down}  # what is proven of the error, from above and from below


def run_job(config: Composed) -> float | None:
    """Compute a single cell and print its rows. A sweep's cells come another way (`sweep`, `worker`).

    Returns what a sweep with tune=NAME lowers, None where the command is no such sweep.
    """
    try:
        rows = _run_single(config, HydraConfig.get().overrides.task)
        return None if HydraConfig.get().runtime.choices["tune"] == "none" else _goal(rows, **config.goal)
    except Exception as error:
        # SystemExit passes through Hydra as it is; before any other error it prints a line of its own
        raise SystemExit(f"error: {one_line(error)}") from error


def _run_single(config: Composed, overrides: Sequence[str]) -> list[Row]:
    refuse_arm_with_coreset(overrides)
    if config.name is not None:
        raise StudyError(f"name={config.name}: names a sweep, and this is a single cell; add -m or leave it out")
    resolved = with_sources(resolve(config))
    check(resolved)
    PluginChecks().check(resolved)
    store = Store(Path(config.paths.results))
    store.prepare()
    cell = cell_hash(resolved)
    before = store.read(cell)
    rows = before or computed_rows(resolved)
    if before is None:
        store.write(resolved, rows)
    else:
        tell_older(pd.DataFrame(before))
    show_cell(resolved, rows)
    _show(rows, f"{'already done' if before else 'kept'}: {cell} in {store.cells}")
    return rows


def _goal(rows: Sequence[Row], measure: str, size: int | None) -> float:
    """The median over heads. StudyError where the cell has no such measure or size."""
    sizes = [row["size"] for row in rows]
    wanted = sizes[-1] if size is None else size
    values = [row.get(measure, math.nan) for row in rows if row["size"] == wanted]
    if not values or any(math.isnan(value) for value in values):
        raise StudyError(
            f"goal.measure={measure} goal.size={wanted}: the cell does not tell it; give one of sizes, and "
            "adversary.certify=true for the certificate"
        )
    return statistics.median(values)


def computed_rows(config: dict[str, Any]) -> list[Row]:
    """The rows of a cell, computed. StudyError where files that it comes from have changed since it was planned."""
    if sources_of(config) != config.get("sources", {}):
        raise StudyError("the text, model or module of this cell has changed since the sweep was planned; run it again")
    if config["compute"]["threads"] is not None:
        torch.set_num_threads(config["compute"]["threads"])
    return run_cell(config)


def _show(rows: list[Row], where: str) -> None:
    shown = ["size", "head", "error", "constant", "reached", "sigma", "radius"]
    if "loss" in rows[0]:
        shown = ["size", "loss", "loss_full", "kl", "kl_p99", "agreement"]
        shown += ["needle_loss", "needle_found", "needle_right", "kept_bytes"]
    sometimes = ("certificate", "heldout_mean", "heldout_max", "proven", "start_error")
    shown += [name for name in sometimes if not math.isnan(rows[0].get(name, math.nan))]
    cells = [[_text(name, row[name]) for name in shown] for row in rows]
    widths = [max(len(line[i]) for line in [shown, *cells]) for i in range(len(shown))]
    first = rows[0]
    print(
        f"{first['coreset']} ({first['model']}) on {first['cache']}: n={first['n']} d={first['d']} rho={first['rho']:g}"
    )
    for line in [shown, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    print(where)


def _text(name: str, value: Any) -> str:
    if name in _BOUNDS:
        return _BOUNDS[name](value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
