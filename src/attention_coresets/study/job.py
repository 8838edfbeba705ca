"""What Hydra calls for each cell: look it up or compute it, keep it, and say how it went."""

import math
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from attention_coresets.study.cell import run_cell
from attention_coresets.study.checks import check
from attention_coresets.study.config import Composed, resolve
from attention_coresets.study.explain import one_line, refuse_arm_with_coreset
from attention_coresets.study.identity import cell_hash
from attention_coresets.study.plugins import PluginChecks, load_plugins
from attention_coresets.study.progress import Board
from attention_coresets.study.store import NotWrittenError, Row, Store
from attention_coresets.study.tracking import track


def run_job(config: Composed) -> None:
    """A single cell prints its rows; a cell of a sweep reports to the sweep's board, its failure included."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        run_posted(resolve(config), Board(Path(hydra.sweep.dir) / "status"), hydra.job.num)
    else:
        try:
            _run_single(config, hydra.overrides.task)
        except Exception as error:
            # SystemExit passes through Hydra as it is; before any other error it prints a line of its own
            raise SystemExit(f"error: {one_line(error)}") from error


def _run_single(config: Composed, overrides: Sequence[str]) -> None:
    refuse_arm_with_coreset(overrides)
    resolved = resolve(config)
    check(resolved)
    PluginChecks().check(resolved)
    Store(Path(config.paths.results)).prepare()
    _show(*finished_rows(resolved))


def finished_rows(config: dict[str, Any]) -> tuple[list[Row], Path, bool]:
    """Rows of a cell, its file, and whether it was there before."""
    store = Store(Path(config["paths"]["results"]))
    cell = cell_hash(config)
    before = store.finished(cell)
    if before is not None:
        return before, store.path(cell), True
    if config["compute"]["threads"] is not None:
        torch.set_num_threads(config["compute"]["threads"])
    rows = run_cell(config)
    path = store.write(config, rows)
    track(config, rows)
    return rows, path, False


def run_posted(config: dict[str, Any], board: Board, job: int) -> None:
    """Compute a cell of a sweep and post how it went. NotWrittenError, which no other cell would escape, is raised."""
    board.post(job, "running")
    try:
        load_plugins(config["plugins"])  # this may be another process
        finished_rows(config)
    except NotWrittenError:
        raise
    except Exception as error:  # whatever went wrong in one cell, the others go on
        board.post(job, "failed", f"{one_line(error)}\n{traceback.format_exc()}")
    else:
        board.post(job, "computed")


def _show(rows: list[Row], path: Path, before: bool) -> None:
    shown = ["size", "head", "error", "constant", "reached", "sigma", "radius"]
    if "loss" in rows[0]:
        shown = ["size", "loss", "loss_full", "kl", "kl_p99", "agreement", "needle_loss", "needle_found", "kept_bytes"]
    sometimes = ("certificate", "heldout_mean", "heldout_max", "proven", "start_error")
    shown += [name for name in sometimes if not math.isnan(rows[0].get(name, math.nan))]
    cells = [[f"{r[c]:.4g}" if isinstance(r[c], float) else str(r[c]) for c in shown] for r in rows]
    widths = [max(len(line[i]) for line in [shown, *cells]) for i in range(len(shown))]
    first = rows[0]
    print(
        f"{first['coreset']} ({first['model']}) on {first['cache']}: n={first['n']} d={first['d']} rho={first['rho']:g}"
    )
    for line in [shown, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    print(f"{'already done' if before else 'kept'}: {path}")
