"""Reads .wandb files back, by the format alone: blocks of 32 kB, records in pieces, each a protobuf message."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK, _PREFIX, _HEADER = 32768, 7, 7  # bytes; the prefix stands once, at the start of the file
_WHOLE, _LAST = 1, 4  # kinds of pieces that end a record


@dataclass
class Written:
    """What a run left on disk. `points`: history without tables; `tables`: rows by key, all increments in order."""

    id: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    exit_code: int | None = None

    def curve(self, metric: str) -> dict[int, float]:
        """A metric by size. Two points of one size would be a chart that doubles back."""
        found = [(point["size"], point[metric]) for point in self.points if metric in point]
        assert len({size for size, _ in found}) == len(found), metric
        return dict(found)


def written(outputs: Path) -> list[Written]:
    """All runs below outputs/wandb, by name. W&B's own process puts the last records on disk a moment after the end."""
    folders = list((outputs / "wandb").glob("offline-run-*"))
    deadline = time.monotonic() + 30
    runs = [_read(folder) for folder in folders]
    while any(run.exit_code is None for run in runs) and time.monotonic() < deadline:
        time.sleep(0.1)
        runs = [_read(folder) for folder in folders]
    assert len({run.id for run in runs}) == len(runs)
    return sorted(runs, key=lambda run: (run.job_type, run.name))


def _read(folder: Path) -> Written:
    (path,) = folder.glob("*.wandb")
    run = Written()
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id = record.run.run_id
            run.name = record.run.display_name or run.name  # a later record tells only what is new
            run.group, run.job_type = record.run.run_group or run.group, record.run.job_type or run.job_type
            run.tags = list(record.run.tags) or run.tags
            _update(run.config, record.run.config.update)
        elif kind == "config":
            _update(run.config, record.config.update)
        elif kind == "summary":
            _update(run.summary, record.summary.update)
        elif kind == "history":
            point: dict[str, Any] = {}
            _update(point, record.history.item)
            _log(run, point, folder)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    for values in (run.config, run.summary):
        for key in [key for key in values if key.startswith("_")]:  # W&B's own
            del values[key]
    return run


def _log(run: Written, point: dict[str, Any], folder: Path) -> None:
    plain = {key: value for key, value in point.items() if not key.startswith("_") and not isinstance(value, dict)}
    if plain:
        run.points.append(plain)
    for key, value in point.items():
        if isinstance(value, dict) and "table" in value.get("_type", ""):
            content = json.loads((folder / "files" / value["path"]).read_text())
            run.columns[key] = content["columns"]
            rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
            run.tables.setdefault(key, []).extend(rows)
        elif isinstance(value, dict) and value.get("_type") == "image-file":
            run.pictures[key] = folder / "files" / value["path"]


def _update(into: dict[str, Any], items) -> None:
    for item in items:
        *parents, last = item.nested_key or [item.key]
        place = into
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = json.loads(item.value_json)


def _records(content: bytes) -> Iterator[Any]:
    at, whole = _PREFIX, b""
    while at + _HEADER <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + _HEADER])
        whole += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (_WHOLE, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record
