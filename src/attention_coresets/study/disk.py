"""Errors that the user can put right, and files that appear whole or not at all."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attention_coresets import files


class StudyError(Exception):
    """Something the user can put right: its text is one line with the value, the limit and the remedy."""


class NotWrittenError(StudyError):
    """A result could not be put on disk."""


def not_written(folder: Path, error: OSError) -> NotWrittenError:
    """The error of a full or protected disk, with its remedy."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason, remedy = ("the disk is full", "free some space") if full else (error.strerror, "make it writable")
    return NotWrittenError(f"cannot write to {folder}: {reason}; {remedy} and run again, finished cells are kept")


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """`files.replacing`, with NotWrittenError where the disk is full or not writable."""
    try:
        with files.replacing(path, durable) as part:
            yield part
    except OSError as error:
        raise not_written(path.parent, error) from error


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all. NotWrittenError where the disk is full or not writable."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def set_aside(path: Path, reason: str) -> None:
    """Move a damaged file out of the way and say so: what it held counts as not there."""
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    print(f"note: {path} is damaged ({reason}): moved to {aside.name}; its cells are computed again", file=sys.stderr)


def appended(path: Path, start: int) -> bytes:
    """What was added to a growing file since byte `start`, up to its last whole line; nothing where it is gone."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            text = file.read()
    except FileNotFoundError:
        return b""
    return text[: text.rfind(b"\n") + 1]
