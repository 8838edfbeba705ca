"""Mutants: what is changed and what is left alone, which tests reach a change, and three trials in a small project."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.mutate import main, wilson
from scripts.mutation.mutants import EXCLUDED, PACKAGE, changed, core, excluded, mutants_of
from scripts.mutation.reach import Reach, seconds_of, statement

ROOT = Path(__file__).resolve().parent.parent


def changes(source: str) -> list[tuple[str, str]]:
    return [(m.old, m.new) for m in mutants_of("x.py", source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("2.0", ["2.1"]),
        ("0.0", ["1.0"]),
        ("3", ["4"]),
        ("True", ["False"]),
        ("a + b", ["(a - b)"]),
        ("a / b", ["(a * b)"]),
        ("-a", ["(a)"]),
        ("-1", []),
        ("-1.0", ["(1.0)"]),
        ("not a", ["(a)"]),
        ("a and b", ["(a or b)"]),
        ("a < b <= c", ["(a <= b <= c)", "(a < b < c)"]),
        ("a == b", ["(a != b)"]),
        ("min(a, b)", ["max(a, b)"]),
        ("x.clamp_min(a)", ["x.clamp_max(a)"]),
        ("x.amax(-1)", ["x.amin(-1)"]),
        ("'text'", []),
        ("a @ b", []),
    ],
)
def test_what_stands_in_place_of_an_expression(source, expected):
    assert list(changed(ast.parse(source, mode="eval").body)) == expected


def test_the_changed_node_alone_is_replaced_also_behind_letters_of_two_bytes():
    source = 'x = {"ρ": 1}  # ρ\ny = f(x["ρ"] + 2,\n      k)\nx -= y\n'
    mutants = mutants_of("x.py", source)
    texts = {m.apply(source.encode()).decode() for m in mutants}
    assert texts == {
        source.replace("1}", "2}"),
        source.replace('x["ρ"] + 2', "(x['ρ'] - 2)"),
        source.replace("+ 2", "+ 3"),
        source.replace("-=", "+="),
    }
    assert sorted(m.line for m in mutants) == [1, 2, 2, 4]
    with pytest.raises(ValueError, match="run `cover` again"):
        mutants[0].apply(source.encode()[1:])


SILENT = '''
"""Text of 3 words."""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    n = 1

@decorated(cache=True)
def f(x: Array[3], *, k: int) -> Array[4]:
    assert x, f"needs {k + 1}"
    for a, b in zip(x, x, strict=True):
        raise ValueError(f"{a} must be at least {1}", 2 + 3)

class C:
    def __repr__(self):
        return str(1)
'''


def test_annotations_decorators_errors_and_texts_are_left_alone():
    assert changes(SILENT) == []


def test_every_exclusion_has_its_reason_and_meets_a_line_of_the_core():
    lines = [(file, line) for file in core(ROOT) for line in (ROOT / file).read_text().splitlines()]
    for file_rule, line_rule, old_rule, why in EXCLUDED:
        assert len(why) > 10
        inner = re.compile(old_rule.strip("^$") or ".")
        assert any(re.search(file_rule, f) and re.search(line_rule, x) and inner.search(x) for f, x in lines), why
    assert excluded("f.py", "_BLOCK = 2**4", "4")
    assert excluded("f.py", "x / n.clamp_min(1e-300)", "1e-300")
    assert not excluded("f.py", "x / n.clamp_min(1e-300)", "x / n.clamp_min(1e-300)")
    assert not excluded("f.py", "_WIDER = 1.25", "1.25")


def test_the_core_is_what_it_says():
    files = {file.removeprefix(f"{PACKAGE}/") for file in core(ROOT)}
    assert {"theory.py", "coresets/walks/walk_compiled.py", "coresets/eviction/h2o.py", "caches/sphere.py"} <= files
    assert not {file for file in files if file.startswith(("analysis", "study", "models/serving", "models/capture"))}


OURS = """
from numba import njit
LIMIT = 2.0
def plain(x, k=3):
    y = (x +
         k)
    if y > 1:
        y = 5
    return y
class Rule:
    c: float = 1.0
    def __call__(self):
        return self.c + 4
@njit
def loop(x):
    return x + 1
