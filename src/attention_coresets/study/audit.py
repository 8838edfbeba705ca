"""The audit of a tier's table: rows drawn at random, their cells computed again, and how far each is from the table.

What a row may differ by is the class of its construction (`coresets.agreement`), in units of the largest value norm:

    tokens   1e-9, and 1e-6 of the value
    ties     1e-6, and 1e-6 of the value
    error    1e-6, and 2 % of the value; cells of a language model's cache and of searches for hard caches too, whose
             many steps in float32 or uphill rounding can turn

Set before any row was computed again for it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode

from attention_coresets.coresets.agreement import SOLVED, WITHIN, Agreement
from attention_coresets.study.config import REPOSITORY, register
from attention_coresets.study.disk import StudyError
from attention_coresets.study.job import computed_rows
from attention_coresets.study.parts import construction_of, named
from attention_coresets.study.plan import Cell
from attention_coresets.study.sweep import plan

MEASURES = ("error", "certificate", "heldout_mean", "loss", "kl", "needle_found", "proven")
ALLOWED = {Agreement.TOKENS: (1e-9, 1e-6), Agreement.TIES: (SOLVED, 1e-6), Agreement.ERROR: (SOLVED, WITHIN)}
_TURNS = ("hardness", "language")  # tasks whose rounding can turn


@dataclass(frozen=True)
class Audited:
    """A row of the table, and what its cell gave now: the measure of it that is furthest off, in parts of `allowed`."""

    experiment: str
    arm: str
    cell: str
    size: int
    head: int
    agreement: Agreement
    measure: str
    told: float
    found: float
    share: float  # of what is allowed; above 1 the row is off

    @property
    def relative(self) -> float:
        return abs(self.found - self.told) / abs(self.told) if self.told else abs(self.found)


def sample(table: pd.DataFrame, rows: int, seed: int, longest: float) -> tuple[pd.DataFrame, int]:
    """That many rows at random, and of how many: those of cells that took at most `longest` seconds."""
    cells = table.drop_duplicates(["cell", "size", "head"])
    seconds = np.nan_to_num(cells[["seconds_construct", "seconds_adversary"]].to_numpy(dtype=float)).sum(axis=1)
    _, number = np.unique(cells["cell"].to_numpy(dtype=str), return_inverse=True)
    fit = cells.loc[np.bincount(number, weights=seconds)[number] <= longest]
    return fit.sample(min(rows, len(fit)), random_state=seed), len(fit)


def laid_out(arguments: Sequence[str]) -> Iterator[Cell]:
    """The cells that `scripts/sweep.py ARGUMENTS` asks for, checked; nothing is computed or kept."""
    register()
    GlobalHydra.instance().clear()
    own = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    try:
        hydra = Hydra.create_main_hydra2("sweep", create_config_search_path(str(REPOSITORY / "conf")))
        mode = RunMode.RUN if len(own) == len(arguments) else RunMode.MULTIRUN
        config = hydra.compose_config("config", own, mode, with_log_configuration=False)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
        grid = [f"{key}={value}" for key, value in config.hydra.sweeper.get("params", {}).items()] + own
        yield from plan(grid, config, context)
    finally:
        GlobalHydra.instance().clear()


def audit(sampled: pd.DataFrame, tier: str, processes: int) -> Iterator[list[Audited]]:
    """Compute the cells of the sampled rows again, an experiment after the other in each process, and compare.

    StudyError where a cell is in no grid any more, so that nobody could compute it again.
    """
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        laid_out = {
            pool.submit(_configurations, str(name), tier, set(rows["cell"])): rows
            for name, rows in sampled.groupby("experiment")
        }
        again = {}
        for future in as_completed(laid_out):
            for cell, config in future.result().items():
                own = laid_out[future]
                again[pool.submit(_again, config)] = (config, own.loc[own["cell"] == cell])
        for future in as_completed(again):
            config, told = again[future]
            yield compared(told, future.result(), agreement_of(config))


def _configurations(experiment: str, tier: str, wanted: set[str]) -> dict[str, dict[str, Any]]:
    cells = laid_out(["-m", f"experiment={experiment}", f"tier={tier}"])
    found = {cell.name: cell.config for cell in cells if cell.name in wanted}
    if missing := sorted(wanted - found.keys()):
        raise StudyError(f"{experiment}: cell {missing[0]} of the table is in no grid of tier {tier}")
    return found


def _again(config: dict[str, Any]) -> list[dict[str, Any]]:
    return computed_rows(config | {"compute": config["compute"] | {"threads": 1}})


def agreement_of(config: dict[str, Any]) -> Agreement:
    """The class that the rows of a cell belong to."""
    if config.get("task") in _TURNS or config["cache"]["name"] == "model":
        return Agreement.ERROR
    return construction_of(*named(config["coreset"])).agreement


def compared(told: pd.DataFrame, again: Iterable[dict[str, Any]], agreement: Agreement) -> list[Audited]:
    """Each row of the table beside the row of the same size and head that was computed again."""
    found = {(row["size"], row["head"]): row for row in again}
    return [_worst(row, found[row["size"], row["head"]], agreement) for row in told.to_dict("records")]


def _worst(told: dict[Any, Any], found: dict[str, Any], agreement: Agreement) -> Audited:
    absolute, relative = ALLOWED[agreement]
    shares = {
        name: abs(found.get(name, math.nan) - told[name]) / (absolute + relative * abs(told[name]))
        for name in MEASURES
        if not math.isnan(told[name])
    }
    # what the table has and the cell lacks now is off by more than anything
    shares = {name: math.inf if math.isnan(share) else share for name, share in shares.items()}
    worst = max(shares, key=shares.__getitem__)
    where = (told["experiment"], told["arm"], told["cell"], told["size"], told["head"])
    return Audited(*where, agreement, worst, told[worst], found.get(worst, math.nan), shares[worst])


def summary(audited: Sequence[Audited]) -> list[dict[str, Any]]:
    """A line a class: rows, those equal to the last digit, the largest relative difference, rows that are off."""
    lines = []
    for agreement in Agreement:
        own = [row for row in audited if row.agreement == agreement]
        if own:
            absolute, relative = ALLOWED[agreement]
            lines.append(
                {
                    "class": str(agreement),
                    "rows": len(own),
                    "equal": sum(row.found == row.told for row in own),
                    "largest relative difference": f"{max(row.relative for row in own):.2g}",
                    "allowed": f"{absolute:g} + {relative:g} of the value",
                    "largest share of it": f"{max(row.share for row in own):.2g}",
                    "off": sum(row.share > 1 for row in own),
                }
            )
    return lines
