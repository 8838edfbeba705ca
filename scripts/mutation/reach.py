"""Which tests reach a mutant, from one run of the suite under coverage in a copy of the tree.

Those that run its line. A loop that numba compiles is seen by no tracer: the tests of the modules that import it. A
default, a field or a constant is read at import: the tests of the function, of the class's methods, of the lines that
use the name. What only fixtures run counts for every test of their files.
"""

import ast
import collections
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from scripts.mutation.mutants import PACKAGE, Mutant


def environment(copy: Path) -> dict[str, str]:
    """One core, and a copy's package before the one that is installed."""
    return os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def cover(root: Path, work: Path, workers: int, tests: list[str]) -> int:
    """Copy what git knows or would add to work/base, run the tests there and write work/cover.json."""
    base = work / "base"
    if work.exists() and any(work.iterdir()) and not base.exists():
        raise SystemExit(f"{work} holds something else: give an empty folder as --work")
    shutil.rmtree(work, ignore_errors=True)
    command = ["git", "ls-files", "-coz", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=True).stdout
    for name in listed.split("\0"):
        if name and (root / name).is_file():  # not what was deleted
            (base / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, base / name)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "--durations=0", "--durations-min=0"]
    command += [f"--cov={PACKAGE}", "--cov-context=test", "--cov-report=", *tests]
    command += ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    done = subprocess.run(
        command, cwd=base, env=environment(base), stdout=subprocess.PIPE, encoding="utf-8", check=False
    )
    (work / "cover.log").write_text(done.stdout, encoding="utf-8")
    (work / "cover.json").write_text(
        json.dumps({"seconds": seconds_of(done.stdout), "lines": lines_of(base)}), encoding="utf-8"
    )
    print(done.stdout.splitlines()[-1])
    return 0


def seconds_of(output: str) -> dict[str, float]:
    """Seconds of each test, from pytest's output; without those that failed."""
    failed = set(re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE))
    seconds: dict[str, float] = collections.defaultdict(float)
    for time, test in re.findall(r"^([\d.]+)s (?:call|setup|teardown) +(\S.*?)$", output, re.MULTILINE):
        if test not in failed:
            seconds[test] += float(time)
    return seconds


def lines_of(base: Path) -> dict[str, dict[int, list[str]]]:
    """By file and line, the "test|phase" that ran it."""
    from coverage import CoverageData

    data = CoverageData(str(base / ".coverage"))
    data.read()
    found = {}
    for file in data.measured_files():
        by_line = {line: list(filter(None, names)) for line, names in data.contexts_by_lineno(file).items()}
        found[str(Path(file).relative_to(base))] = {line: names for line, names in by_line.items() if names}
    return found


class Reach:
    """The tests that reach a mutant, by what `cover` left in work."""

    def __init__(self, work: Path) -> None:
        content = json.loads((work / "cover.json").read_text(encoding="utf-8"))
        self.seconds: dict[str, float] = content["seconds"]
        self.lines = {file: {int(k): v for k, v in by_line.items()} for file, by_line in content["lines"].items()}
        files = {str(path.relative_to(work / "base")): path for path in (work / "base" / "src").rglob("*.py")}
        self.texts = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
        self.trees = {name: ast.parse(text) for name, text in self.texts.items()}

    def chosen(self, mutant: Mutant, budget: float) -> tuple[tuple[str, ...], int]:
        """Tests for at most `budget` seconds, one of each function first, the fastest first; how many are left out."""
        found = sorted(self.tests(mutant), key=lambda test: (self.seconds[test], test))
        earlier: dict[str, int] = collections.Counter()
        place = {}
        for test in found:
            earlier[function := test.partition("[")[0]] += 1
            place[test] = earlier[function]
        found.sort(key=place.__getitem__)
        within = sum(total <= budget for total in itertools.accumulate(self.seconds[test] for test in found))
        kept = found[: max(1, within)]
        return tuple(kept), len(found) - len(kept)

    def tests(self, mutant: Mutant) -> set[str]:
        """All tests that reach it."""
        file, line, tree = mutant.file, mutant.line, self.trees[mutant.file]
        if not any(line in body(f) for f in functions_of(tree)):  # run at import
            return self._of_users(file, line) or self._of_importers(file)
        compiled = any(isinstance(n, ast.ImportFrom) and n.module == "numba" for n in ast.walk(tree))
        return self._running(file, statement(tree, line)) or (self._of_importers(file) if compiled else set())

    def _running(self, file: str, rows: Iterable[int]) -> set[str]:
        """Tests that run one of these lines themselves, or whose file has a fixture that does."""
        names = [name.rpartition("|") for row in rows for name in self.lines.get(file, {}).get(row, [])]
        tests = {test for test, _, phase in names if phase == "run" and test in self.seconds}
        files = {test.partition("::")[0] for test, _, phase in names if phase == "setup"}
        return tests | {test for test in self.seconds if test.partition("::")[0] in files}

    def _of_users(self, file: str, line: int) -> set[str]:
        """Of the function of a default, the methods of a field's class, the lines with a constant's name."""
        tree = self.trees[file]
        owners = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef) and line in span(n)]
        if owners:
            inner = functions_of(max(owners, key=lambda n: n.lineno))
            return self._running(file, itertools.chain(*map(body, inner)))
        names = {n.id for s in tree.body if line in span(s) for n in ast.walk(s) if isinstance(n, ast.Name)}
        users = [f for f in self.trees if f == file or names & imported(self.trees[f], Path(file).stem)]
        return set().union(*(self._running(f, rows_with(self.trees[f], names)) for f in users))

    def _of_importers(self, file: str) -> set[str]:
        """Of the functions of modules that import this one, or ask for it by name."""
        name = re.compile(rf"\.{Path(file).stem}\b")
        users = [f for f, text in self.texts.items() if f != file and name.search(text)]
        return set().union(*(self._running(f, itertools.chain(*map(body, functions_of(self.trees[f])))) for f in users))


def functions_of(tree: ast.AST) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]


def body(function: ast.FunctionDef) -> range:
    """Lines of a function without its head."""
    return range(function.body[0].lineno, (function.end_lineno or 0) + 1)


def span(node: ast.stmt) -> range:
    """Lines of a statement, its decorators among them."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return range(first, (node.end_lineno or 0) + 1)


def statement(tree: ast.AST, line: int) -> range:
    """Lines of the innermost statement there; of a compound one those of its head."""
    inner = max((n for n in ast.walk(tree) if isinstance(n, ast.stmt) and line in span(n)), key=lambda n: n.lineno)
    inside = getattr(inner, "body", None)
    return range(inner.lineno, inside[0].lineno) if inside else span(inner)


def imported(tree: ast.AST, module: str) -> set[str]:
    """Names that are imported from a module of this name."""
    froms = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").split(".")[-1] == module]
    return {alias.name for n in froms for alias in n.names}


def rows_with(tree: ast.AST, names: set[str]) -> set[int]:
    """Lines on which one of the names is used."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Name | ast.Attribute)]
    return {n.lineno for n in found if (n.id if isinstance(n, ast.Name) else n.attr) in names}
