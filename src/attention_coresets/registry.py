"""Builds frozen dataclasses by name, for caches and constructions, with an error that knows the nearest name."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any


def build(registry: Mapping[str, type], kind: str, name: str, parameters: Mapping[str, Any]) -> Any:
    """Builds the registered dataclass `name`; ValueError names an unknown name or parameter and the nearest known."""
    check_name(name, registry, kind)
    known = [f.name for f in fields(registry[name])]
    for parameter in parameters:
        check_name(parameter, known, f"parameter of {kind} {name!r}")
    return registry[name](**parameters)


def check_name(name: str, known, kind: str) -> None:
    """Raises ValueError unless `name` is known; the message holds the nearest known name and the whole list."""
    if name in known:
        return
    near = get_close_matches(str(name), list(known), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}")
