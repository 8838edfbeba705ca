"""A tier's committed results, read and checked: the table, the fitted laws, and the geometry of real heads."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attention_coresets.lower_bound import FLOORS
from attention_coresets.study.table import completed

DIGITS = 10
TIERS = ("smoke", "quick", "reduced", "full")  # weakest first
NEEDED = (
    *("experiment", "arm", "cache", "model", "rho", "seed", "head", "n", "d", "size", "error", "certificate"),
    *("ceiling_kernel", "ceiling_taylor", "branch_lower", "branch_upper", "branch_gap", "certified_by"),
    *(name for name in FLOORS if name != "floor_v"),  # which is computed: tables older than it have none
    *("total_sensitivity", "sink_weight", "loss", "loss_full", "kl", "agreement", "needle_found", "needle_found_full"),
    *("sigma", "radius", "exponent", "seconds_construct", "cell", "cache_params", "coreset_params", "layer", "kv_head"),
    *("heldout_mean", "heldout_p99", "heldout_max", "revision", "dirty", "torch", "numpy", "python", "device", "dtype"),
)
HEAD_COLUMNS = (
    *("text", "layer", "kv_head", "n", "rho_uncentred", "rho_centred", "rho_query_linear", "exponent_query_linear"),
    *("half_range", "gamma", "gamma_sensitivity", "log_total_sensitivity", "log_total_sensitivity_heldout"),
    *("uncovered_2", "uncovered_10", "sink_weight"),
)


class ResultsError(Exception):
    """Results that are missing, damaged or do not belong together; the text is one line with the remedy."""


@dataclass(frozen=True)
class Results:
    """What figures and reports read: rows of table.parquet, records of fits.json (`stats.planned_fits`), and one row a
    head of heads.parquet and, of the second model, heads_gemma.parquet (None where heads were not measured)."""

    tier: str
    table: pd.DataFrame
    fits: list[dict]
    heads: pd.DataFrame | None = None
    gemma_heads: pd.DataFrame | None = None
    measured: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # claims, once each

    def rows(self, experiment: str) -> pd.DataFrame:
        """The rows of one experiment, none where it was not run."""
        run = self._experiments
        return run[experiment] if experiment in run else self.table.iloc[:0]

    @cached_property
    def _experiments(self) -> dict[str, pd.DataFrame]:
        return {str(name): rows for name, rows in self.table.groupby("experiment", sort=False)}

    def laws(self, name: str) -> list[dict]:
        """The records of one planned law that have rows, one a combination of the columns held fixed."""
        return [record for record in self.fits if record["name"] == name and record["status"] != "not run"]


def present(results: Path) -> list[str]:
    """Tiers with a table, weakest first."""
    return [tier for tier in TIERS if (results / tier / "table.parquet").exists()]


def load(folder: Path) -> Results:
    """The results in results/<tier>. ResultsError where the table is missing or damaged, or fits are of another one.

    A missing fits.json is no fits, a missing heads.parquet or heads_gemma.parquet no heads. Numbers come with `DIGITS`
    significant digits: what lies beyond them is the processor's, and must not decide which of two arms that chose the
    same tokens is best.
    """
    path = folder / "table.parquet"
    if not path.exists():
        raise ResultsError(
            f"{path} is missing: run `python scripts/sweep.py experiment=NAME tier={folder.name}`"
            f" and `python scripts/collect.py --tier {folder.name}`"
        )
    table = completed(_frame(path, NEEDED, "collect again")).copy()  # a block a type: rows are taken from it fast
    heads, gemma = (
        _frame(file, HEAD_COLUMNS, "run scripts/heads.py again") if file.exists() else None
        for file in (folder / "heads.parquet", folder / "heads_gemma.parquet")
    )
    return Results(folder.name, table, _fits(folder / "fits.json", path), heads, gemma)


def _frame(path: Path, needed: tuple[str, ...], remedy: str) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ResultsError(f"{path} is damaged ({reason}): restore it with git, or delete it and {remedy}") from error
    if missing := [name for name in needed if name not in frame]:
        raise ResultsError(f"{path} lacks the columns {', '.join(missing)}: delete it and {remedy}")
    numbers = {name: significant(frame[name].to_numpy()) for name in frame.select_dtypes("float")}
    words = dict.fromkeys(frame.select_dtypes("str"), object)  # one block of memory, so that rows are taken at once
    return frame.assign(**numbers).astype(words)


def significant(x: np.ndarray, digits: int = DIGITS) -> np.ndarray:
    """x rounded to `digits` significant decimal digits; 0, infinities and NaN as they are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        places = digits - 1 - np.floor(np.log10(np.abs(x)))
        scale = 10.0 ** np.clip(places, -300, 300)
        return np.where(np.isfinite(places), np.round(x * scale) / scale, x)


def _fits(path: Path, table: Path) -> list[dict]:
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        source, records = content["provenance"]["table_sha256"], content["fits"]
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{path} is damaged ({error}): run `python scripts/fit.py --tier {path.parent.name}`"
        ) from error
    if source != hashlib.sha256(table.read_bytes()).hexdigest():
        raise ResultsError(
            f"{path} was fitted to another {table.name}: run `python scripts/fit.py --tier {path.parent.name}`"
        )
    return records
