"""Finished cells on disk, and which of them belong to which experiment.

    <results>/cells/log, shards                      rows, resolved configurations and provenance (`records`)
    <results>/cells/<hash>.json                      the same of one cell, as it was kept before: still read
    <results>/cells/leases                           who computes what at the moment (`leases`)
    <results>/cells/index/<tier>/<experiment>/*.json the grids of an experiment's runs (`manifests`)

Any number of processes, on any number of machines that share the disk, may read and write at the same time.
"""

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from attention_coresets.study import manifests
from attention_coresets.study.disk import replacing, set_aside
from attention_coresets.study.finished import Finished
from attention_coresets.study.identity import cell_hash
from attention_coresets.study.leases import workers
from attention_coresets.study.manifests import Manifest, Member
from attention_coresets.study.records import Log, Record, Row, pack, records, shard, to_arrow, to_rows

__all__ = ["Manifest", "Member", "Row", "Store"]
_FEW_LOGS, _FEW_BYTES = 16, 1 << 20


@dataclass(frozen=True)
class Store:
    """The cells under a results directory."""

    results: Path

    @property
    def cells(self) -> Path:
        return self.results / "cells"

    @property
    def logs(self) -> Path:
        return self.cells / "log"

    @property
    def shards(self) -> Path:
        return self.cells / "shards"

    @property
    def leases(self) -> Path:
        return self.cells / "leases"

    def prepare(self) -> None:
        """NotWrittenError unless cells can be written here: better known before the work than after it."""
        with replacing(self.cells / "probe", durable=False) as part:
            part.touch()
        self.cells.joinpath("probe").unlink(missing_ok=True)

    def log(self, worker: str) -> Log:
        """Where a process, by a name that no other has, keeps the cells it finishes."""
        return Log(self.logs, worker)

    def write(self, config: Mapping[str, Any], rows: Sequence[Row]) -> str:
        """Keep one finished cell; its name. NotWrittenError where the disk is full."""
        log, cell = self.log(f"one-{uuid4().hex[:12]}"), cell_hash(config)
        log.add(cell, config, rows)
        log.close()
        return cell

    def finished(self, wanted: Collection[str] | None = None) -> Finished:
        """The names of finished cells, of those wanted."""
        return Finished(self.cells, wanted)

    def read(self, cell: str) -> list[Row] | None:
        """The rows of a finished cell, None where there is none."""
        return next((to_rows(table) for table in self.tables({cell})), None)

    def tables(self, wanted: Collection[str], columns: Sequence[str] | None = None) -> Iterator[Any]:
        """The rows of the wanted cells that are finished, each cell once, as tables of arrow of one shard's size.

        columns: those to read, `cell` among them; all where none are named.
        """
        left = set(wanted)
        for batch in self._batches(left, columns):
            names = set(batch["cell"].to_pylist()) & left
            if names:
                left -= names
                yield _only(batch, names)

    def _batches(self, left: set[str], columns: Sequence[str] | None) -> Iterator[Any]:
        for path in sorted(self.logs.glob("*.log")):
            if found := {r.cell: r for r in records(path)[0] if r.cell in left}:
                yield _some(to_arrow(found.values()), columns)
        for path in sorted(self.shards.glob("*.parquet")):
            names = shard(path, ["cell"])
            if names is not None and not left.isdisjoint(names["cell"].to_pylist()):
                yield shard(path, columns)
        older = (record for cell in left if (record := self._older(cell)) is not None)
        while some := list(itertools.islice(older, 1000)):
            yield _some(to_arrow(some), columns)

    def intact(self, cell: str) -> bool:
        """False, and the file set aside, where a cell in a file of its own is damaged; others are always verified."""
        return not (self.cells / f"{cell}.json").exists() or self._older(cell) is not None

    def pack_idle(self) -> None:
        """Put logs that no living process writes to into a shard, where they are more than a few."""
        living = {worker.id for worker in workers(self.leases) if worker.alive}
        idle = [path for path in self.logs.glob("*.log") if path.stem.rpartition("-")[0] not in living]
        if len(idle) > _FEW_LOGS or sum(path.stat().st_size for path in idle) > _FEW_BYTES:
            pack(sorted(idle), self.shards)

    def _older(self, cell: str) -> Record | None:
        """A cell in a file of its own, if it has one; damaged, it is set aside."""
        path = self.cells / f"{cell}.json"
        try:
            content = json.loads(path.read_bytes())
            if cell_hash(content["config"]) == cell and len(content["rows"]) > 0:
                return Record(cell, json.dumps(content).encode())
            reason = "its name is not that of its configuration, or no longer"
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
        set_aside(path, reason)
        return None

    def record(self, manifest: Manifest) -> None:
        """Make the manifest the experiment's grid; a run that changed the file's grid adds to what is there instead."""
        manifests.record(self.cells / "index", manifest)

    def manifest(self, tier: str, experiment: str) -> Manifest:
        """The grid of an experiment at a tier, of all its runs. StudyError where a file of it is damaged."""
        return manifests.read(self.cells / "index", tier, experiment)

    def experiments(self, tier: str) -> list[str]:
        """Experiments that were run at this tier here; at `names.OWN` other sweeps."""
        return sorted({path.stem for path in (self.cells / "index" / tier).glob("[!.]*")})


def _some(table: Any, columns: Sequence[str] | None) -> Any:
    return table if columns is None else table.select(list(columns))


def _only(table: Any, names: Collection[str]) -> Any:
    """The rows of some cells."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.is_in(table["cell"], value_set=pa.array(sorted(names))))  # type: ignore[attr-defined]
