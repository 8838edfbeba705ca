"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place once it is whole (durable: and has reached the disk).

    OSError where the disk is full or not writable; what was at `path` then stays.
    """
    part = path.with_name(f".{path.stem}.{uuid4().hex}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        if durable:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
