"""What a sweep is called, and where its grid is kept: an experiment at its tier, any other sweep under OWN."""

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser

from attention_coresets.study.disk import StudyError
from attention_coresets.study.manifests import Manifest

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
_MEASURED = ("adversary", "compute.dtype")  # overrides that change how errors are measured, not of what
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


def refuse_mixed(before: Manifest, changes: Sequence[str], grid: Collection[str]) -> None:
    """StudyError where a run of an experiment measures in another way than the run before it, whose rows it adds to.

    changes: what the command changes of the experiment's file. grid: the keys that the experiment itself sweeps.
    """
    parser = OverridesParser.create()
    then, now = (
        [
            override
            for override in parser.parse_overrides([*run])
            if override.key_or_group.startswith(_MEASURED) and override.key_or_group not in grid
        ]
        for run in (before.overrides, changes)
    )
    if {o.key_or_group: o.value() for o in then} != {o.key_or_group: o.value() for o in now}:
        neither = "neither adversary nor dtype changed"
        had, has = (" ".join(str(o.input_line) for o in run) or neither for run in (then, now))
        raise StudyError(
            f"{before.experiment} ({before.tier}): its last run here had {had}, this one has {has}, and the table does"
            " not tell their rows apart; give name=..., which keeps this sweep for itself"
        )


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
