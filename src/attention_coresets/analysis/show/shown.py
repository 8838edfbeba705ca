"""A sweep to be looked at: its rows, with names for what sets its caches and arms apart, and where they come from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.results import ResultsError, load, present, significant
from attention_coresets.analysis.stats.frames import distinct
from attention_coresets.study.names import OWN, Place, swept
from attention_coresets.study.store import Manifest, Member, Store
from attention_coresets.study.table import gather

SETTING = ("family", "n", "d", "rho")  # columns that set what was asked apart from the arm and the size
UNIT = ("unit",)  # what intervals resample: a cache or a real head
REAL = "model"  # the family of real heads
# parameters that have columns of their own, or (of a real head) name the head or the text
_APART = ("n", "d", "rho")
_HEAD = ("layer", "kv_head", "start", "text")
# keys of a sweep that the table has columns for; what else is swept is told with the arm
_TOLD = ("arm", "coreset", "cache", "rho", "seed", "draw", "sizes", "heads")


@dataclass(frozen=True)
class Shown:
    """A sweep's rows with an error, beside the table's columns:

    arm: with what sets it apart in this sweep (`walk_tilted scale=2`). family: the cache's, with what sets it apart.
    unit: the cache, or the real head, that the row is of.
    missing: labels of cells that are not finished. others: rows without a worst-case error, as of a language model.
    """

    place: Place
    command: str
    rows: pd.DataFrame
    missing: Sequence[str]
    others: pd.DataFrame

    @property
    def units(self) -> str:
        """What intervals are over, in a word."""
        return "real heads" if distinct(self.rows, "cache") == [REAL] else "caches"

    def folder(self, results: Path, outputs: Path) -> Path:
        """Where its figures and its page go: never among the committed results."""
        return results / OWN / self.place.name if self.place.tier == OWN else outputs / "show" / Path(*self.place)


def find(results: Path, name: str, tier: str) -> Shown:
    """A sweep of one's own by its name, or else an experiment in the tier's table. ResultsError where it is neither."""
    store = Store(results)
    if name in store.experiments(OWN):
        return of_store(store, Place(OWN, name))
    if not (results / tier / "table.parquet").exists():
        raise ResultsError(f"{name}: no sweep of yours, and tier {tier} has no table; there are {_listed(results)}")
    table = load(results / tier).table
    rows = table.loc[table["experiment"] == name]
    if rows.empty:
        raise ResultsError(f"{name}: no sweep of yours, nor in the table of tier {tier}; there are {_listed(results)}")
    return _shown(Place(tier, name), f"python scripts/sweep.py experiment={name} tier={tier}", rows)


def of_store(store: Store, place: Place) -> Shown:
    """A sweep by its finished cells."""
    manifest = store.manifest(*place)
    gathered = gather(store, *place)
    rows = gathered.rows
    rows = rows.assign(**{name: significant(rows[name].to_numpy()) for name in rows.select_dtypes("float")})
    return _shown(place, manifest.command, _with_own_arms(rows, manifest), gathered.missing)


def known(results: Path) -> dict[str, list[str]]:
    """What can be shown: sweeps of one's own, under `own`, and each tier's experiments."""
    tiers = {tier: sorted(set(load(results / tier).table["experiment"])) for tier in present(results)}
    own = Store(results).experiments(OWN)
    return ({OWN: own} if own else {}) | tiers


def _listed(results: Path) -> str:
    words = "; ".join(f"{tier}: {', '.join(names)}" for tier, names in known(results).items())
    return words or f"none in {results}: run `python scripts/sweep.py -m cache=sphere,clusters rho=1,2` first"


def _shown(place: Place, command: str, rows: pd.DataFrame, missing: Sequence[str] = ()) -> Shown:
    measured, others = rows.loc[rows["error"].notna()], rows.loc[rows["error"].isna()]
    return Shown(place, command, named(measured) if len(measured) else measured, missing, others)


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the columns family and unit."""
    return rows.assign(family=_families(rows), unit=_units(rows))


def _with_own_arms(rows: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Arms with the values of swept keys that no column tells: `gram_schmidt_walk scale=2`."""
    names = pd.DataFrame([(member.cell, member.arm, _own_arm(member)) for member in manifest.members])
    names = names.set_axis(["cell", "arm", "own"], axis=1).drop_duplicates()
    return rows.merge(names, on=["cell", "arm"]).drop(columns="arm").rename(columns={"own": "arm"})


def _own_arm(member: Member) -> str:
    rest = {
        key: value for key, value in swept(member.label).items() if key not in _TOLD and not key.startswith("cache.")
    }
    return " ".join([member.arm, *(f"{key.removeprefix('coreset.')}={value}" for key, value in rest.items())])


def _families(rows: pd.DataFrame) -> np.ndarray:
    """The family of each row's cache, with those parameters that tell several of its kind apart."""
    pairs = rows[["cache", "cache_params"]].drop_duplicates()
    parameters = [
        {k: v for k, v in json.loads(text).items() if k not in (_APART + _HEAD if family == REAL else _APART)}
        for family, text in pairs.itertuples(index=False)
    ]
    families = pairs["cache"].tolist()
    varying = {
        (family, key)
        for family, mine in zip(families, parameters, strict=True)
        for key, value in mine.items()
        if any(f == family and other.get(key) != value for f, other in zip(families, parameters, strict=True))
    }
    words = {
        pair: " ".join([pair[0], *(f"{k}={v}" for k, v in mine.items() if (pair[0], k) in varying)])
        for pair, mine in zip(pairs.itertuples(index=False, name=None), parameters, strict=True)
    }
    return np.array([words[pair] for pair in zip(rows["cache"], rows["cache_params"], strict=True)], dtype=object)


def _units(rows: pd.DataFrame) -> np.ndarray:
    """The cache that each row is of; related ones, of one seed at several n, d and rho, are one unit."""
    synthetic = rows["cache"] + " seed " + rows["seed"].astype(str) + " head " + rows["head"].astype(str)
    texts = rows["cache_params"].map(lambda text: str(json.loads(text).get("text")))
    head = " layer " + rows["layer"].astype(str) + " head " + rows["kv_head"].astype(str)
    return np.where(rows["cache"] == REAL, texts + head, synthetic)
