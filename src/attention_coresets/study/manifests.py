"""The grids of experiments: a file for each run, so that any number of runs may record theirs at the same time.

<index>/<tier>/<experiment>/<time>-<random>.json   what one run asked for
<index>/<tier>/<experiment>.json                   the grid as it was kept before: counts as the first run
<index>/own/<name>/<time>-<random>.json            the same of a sweep that is of no experiment (`names`): its last run
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from attention_coresets.study.disk import StudyError, write_atomically


@dataclass(frozen=True)
class Member:
    """A cell as an experiment knows it; the label is what sets it apart within the sweep."""

    cell: str
    arm: str
    label: str


@dataclass(frozen=True)
class Manifest:
    """The grid of an experiment at a tier, or of another sweep under `names.OWN`.

    overrides: what a run changed of the experiment's file, if anything. command: what asked for it; older ones have
    none.
    """

    experiment: str
    tier: str
    members: list[Member]
    overrides: list[str]
    command: str = ""


def record(index: Path, manifest: Manifest) -> None:
    """Keep a run's grid. One without overrides makes those before it obsolete, and they are removed."""
    before = _files(index, manifest.tier, manifest.experiment)
    path = index / manifest.tier / manifest.experiment / f"{time.time_ns():020d}-{uuid4().hex[:8]}.json"
    content = {**asdict(manifest), "members": [[m.cell, m.arm, m.label] for m in manifest.members]}
    write_atomically(path, json.dumps(content))
    if not manifest.overrides:
        for old in before:
            old.unlink(missing_ok=True)


def read(index: Path, tier: str, experiment: str) -> Manifest:
    """The last grid that was the file's own and what runs with overrides have added to it since."""
    while True:
        try:
            runs = [_load(path) for path in _files(index, tier, experiment)]
            break
        except FileNotFoundError:  # a run that made it obsolete has removed it meanwhile
            continue
    own = max((at for at, run in enumerate(runs) if not run.overrides), default=0)
    # what a label leaves out depends on what else is swept: the same cell may have several
    members = {(member.cell, member.arm): member for run in runs[own:] for member in run.members}
    return Manifest(experiment, tier, list(members.values()), runs[-1].overrides, runs[-1].command)


def _files(index: Path, tier: str, experiment: str) -> list[Path]:
    older = index / tier / f"{experiment}.json"
    return [older] * older.exists() + sorted((index / tier / experiment).glob("[0-9]*.json"))


def _load(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        members = [Member(**m) if isinstance(m, dict) else Member(*m) for m in content.pop("members")]
        return Manifest(members=members, **content)
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"{path} is damaged ({type(error).__name__}: {error}): delete it and run the experiment again"
        ) from error
