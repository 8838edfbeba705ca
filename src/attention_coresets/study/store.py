"""Finished cells on disk, one content-addressed file each, and which of them belong to which experiment.

    <results>/cells/<hash>.json                        rows, resolved configuration and provenance of a finished cell
    <results>/cells/index/<tier>/<experiment>.json     the grid of an experiment: a cell's hash, its arm and its label

Every file is written beside its place and renamed into it, so that a killed run leaves whole files or none.
"""

import errno
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attention_coresets import files
from attention_coresets.study.identity import cell_hash

Row = dict[str, Any]


class StudyError(Exception):
    """Something the user can put right: its text is one line with the value, the limit and the remedy."""


class DamagedError(StudyError):
    """A file of the store that cannot be what was written."""


class NotWrittenError(StudyError):
    """A result could not be put on disk."""


@dataclass(frozen=True)
class Member:
    """A cell as an experiment knows it; the label is what sets it apart within the sweep."""

    cell: str
    arm: str
    label: str


@dataclass(frozen=True)
class Manifest:
    """The grid of an experiment at a tier; `overrides`: what a run changed of the experiment's file, if anything."""

    experiment: str
    tier: str
    members: list[Member]
    overrides: list[str]


@dataclass(frozen=True)
class Store:
    """The cells under a results directory."""

    results: Path

    @property
    def cells(self) -> Path:
        return self.results / "cells"

    def path(self, cell: str) -> Path:
        return self.cells / f"{cell}.json"

    def prepare(self) -> None:
        """NotWrittenError unless cells can be written here: better known before the work than after it."""
        with replacing(self.cells / "probe", durable=False) as part:
            part.touch()
        self.cells.joinpath("probe").unlink(missing_ok=True)

    def write(self, config: Mapping[str, Any], rows: Sequence[Row]) -> Path:
        """Keep a finished cell. NotWrittenError where the disk is full."""
        path = self.path(cell_hash(config))
        write_atomically(path, json.dumps({"config": dict(config), "rows": list(rows)}, indent=1))
        return path

    def read(self, cell: str) -> list[Row] | None:
        """The rows of a finished cell, None where there is none. DamagedError where the file is damaged."""
        path = self.path(cell)
        if not path.exists():
            return None
        content = _read(path)
        try:
            intact = cell_hash(content["config"]) == cell and len(content["rows"]) > 0
        except (KeyError, TypeError) as error:
            raise _damaged(path, f"{type(error).__name__}: {error}") from error
        if not intact:
            raise _damaged(path, "its name is not that of its configuration, or no longer")
        return content["rows"]

    def finished(self, cell: str) -> list[Row] | None:
        """As `read`, but a damaged file is set aside under another name, which stderr names, and counts as none."""
        try:
            return self.read(cell)
        except DamagedError as error:
            _set_aside(self.path(cell), error)
            return None

    def record(self, manifest: Manifest) -> None:
        """Make the manifest the experiment's grid; a run that changed the file's grid adds to what is there instead."""
        members = manifest.members
        if manifest.overrides:
            before = self._before(manifest)
            members = list(dict.fromkeys([m for b in before for m in b.members] + members))
        content = {**asdict(manifest), "members": [asdict(member) for member in members]}
        write_atomically(self._index(manifest), json.dumps(content, indent=1))

    def manifest(self, tier: str, experiment: str) -> Manifest:
        path = self.cells / "index" / tier / f"{experiment}.json"
        content = _read(path)
        try:
            members = [Member(**member) for member in content.pop("members")]
            return Manifest(members=members, **content)
        except (KeyError, TypeError) as error:
            raise _damaged(path, f"{type(error).__name__}: {error}") from error

    def experiments(self, tier: str) -> list[str]:
        """Experiments that were run at this tier here."""
        return sorted(path.stem for path in (self.cells / "index" / tier).glob("*.json"))

    def _before(self, manifest: Manifest) -> list[Manifest]:
        """The manifest that this one adds to, if there is one that can be read."""
        if not self._index(manifest).exists():
            return []
        try:
            return [self.manifest(manifest.tier, manifest.experiment)]
        except DamagedError as error:
            _set_aside(self._index(manifest), error)
            return []

    def _index(self, manifest: Manifest) -> Path:
        return self.cells / "index" / manifest.tier / f"{manifest.experiment}.json"


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all. NotWrittenError where the disk is full or not writable."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """`files.replacing`, with NotWrittenError where the disk is full or not writable."""
    try:
        with files.replacing(path, durable) as part:
            yield part
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason, remedy = ("the disk is full", "free some space") if full else (error.strerror, "make it writable")
        raise NotWrittenError(
            f"cannot write to {path.parent}: {reason}; {remedy} and run again, finished cells are kept"
        ) from error


def _set_aside(path: Path, error: DamagedError) -> None:
    aside = path.with_name(f"{path.name}.damaged")
    with suppress(FileNotFoundError):  # another process was first
        path.replace(aside)
    print(f"{error}; it is kept as {aside.name}", file=sys.stderr)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path} cannot be read ({error.strerror}); make it readable") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> DamagedError:
    reason = textwrap.shorten(reason, 120, placeholder=" ...")
    return DamagedError(f"{path} is damaged ({reason}): a sweep sets it aside and computes it anew")
