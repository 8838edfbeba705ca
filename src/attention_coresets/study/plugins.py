"""Modules of the user's own: imported before a configuration is composed, tried before any cell runs."""

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from attention_coresets.caches import CACHES, check_family
from attention_coresets.coresets import make_coreset
from attention_coresets.coresets.catalogue import CONSTRUCTIONS
from attention_coresets.coresets.conformance import check_construction
from attention_coresets.registry import build, source_of
from attention_coresets.study.disk import StudyError


def named_plugins(arguments: Sequence[str]) -> list[str]:
    """The modules that a command names: ``plugins=[one,two]``."""
    found = [argument.partition("=")[2] for argument in arguments if re.match(r"\+*plugins=", argument)]
    return [name for value in found for name in re.split(r"[\s,\[\]'\"]+", value) if name]


def load_plugins(names: Sequence[str]) -> None:
    """Import the modules, from where the command was started too. StudyError names one that fails and why."""
    if names and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a user's module does wrong
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise StudyError(
                f"plugins={name}: cannot be imported ({reason}); give a module as `import` takes it"
            ) from error


class PluginChecks:
    """Tries each construction and family of the user's own once, with the parameters that a sweep asks for."""

    def __init__(self) -> None:
        self._done: set[str] = set()

    def check(self, config: Mapping[str, Any]) -> None:
        """StudyError, in one line, where one breaks its type."""
        for part, registry in (("coreset", CONSTRUCTIONS), ("cache", CACHES)):
            asked = dict(config[part])
            key, name = f"{part} {sorted(asked.items())}", asked.pop("name")
            if key in self._done or name not in registry or source_of(registry[name]) is None:
                continue
            try:
                if part == "coreset":
                    check_construction(make_coreset(name, **asked))
                else:
                    check_family(build(registry, part, name, asked))
            except ValueError as error:
                raise StudyError(f"{part}={name}: {error}") from error
            self._done.add(key)
