"""The text of a class that a user's module adds: results of an older text are not taken for its own."""

import ast
import hashlib
import inspect
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

_PYTHON, _INSTALLED = sysconfig.get_path("stdlib"), {"site-packages", "dist-packages"}


def source_digest(parameters: type) -> str:
    """A digest of the file that defines the class, and of every file of the user's own that it imports, however
    indirectly."""
    source = inspect.getsourcefile(parameters)
    files: dict[str, Path] = {}
    left = [(parameters.__module__, Path(source))] if source else []
    while left:
        module, path = left.pop()
        if path not in files.values():
            files[module] = path
            left += _imported(module, path)
    own, *others = [*files] or [""]
    texts = [files[module].read_bytes() for module in (own, *sorted(others)) if module]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


def _imported(module: str, path: Path) -> Iterator[tuple[str, Path]]:
    """The modules of the user's own that a module's file names in its imports, and their files."""
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
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
    top = name.partition(".")[0]
    if not top or top == __name__.partition(".")[0] or not _is_users(find_spec(top)):
        return None
    try:
        spec = find_spec(name)
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
