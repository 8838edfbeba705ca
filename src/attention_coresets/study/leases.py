"""Who computes which cell at the moment, so that nothing is computed twice by sweeps that share a folder.

    leases/<worker>.worker   a process: machine, process id, Slurm job; touched every few seconds while it lives
    leases/<cell>.<k>        a hard link to the file of the process that has the cell

Making a link is exclusive on every file system that processes of several machines share, and the link is whole at once.
A lease of a dead process is never removed, for another could have taken the cell meanwhile. It is outbid: whoever makes
`<cell>.<k+1>` has the cell. The holder removes all links of a cell that it has finished or gives back, its own last.
"""

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from attention_coresets.study import slurm
from attention_coresets.study.disk import not_written, replacing

STALE = 900.0  # seconds without a sign of life after which a process elsewhere, not of Slurm, counts as dead


@dataclass(frozen=True)
class Worker:
    """A process that computes cells. `machine`: where its process id means something; `task`: of Slurm, if any."""

    id: str
    host: str
    machine: str
    pid: int
    born: int
    task: slurm.Task | None
    sweep: str
    silent: float = 0.0

    @property
    def here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.machine == _machine()

    @cached_property
    def alive(self) -> bool:
        """By its machine's processes here, else by Slurm's queue, else by its last sign of life."""
        if self.here:
            return _born(self.pid) == self.born
        running = slurm.running(self.task) if self.task is not None else None
        return self.silent < STALE if running is None else running


class Leases:
    """The cells that this process has. Use it as a context manager: whatever it still has at the end is given back."""

    def __init__(self, folder: Path, sweep: Path | str = "") -> None:
        self._folder = folder
        task = slurm.this_task()
        id = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.worker = Worker(id, socket.gethostname(), _machine(), os.getpid(), _born(os.getpid()), task, str(sweep))
        self._own = folder / f"{id}.worker"
        self.living: set[str] = set()  # processes, at the last look
        self._mine: dict[str, int] = {}
        self._held: dict[str, str] = {}  # by others that live
        self._dead: dict[str, tuple[int, int]] = {}  # generation and inode

    def __enter__(self) -> "Leases":
        with replacing(self._own, durable=False) as part:
            said = {key: value for key, value in asdict(self.worker).items() if key != "silent"}
            part.write_text(json.dumps(said), encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back(list(self._mine))
        self._own.unlink(missing_ok=True)

    def beat(self) -> None:
        """A sign of life."""
        os.utime(self._own)

    def look(self) -> dict[str, str]:
        """See what others have: cell to the name of the living process that has it."""
        owners = _owners(self._folder)
        last: dict[str, tuple[int, int]] = {}
        for entry in os.scandir(self._folder):
            cell, _, generation = entry.name.partition(".")
            if generation.isdigit() and int(generation) >= last.get(cell, (-1, 0))[0]:
                last[cell] = int(generation), entry.inode()
        self.living = {owner.id for owner in owners.values() if owner.alive}
        self._held, self._dead = {}, {}
        for cell, (generation, inode) in last.items():
            owner = owners.get(inode)
            if owner is not None and owner.id in self.living:
                self._held[cell] = owner.id
            else:
                self._dead[cell] = generation, inode
        return {cell: owner for cell, owner in self._held.items() if cell not in self._mine}

    def take(self, cell: str) -> bool:
        """Have the cell, unless another living process has it, as far as the last `look` and the disk know."""
        if cell in self._held:
            return False
        before, inode = self._dead.get(cell, (-1, 0))
        path = self._folder / f"{cell}.{before + 1}"
        if not self._link(path):
            return False
        if before >= 0 and _inode(self._folder / f"{cell}.{before}") != inode:
            path.unlink()  # the dead one's place was taken and given back meanwhile: whoever comes first has the cell
            return False
        self._mine[cell] = before + 1
        return True

    def has(self, cell: str) -> bool:
        """Whether the cell is still this process's: one that slept so long that it counted as dead has lost it."""
        path = self._folder / f"{cell}.{self._mine[cell]}"
        return _inode(path) == _inode(self._own) and not path.with_suffix(f".{self._mine[cell] + 1}").exists()

    def give_back(self, cells: Iterable[str]) -> None:
        """No longer have the cells, finished or not."""
        for cell in cells:
            for generation in range(self._mine.pop(cell) + 1):
                (self._folder / f"{cell}.{generation}").unlink(missing_ok=True)

    def _link(self, path: Path) -> bool:
        try:
            os.link(self._own, path)
        except FileExistsError:
            return _inode(path) == _inode(self._own)  # over a network the answer to a first, successful try may be lost
        except OSError as error:
            raise not_written(self._folder, error) from error
        return True


def workers(folder: Path) -> list[Worker]:
    """All processes that have a file in a folder of leases, dead ones too."""
    return list(_owners(folder).values())


def _owners(folder: Path) -> dict[int, Worker]:
    """Processes by the inode of their file, which is that of their leases."""
    found, paths = {}, list(folder.glob("*.worker"))
    now = _clock(folder) if paths else 0.0
    for path in paths:
        try:
            status, content = path.stat(), json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # it has just ended
            continue
        task = slurm.Task(**content.pop("task")) if content.get("task") else content.pop("task")
        found[status.st_ino] = Worker(**content, task=task, silent=now - status.st_mtime)
    return found


def _clock(folder: Path) -> float:
    """The time by the clock of the disk, which sets the times of files."""
    probe = folder / f"clock-{uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _machine() -> str:
    """A name for the running system, and the part of it in which process ids are told apart."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return socket.gethostname()
    return f"{boot.read_text(encoding='utf-8').strip()} {os.readlink('/proc/self/ns/pid')}"


def _born(pid: int) -> int:
    """When a process started, in its system's ticks; 0 where there is none of that id, or a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return int(not Path("/proc/self/stat").exists() and _exists(pid))
    return 0 if state == "Z" else int(fields[18])


def _exists(pid: int) -> bool:
    """Whether there is such a process, on a system without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
