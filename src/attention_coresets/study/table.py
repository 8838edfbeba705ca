"""The result table: what its columns are, and how the cells of the experiments become one parquet file a tier."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attention_coresets.lower_bound import FLOORS
from attention_coresets.study.disk import StudyError, replacing
from attention_coresets.study.identity import cell_hash
from attention_coresets.study.store import Manifest, Row, Store

CEILINGS = ("ceiling_kernel", "ceiling_taylor", "branch_lower", "branch_upper", "branch_gap")
# of cells with task=language: losses and divergences in nats a token, shares of tokens or needles, bytes of the cache
LANGUAGE = (
    *("loss", "loss_full", "kl", "kl_p99", "agreement"),
    *("needle_loss", "needle_loss_full", "needle_found", "needle_found_full", "needle_right", "needle_right_full"),
    "kept_bytes",
)
# of real heads: T of the calibration queries moved behind the cache, mean weight of the first token at held-out queries
# and, of cells with task=replayed, what may tell their errors beside T (models/predictors.py)
HEADS = ("total_sensitivity", "sink_weight", "gamma", "leave_out", "spectral_tail", "query_variance")
# of cells with task=hardness, beside the error on the cache found: a proven lower bound of the best subset's error, and
# the error on the cache that the search began with; objective: what it sought to raise (`hardness.Rate`)
# probe: what a language model was asked for, where that is not facts of different kinds
HARDNESS = ("proven", "start_error")
# names of GPU or CPU and of the CPU; which loops ran (`provenance.fast_path`)
MACHINE = ("device_name", "processor", "fast_path")
# one row per (experiment, arm, cell, size, head); errors in units of the values, times in seconds per head
COLUMNS: dict[str, str] = {
    **dict.fromkeys(("experiment", "tier", "cell", "arm", "cache", "coreset", "model"), "str"),
    **{
        "rho": "float64",
        "seed": "int64",
        "draw": "int64",
        "head": "int64",
        "n": "int64",
        "d": "int64",
        "size": "int64",
    },
    **{"error": "float64", "reached": "int64", "restarts": "int64", "certificate": "float64"},
    **dict.fromkeys(CEILINGS, "float64"),
    **{"certified_by": "str"},
    **dict.fromkeys(FLOORS, "float64"),
    **dict.fromkeys(("sigma", "radius", "exponent", "constant", "seconds_construct", "seconds_adversary"), "float64"),
    **dict.fromkeys(("cache_params", "coreset_params"), "str"),
    **dict.fromkeys(("layer", "kv_head", "heldout_mean", "heldout_p99", "heldout_max"), "float64"),
    **dict.fromkeys((*HEADS, *LANGUAGE, *HARDNESS), "float64"),
    **{"objective": "str", "probe": "str"},
    **{"revision": "str", "dirty": "bool"},
    **dict.fromkeys(("torch", "numpy", "python", "device", "dtype", *MACHINE), "str"),
}
# NaN in the rows of a task until it knows better
UNKNOWN = [name for name, kind in COLUMNS.items() if kind == "float64" and name != "rho"]
# what older cells and tables lack, HEADS and LANGUAGE also those of other caches and tasks, and what they would hold
_USUAL = {"certified_by": "", "objective": "", "probe": "", **dict.fromkeys(MACHINE, "unknown"), "draw": 0}
_YOUNGER = {**dict.fromkeys((*CEILINGS, *FLOORS, *HEADS, *LANGUAGE, *HARDNESS), math.nan), **_USUAL}
_GONE = "floor_iii"  # what stood in the place of floor_v
LABELS = ("experiment", "tier", "arm")  # a cell is shared by whichever experiment asks for it; these come from there


@dataclass(frozen=True)
class Gathered:
    """The rows of one experiment and the labels of the cells that its grid still misses."""

    manifest: Manifest
    rows: pd.DataFrame
    missing: list[str]


def gather(store: Store, tier: str, experiment: str) -> Gathered:
    """The cells of the experiment's present grid, exactly: what an earlier grid asked for is not looked at.

    Grids of several runs may overlap in heads or sizes. What two of their cells have in common is there once.
    """
    manifest = store.manifest(tier, experiment)
    asked = pd.DataFrame(
        {"cell": [m.cell for m in manifest.members], "arm": [m.arm for m in manifest.members]}, dtype="str"
    ).assign(experiment=experiment, tier=tier)
    frames, kinds = [], {}
    for table in store.tables(asked["cell"]):
        cells = table.select(["cell", "config"]).to_pandas().dropna()
        kinds |= {cell: _kind(cell, config) for cell, config in zip(cells["cell"], cells["config"], strict=True)}
        frames.append(_labelled(asked, table))
    rows = _joined(frames)
    found = set(rows["cell"])
    rows = rows.assign(kind=[kinds[cell] for cell in rows["cell"]]).drop_duplicates(["arm", "kind", "size", "head"])
    return Gathered(manifest, rows.drop(columns="kind"), [m.label for m in manifest.members if m.cell not in found])


def _kind(cell: str, config: str) -> str:
    """Names what the cells have in common that differ only in how many heads and sizes were asked for.

    Of cells that were restored from a table no configuration is known: each is of its own kind.
    """
    known = json.loads(config)
    return cell_hash(known | {"heads": 0, "sizes": []}) if known else cell


def rows_of(store: Store, asked: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells that are finished, of those in the column `cell` of `asked`, whose other columns are labels."""
    return _joined([_labelled(asked, table) for table in store.tables(asked["cell"])])


