"""Which cells are finished: read once, then only what was added since."""

from collections.abc import Collection, Iterator
from pathlib import Path

from attention_coresets.study.records import records, shard


class Finished:
    """The names of finished cells in a store's folder, of those `wanted` (None: of all).

    Logs are read before shards: a log that is packed meanwhile is then seen in one of the two.
    """

    def __init__(self, folder: Path, wanted: Collection[str] | None = None) -> None:
        self._folder, self._wanted = folder, None if wanted is None else frozenset(wanted)
        self._cells: set[str] = set()
        self._read: dict[str, int] = {}
        self._shards: set[str] = set()
        # files of their own hold the cells that were finished before there were logs
        self._add({path.stem for path in folder.glob("*.json")})
        self.refresh()

    def __contains__(self, cell: str) -> bool:
        return cell in self._cells

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def refresh(self, except_of: Collection[str] = ()) -> set[str]:
        """Read what was added, but not the logs of processes that tell of their cells otherwise; the new cells."""
        new: set[str] = set()
        for path in (self._folder / "log").glob("*.log"):
            if path.stem.rpartition("-")[0] in except_of:
                continue
            found, self._read[path.name] = records(path, self._read.get(path.name, 0))
            new |= self._add({record.cell for record in found})
        for path in (self._folder / "shards").glob("*.parquet"):
            if path.name not in self._shards and (table := shard(path, ["cell"])) is not None:
                self._shards.add(path.name)
                new |= self._add(set(table["cell"].to_pylist()))
        return new

    def _add(self, cells: set[str]) -> set[str]:
        new = (cells if self._wanted is None else cells & self._wanted) - self._cells
        self._cells |= new
        return new
