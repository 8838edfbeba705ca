"""What a sweep is called, and where its grid is kept: an experiment at its tier, any other sweep under OWN."""

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from attention_coresets.study.disk import StudyError

OWN = "own"  # stands in the place of a tier, so that no tier's table takes these sweeps in
# overrides that leave a grid what it is
NEUTRAL = (
    "name",
    "experiment",
    "tier",
    "launcher",
    "tracking",
    "paths",
    "compute.device",
    "compute.threads",
    "hydra.launcher",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_KEY = re.compile(r"(?:^| )([A-Za-z_][\w.]*)=")
_LONGEST = 40  # of the part of a made name that says what is swept


class Place(NamedTuple):
    """Where the index of the store keeps a sweep's grid."""

    tier: str
    name: str


def check_name(name: str | None, experiments: Collection[str]) -> None:
    """StudyError where a name that was given is an experiment's, or would not do as a folder's."""
    if name is None:
        return
    if name in experiments:
        raise StudyError(f"name={name}: an experiment of the study is called so; give another name")
    if not _NAME.fullmatch(name):
        raise StudyError(f"name={name}: letters, digits, dots, dashes and underscores, 80 at most; the first no mark")


def place_of(config_name: str | None, experiment: str | None, tier: str, arguments: Sequence[str], label: str) -> Place:
    """The name given, else the experiment, else a name made of the keys that are swept (those of a cell's `label`) and
    a digest of what the command asks for: the same command has the same name."""
    if config_name is not None:
        return Place(OWN, config_name)
    return Place(tier, experiment) if experiment is not None else Place(OWN, _made(arguments, label))


def changing(overrides: Sequence[str]) -> list[str]:
    """Those of a command's overrides that change what is computed."""
    return [override for override in overrides if not override.lstrip("+~").startswith(NEUTRAL)]


def swept(label: str) -> dict[str, str]:
    """The keys and values of a cell's label, `cache=sphere cache.n=64`."""
    starts = [*_KEY.finditer(label)]
    if not starts:  # one cell, of which nothing is swept
        return {}
    ends = [*(start.start() for start in starts[1:]), len(label)]
    return {start[1]: label[start.end() : end] for start, end in zip(starts, ends, strict=True)}


def _made(arguments: Sequence[str], label: str) -> str:
    asked = sorted(changing(arguments))
    keys = "-".join(sorted(key.rpartition(".")[2] for key in swept(label))) or "cell"
    return f"{keys[:_LONGEST]}-{hashlib.sha256(' '.join(asked).encode()).hexdigest()[:4]}"
