"""Builds frozen dataclasses by name, for caches and constructions, with an error that knows the nearest name."""

from collections.abc import Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from attention_coresets.checks import number, whole
from attention_coresets.own_modules import source_digest

# of each class that a user's module has added: a digest of that module's text and of those of the user's own that it
# imports, so that results of older texts are not taken for theirs
_SOURCES: dict[type, str] = {}


def build(registry: Mapping[str, type], kind: str, name: str, parameters: Mapping[str, Any]) -> Any:
    """Builds the registered dataclass `name`; ValueError names an unknown name or parameter and the nearest known."""
    check_name(name, registry, kind)
    known = {field.name: field.type for field in fields(registry[name])}
    for parameter in parameters:
        check_name(parameter, known, f"parameter of {kind} {name!r}")
    return registry[name](**{key: _typed(key, known[key], value) for key, value in parameters.items()})


def _typed(name: str, kind: Any, value: Any) -> Any:
    """Returns a number of Python where the field has one, of NumPy's or a tensor's; ValueError where it is none."""
    if value is None and kind in (int | None, float | None):
        return None
    check = whole if kind in (int, int | None) else number if kind in (float, float | None) else None
    return value if check is None else check(name, value)


def add(registry: MutableMapping[str, type], kind: str, name: str, parameters: type) -> None:
    """Register a class that `check_dataclass` has passed; ValueError where the name is taken or cannot be typed.

    Registered again under its name, a class of the same module takes the place of the former.
    """
    if not name.isidentifier():
        raise ValueError(f"{kind} {name!r}: a name must be letters, digits and underscores, not beginning with a digit")
    taken = registry.get(name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (parameters.__module__, parameters.__qualname__):
        raise ValueError(f"{kind} {name}: the name is taken by {taken.__module__}.{taken.__qualname__}; choose another")
    registry[name] = parameters
    _SOURCES[parameters] = source_digest(parameters)


def check_dataclass(parameters: type) -> None:
    """Raise ValueError unless this class is a frozen dataclass."""
    if not is_dataclass(parameters):
        raise ValueError(f"{parameters.__name__} is no dataclass; write @dataclass(frozen=True) above the class")
    if not parameters.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise ValueError(f"{parameters.__name__} must be frozen; write @dataclass(frozen=True)")


def source_of(parameters: type) -> str | None:
    """A digest of the text of the user's module that has added the class; None for a class of the package."""
    return _SOURCES.get(parameters)


def check_name(name: str, known, kind: str) -> None:
    """Raises ValueError unless `name` is known; the message holds the nearest known name and the whole list."""
    if name in known:
        return
    near = nearest(name, known)
    hint = f"did you mean {near!r}? " if near else ""
    raise ValueError(f"unknown {kind} {name!r}; {hint}known: {', '.join(known)}")


def nearest(name: str, known, cutoff: float = 0.4) -> str | None:
    """The known name that is most like `name`, if any is."""
    return next(iter(get_close_matches(str(name), list(known), n=1, cutoff=cutoff)), None)
