"""A planned sweep on disk: what any process, on any machine that shares the disk, needs to work on it.

<sweep>/sweep.json      what it is called, where its results go, modules of the user's own
<sweep>/plan            a line a cell: name, group, text, label and resolved configuration, tab between them
<sweep>/board/*.log     what became of the cells (`progress`)
<sweep>/multirun.yaml   the configuration, as Hydra composed it
<sweep>/sweep.log       the command, failures with their cells, the summary
<sweep>/slurm/          the script and the logs of its jobs
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from attention_coresets.study.cell import READING
from attention_coresets.study.disk import StudyError, replacing, write_atomically
from attention_coresets.study.parts import named
from attention_coresets.study.store import Store


class Cell(NamedTuple):
    """A cell of a plan."""

    name: str
    label: str
    config: dict[str, Any]

    @property
    def group(self) -> str:
        """Cells of one group take about the same time, as far as one knows beforehand."""
        name, parameters = named(self.config["coreset"])
        return group_of(name, json.dumps(parameters, sort_keys=True), self.config["cache"].get("n"))

    @property
    def text(self) -> str:
        """The text that a model reads for the cell, and a process keeps for its next cell; "" where there is none."""
        if self.config.get("task") not in READING:
            return ""
        cache = {key: value for key, value in self.config["cache"].items() if key not in ("layer", "kv_head")}
        return json.dumps([cache, self.config.get("probe")], sort_keys=True)


@dataclass(frozen=True)
class Sweep:
    """A planned sweep. `done`: cells of its grid that were finished before it; `directory`: where the user started it.

    seconds: what cells took that were finished before, by group.
    """

    folder: Path
    title: str
    results: Path
    done: int
    plugins: list[str]
    directory: Path
    seconds: dict[str, float]

    @property
    def store(self) -> Store:
        return Store(self.results)

    @property
    def board(self) -> Path:
        return self.folder / "board"

    def save(self) -> None:
        """Put all but the plan on disk."""
        content = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        write_atomically(self.folder / "sweep.json", json.dumps(content))

    def jobs(self) -> "Jobs":
        """The cells of the plan."""
        return Jobs(self.folder / "plan")


def load_sweep(folder: Path) -> Sweep:
    """A planned sweep from its folder. StudyError where there is none."""
    path = folder / "sweep.json"
    if not path.exists():
        raise StudyError(f"{folder}: no sweep was planned here; `python scripts/running.py` lists those that run")
    content = json.loads(path.read_text(encoding="utf-8"))
    paths = {key: Path(content[key]) for key in ("results", "directory")}
    return Sweep(**content | paths | {"folder": folder})


def write_plan(folder: Path, cells: Iterable[Cell]) -> int:
    """Put a plan on disk as its cells come; how many there were. An error among them leaves none."""
    written = 0
    with replacing(folder / "plan", durable=False) as part, part.open("w", encoding="utf-8") as file:
        for cell in cells:
            label, config = " ".join(cell.label.split()), json.dumps(cell.config, separators=(",", ":"))
            file.write(f"{cell.name}\t{cell.group}\t{cell.text}\t{label}\t{config}\n")
            written += 1
    return written


def group_of(coreset: str, parameters: str, n: int | None) -> str:
    """The name of a group of cells: construction, its parameters (JSON, keys sorted), tokens."""
    return f"{coreset} {parameters} n={n}"


class Jobs:
    """The cells of a plan by number. Configurations stay on disk until one is asked for."""

    def __init__(self, path: Path) -> None:
        self.names: list[str] = []
        self.groups: list[str] = []
        self.texts: list[str] = []
        self.labels: list[str] = []
        self._starts: list[int] = []
        self._path = path
        known: dict[str, str] = {}  # one string for all that are equal
        start = 0
        with path.open("rb") as file:
            for line in file:
                name, group, text, label, _ = line.split(b"\t", 4)
                self.names.append(name.decode())
                self.groups.append(known.setdefault(group.decode(), group.decode()))
                self.texts.append(known.setdefault(text.decode(), text.decode()))
                self.labels.append(label.decode())
                self._starts.append(start)
                start += len(line)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def config(self, job: int) -> dict[str, Any]:
        """The resolved configuration of a cell."""
        with self._path.open("rb") as file:
            file.seek(self._starts[job])
            return json.loads(file.readline().rpartition(b"\t")[2])
