"""One table holds rows that were measured in one way."""

from collections.abc import Collection, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from attention_coresets.study.disk import StudyError
from attention_coresets.study.manifests import Manifest

_MEASURED = ("adversary", "compute.dtype")  # overrides that change how errors are measured


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