def _labelled(asked: pd.DataFrame, table: Any) -> pd.DataFrame:
    return to_frame(asked.merge(table.drop_columns("config").to_pandas(), on="cell", sort=False))


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True) if frames else to_frame([])


def to_frame(rows: Sequence[Row] | pd.DataFrame) -> pd.DataFrame:
    """Rows as a table of the stated columns and types. StudyError names columns that are missing or unknown."""
    if not len(rows):
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if _GONE in frame and bool(frame[_GONE].isna().all()):  # where it has values, all floors were others: refused below
        frame = frame.drop(columns=_GONE)
    frame = completed(frame)
    if odd := set(COLUMNS) ^ set(frame.columns):
        cells = ", ".join(sorted(frame["cell"].unique())[:3]) if "cell" in frame else "unknown"
        raise StudyError(
            f"cells {cells}: columns {', '.join(sorted(odd))} do not fit; delete the cells and run the sweep again"
        )
    return frame.reindex(columns=list(COLUMNS)).astype(COLUMNS)


def completed(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table with the columns that older ones lack, also where these stand beside younger ones."""
    return frame.assign(**{name: value for name, value in _YOUNGER.items() if name not in frame}).fillna(_USUAL)


def merge(gathered: Sequence[Gathered], path: Path, keep: bool = True) -> tuple[pd.DataFrame, list[str]]:
    """The new table, and the experiments kept from the table at `path` because they were not run here."""
    here = {each.manifest.experiment for each in gathered}
    old = read_table(path) if keep and path.exists() else to_frame([])
    kept = old.loc[~old["experiment"].isin(list(here))]
    frames = [frame for frame in (kept, *(each.rows for each in gathered)) if len(frame)]
    table = pd.concat(frames, ignore_index=True) if frames else to_frame([])
    order = ["experiment", "arm", "cache", "cell", "size", "head"]
    return table.sort_values(by=order, kind="stable", ignore_index=True), sorted(set(kept["experiment"]))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write the table as parquet, whole or not at all."""
    with replacing(path) as part:
        table.to_parquet(part, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """A result table, its columns checked. StudyError where it is missing, damaged or of another version.

    A table older than floor_v holds in floor_i, floor_ii and floor_iv the floors of the queries rho c_j: true, and at
    most as large as those computed now.
    """
    if not path.exists():
        raise StudyError(f"{path} is missing: run `python scripts/collect.py --tier {path.parent.name}`")
    try:
        frame = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{path} is damaged ({reason}): restore it with git or delete it and collect again") from error
    frame = completed(frame.drop(columns=_GONE, errors="ignore"))
    if odd := set(frame.columns) ^ set(COLUMNS):
        raise StudyError(f"{path} has other columns ({', '.join(sorted(odd))}): delete it and collect again")
    return frame.reindex(columns=list(COLUMNS)).astype(COLUMNS)
