"""Builds frozen dataclasses by name, for caches and constructions, with an error that knows the nearest name."""

import ast
import hashlib
import inspect
import sysconfig
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attention_coresets.checks import number, whole

# of each class that a user's module has added: a digest of that module's text and of those of the user's own that it
# imports, so that results of older texts are not taken for theirs
_SOURCES: dict[type, str] = {}
_PYTHON, _INSTALLED = sysconfig.get_path("stdlib"), {"site-packages", "dist-packages"}


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
    _SOURCES[parameters] = _digest(parameters)


def _digest(parameters: type) -> str:
    """Of the file that defines the class, and of every file of the user's own that it imports, however indirectly."""
    source = inspect.getsourcefile(parameters)
    if not source:
        return hashlib.sha256(b"").hexdigest()[:16]
    first, name = Path(source), parameters.__module__
    reached: dict[str, Path] = {}
    left = [(first, name if first.stem == "__init__" else name.rpartition(".")[0])]
    while left:
        for imported, path in _imports(*left.pop()):
            if imported not in reached and path != first:
                reached[imported] = path
                left.append((path, imported if path.stem == "__init__" else imported.rpartition(".")[0]))
    texts = [first, *(reached[imported] for imported in sorted(reached))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in texts)).hexdigest()[:16]


def _imports(path: Path, package: str) -> Iterator[tuple[str, Path]]:
    """The modules of the user's own that a file of a package names in its imports, and their files."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        parts = [name.split(".") for name in names]
        for name in dict.fromkeys(".".join(each[:k]) for each in parts for k in range(1, len(each) + 1)):
            if (found := _users_file(name)) is not None:
                yield name, found


def _users_file(name: str) -> Path | None:
    """The file of a module, unless it has none, or it is Python's, installed or this package's."""
    top, _, below = name.partition(".")
    if not top or top == __name__.partition(".")[0] or not _is_users(find_spec(top)):
        return None
    try:
        spec = find_spec(name) if below else find_spec(top)
    except ModuleNotFoundError:  # `from module import name`, where the name is no module
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _is_users(spec: ModuleSpec | None) -> bool:
    if spec is None:
        return False
    own = [spec.origin] if spec.has_location and spec.origin else []
    paths = [Path(place) for place in (*own, *(spec.submodule_search_locations or ()))]
    return bool(paths) and not any(
        path.is_relative_to(_PYTHON) or _INSTALLED.intersection(path.parts) for path in paths
    )


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
