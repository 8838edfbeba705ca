"""How finished cells lie on disk: a log that one process appends to, and shards of parquet that logs are packed into.

    log/<worker>-<k>.log     a line a cell: its name, a checksum, and JSON with its configuration and its rows
    shards/<digest>.parquet  the rows of many cells; `config` is told at the first row of each; named by its content

A process that is killed leaves at most the torn last line of its log, which is not read. A line or a shard that is
damaged is known by its checksum or its name.
"""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attention_coresets.study.disk import appended, not_written, replacing, set_aside

Row = dict[str, Any]
PACK_CELLS, PACK_BYTES = 4096, 16 << 20  # of a log that is packed while it grows
_CELL, _CHECKSUM = 16, 8


class Record(NamedTuple):
    """A finished cell; `text`: JSON of its configuration and its rows."""

    cell: str
    text: bytes

    def rows(self) -> list[Row]:
        return json.loads(self.text)["rows"]


class Log:
    """A log to which this process alone appends. NotWrittenError where the disk is full; what was written stays."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder, self._worker, self._number = folder, worker, 0
        self._open()

    def add(self, cell: str, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
        """Append a finished cell; it is on the disk after the next `sync`."""
        text = json.dumps({"config": dict(config), "rows": list(rows)}, separators=(",", ":")).encode()
        self._append(b"%s %08x %s\n" % (cell.encode(), zlib.crc32(text), text))
        self._cells += 1

    def sync(self) -> None:
        """Return once all cells are on the disk, packed where they are many."""
        os.fsync(self._file)
        if not self.path.exists():  # packed by a process that took this one for dead, perhaps without the last lines
            lines = os.pread(self._file, self._size, 0)
            self._reopen()
            self._append(lines)
            os.fsync(self._file)
        if self._cells >= PACK_CELLS or self._size >= PACK_BYTES:
            pack([self.path], self._folder.parent / "shards")
            self._reopen()

    def close(self) -> None:
        """An empty log leaves no file; others are packed by whoever starts the next sweep."""
        self.sync()
        os.close(self._file)
        if self._size == 0:
            self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        self.path = self._folder / f"{self._worker}-{self._number}.log"
        self._cells = self._size = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        except OSError as error:
            raise not_written(self._folder, error) from error

    def _reopen(self) -> None:
        os.close(self._file)
        self._number += 1
        self._open()

    def _append(self, lines: bytes) -> None:
        try:
            written = 0
            while written < len(lines):
                written += os.write(self._file, lines[written:])
        except OSError as error:
            os.ftruncate(self._file, self._size)  # no torn line where the next one would begin
            raise not_written(self._folder, error) from error
        self._size += len(lines)


def records(path: Path, start: int = 0) -> tuple[list[Record], int]:
    """The intact cells of a log from byte `start` on, and the byte to go on from. A damaged line is left out."""
    text = appended(path, start)
    found = []
    for line in text.splitlines():
        cell, checksum, content = line[:_CELL], line[_CELL + 1 : _CELL + 1 + _CHECKSUM], line[_CELL + _CHECKSUM + 2 :]
        if checksum == b"%08x" % zlib.crc32(content):
            found.append(Record(cell.decode(), content))
    return found, start + len(text)


def pack(logs: Iterable[Path], shards: Path) -> None:
    """Put the cells of logs that no process writes to any more into one shard, then remove the logs."""
    import pyarrow.parquet as pq

    logs = list(logs)
    cells = {record.cell: record for path in logs for record in records(path)[0]}
    if cells:
        buffer = io.BytesIO()
        pq.write_table(to_arrow(cells.values()), buffer, compression="zstd")
        content = buffer.getvalue()
        with replacing(shards / f"{_digest(content)}.parquet") as part:
            part.write_bytes(content)
    for path in logs:
        path.unlink(missing_ok=True)


def to_arrow(cells: Iterable[Record]) -> Any:
    """The rows of cells as a table of arrow; what a row lacks is null."""
    import pyarrow as pa

    rows: list[Row] = []
    for record in cells:
        content = json.loads(record.text)
        first, *others = content["rows"]
        rows += [first | {"config": json.dumps(content["config"], separators=(",", ":"))}, *others]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def shard(path: Path, columns: Sequence[str] | None = None) -> Any | None:
    """A shard as a table of arrow. None, and the shard set aside, where it is not what was written."""
    import pyarrow.parquet as pq

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if _digest(content) != path.stem:
        set_aside(path, "its content is not what its name says")
        return None
    return pq.read_table(io.BytesIO(content), columns=columns)


def to_rows(table: Any) -> list[Row]:
    """Rows as they were before they were packed."""
    kept = ({key: value for key, value in row.items() if value is not None} for row in table.to_pylist())
    return [{key: value for key, value in row.items() if key != "config"} for row in kept]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