"""
USER = "from attention_coresets.ours import LIMIT, loop\ndef use(x):\n    return loop(x) / LIMIT\n"


@pytest.fixture
def reach(tmp_path: Path) -> Reach:
    """Four tests: `t` and two rows of `p` in one file, and `u`, which runs USER; line 8 is run by a fixture alone."""
    folder = tmp_path / "base" / PACKAGE
    folder.mkdir(parents=True)
    for name, text in (("ours", OURS), ("user", USER)):
        (folder / f"{name}.py").write_text(text)
    t, p, u = "a.py::t|run", ["a.py::p[1]|run", "a.py::p[2]|run"], "b.py::u|run"
    ours = {5: [t, *p], 6: [t, *p], 7: [t], 8: ["b.py::u|setup"], 9: [t], 13: [p[0]]}
    lines = {f"{PACKAGE}/ours.py": ours, f"{PACKAGE}/user.py": {3: [u]}}
    seconds = {"a.py::t": 3.0, "a.py::p[1]": 1.0, "a.py::p[2]": 2.0, "b.py::u": 1.0}
    (tmp_path / "cover.json").write_text(json.dumps({"seconds": seconds, "lines": lines}))
    return Reach(tmp_path)


@pytest.mark.parametrize(
    ("old", "tests"),
    [
        ("1", {"a.py::t"}),  # of the head of an if
        ("(x +\n         k)", {"a.py::t", "a.py::p[1]", "a.py::p[2]"}),
        ("5", {"b.py::u"}),  # run by a fixture
        ("3", {"a.py::t", "a.py::p[1]", "a.py::p[2]", "b.py::u"}),  # a default: all that run the function
        ("1.0", {"a.py::p[1]"}),  # a field: what runs a method
        ("2.0", {"b.py::u"}),  # a constant: what runs a line with its name, elsewhere too
    ],
)
def test_a_mutant_is_reached_by(reach, old, tests):
    file = f"{PACKAGE}/ours.py"
    found = {m.old: m for m in reversed(mutants_of(file, OURS)) if m.line < 15}
    assert reach.tests(found.get(old) or found[old.strip("()")]) == tests


def test_compiled_loops_are_reached_through_who_imports_them(reach):
    file = f"{PACKAGE}/ours.py"
    last = [m for m in mutants_of(file, OURS) if m.line == 16]
    assert len(last) == 2
    assert [reach.tests(m) for m in last] == [{"b.py::u"}] * 2
    plain = mutants_of(f"{PACKAGE}/user.py", USER)[0]
    reach.lines[f"{PACKAGE}/user.py"] = {}
    assert reach.tests(plain) == set()


def test_one_test_of_each_function_comes_first_and_the_budget_is_kept(reach):
    mutant = next(m for m in mutants_of(f"{PACKAGE}/ours.py", OURS) if m.line == 5)
    assert reach.chosen(mutant, 10.0) == (("a.py::p[1]", "a.py::t", "a.py::p[2]"), 0)
    assert reach.chosen(mutant, 4.0) == (("a.py::p[1]", "a.py::t"), 1)
    assert reach.chosen(mutant, 0.1) == (("a.py::p[1]",), 2)


def test_statements_of_several_lines():
    tree = ast.parse(OURS)
    assert [list(statement(tree, line)) for line in (6, 7, 8)] == [[5, 6], [7], [8]]


def test_seconds_are_read_off_pytests_output():
    lines = ["1.50s call     a.py::t[x y]", "0.25s setup    a.py::t[x y]", "9.00s call     a.py::bad"]
    assert seconds_of("\n".join([*lines, "FAILED a.py::bad - assert 1", ""])) == {"a.py::t[x y]": 1.75}


def test_the_interval_of_a_share():
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


SMALL = {
    "src/small.py": "def double(x):\n    return 2 * x\ndef wait(n):\n    while n > 0:\n        n -= 1\n    return n\n",
    "tests/test_small.py": """
import small
def test_double():
    assert small.double(3) == 6
def test_weak():
    assert small.double(3) > 5
def test_wait():
    assert small.wait(3) == 0
""",
    "pytest.ini": "[pytest]\n",
}
TRIALS = """
import json, sys
from pathlib import Path
import hypothesis, pytest
from scripts.mutation.mutants import mutants_of
from scripts.mutation.trial import Trial, copy_for_this_worker, execute
work = Path(sys.argv[1])
copy_for_this_worker(work)
found = {(m.old, m.new): m for m in mutants_of("src/small.py", (work / "base/src/small.py").read_text())}
runs = [(("2", "3"), "double", 60), (("2", "3"), "weak", 60), (("n -= 1", "n += 1"), "wait", 2), (None, "double", 60)]
for change, test, limit in runs:
    line = execute(Trial(change and found[change], (f"tests/test_small.py::test_{test}",), 0, limit))
    print(json.dumps([line["result"], line["by"]]))
"""


def test_trials_in_a_small_project(tmp_path):
    """One that a test sees, one that it does not, one without end, and unchanged code after them."""
    for name, text in SMALL.items():
        (tmp_path / "base" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "base" / name).write_text(text)
    command = [sys.executable, "-c", TRIALS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        ["killed", "tests/test_small.py::test_double"],
        ["survived", ""],
        ["killed", "the time limit"],
        ["survived", ""],
    ]
    assert (next(tmp_path.glob("worker-*")) / "src/small.py").read_text() == SMALL["src/small.py"]


def test_the_report_counts_and_lists(tmp_path, capsys):
    line = {"file": f"{PACKAGE}/theory.py", "line": 7, "old": "a", "new": "b", "code": "x = a", "by": "", "left_out": 2}
    results = [line | {"result": kind} for kind in ("killed", "killed", "survived", "uncovered")]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(x) + "\n" for x in results))
    assert main(["--work", str(tmp_path), "report"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == "    2 killed     1 survived     1 uncovered   50% [15%, 85%]  all"
    assert out[2:4] == ["survived (2 tests left out): theory.py:7: a -> b", "    x = a"]
