"""The shape of the package: imports run one way, between modules and between folders; no flag is read by its name."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from attention_coresets.coresets.base import Construction

PACKAGE = "attention_coresets"
SOURCE = Path(__file__).resolve().parent.parent / "src"


@cache
def modules() -> dict[str, Path]:
    """Dotted names of all modules; a folder's __init__ has the folder's."""
    found = {}
    for path in sorted((SOURCE / PACKAGE).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The package's modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else node.module


def room(module: str) -> str:
    """The folder a module stands in; modules at the top of the package or of coresets/ are rooms of their own, and a
    question of the analysis is one room with its figures."""
    folder = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    if folder.startswith(f"{PACKAGE}.analysis.topics."):
        return ".".join(folder.split(".")[:4])
    return module if folder in (PACKAGE, f"{PACKAGE}.coresets") else folder


@cache
def edges() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imported(path, known)) - {name} for name, path in known.items() if name != PACKAGE}


def acyclic(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_modules_import_one_another_one_way():
    acyclic(edges())


def test_folders_import_one_another_one_way():
    graph: dict[str, set[str]] = {}
    for module, others in edges().items():
        graph.setdefault(room(module), set()).update(room(other) for other in others if room(other) != room(module))
    acyclic(graph)


def test_analysis_reads_only_results():
    """What is computed is not imported where results are read, but for names: the arms and the columns of the table."""
    allowed = {"coresets.arms", "study.table", "study.store", "study.names", "lower_bound", "theory", "upper_bound"}
    for module, others in edges().items():
        if module.startswith(f"{PACKAGE}.analysis"):
            beyond = {other.removeprefix(f"{PACKAGE}.") for other in others} - allowed
            assert all(other.startswith("analysis") for other in beyond), (module, beyond)


def test_no_flag_is_read_by_its_name():
    """getattr with a default would take a typo for a flag that is not set. The type's own check may ask for `model`."""
    flags, checks = set(Construction.__annotations__), SOURCE / PACKAGE / "coresets" / "conformance.py"
    for path in {*SOURCE.rglob("*.py"), *(SOURCE.parent / "scripts").rglob("*.py")} - {checks}:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                name = node.args[1]
                assert not (isinstance(name, ast.Constant) and name.value in flags), (path, node.lineno)


def test_configuration_has_few_files():
    assert len(list((SOURCE.parent / "conf").rglob("*.yaml"))) <= 70
