"""Where rows come from: revision with and without git, machine, which loops ran, and one word where slow ones did."""

import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pandas as pd
import pytest
import torch

import attention_coresets
from attention_coresets import compiled
from attention_coresets.adversary import gradient, steps
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.report.paper_repro import provenance as reported
from attention_coresets.compiled import backend
from attention_coresets.study import provenance as module
from attention_coresets.study.cell import run_cell
from attention_coresets.study.disk import StudyError
from attention_coresets.study.provenance import device_name, fast_path, processor, provenance, same_code
from attention_coresets.study.store import Manifest
from attention_coresets.study.table import COLUMNS, LABELS, MACHINE, Gathered, read_table, to_frame
from benchmarks import machine
from command_line import Shell, script
from synthetic_results import synthetic_table
from test_sweep import configuration

ROOT = Path(__file__).resolve().parents[1]
STATED = "0123456789abcdef0123456789abcdef01234567"
WALK = {"name": "gram_schmidt_walk", "model": "tilted", "scale": "auto", "recursion": "one_walk", "ridge": 1e-4}
needs_numba = pytest.mark.skipif(compiled.NUMBA_MISSING is not None, reason="needs numba")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Provenance is found once a process: anew in each test, and after the last."""
    monkeypatch.delenv("ATTENTION_CORESETS_REVISION", raising=False)
    provenance.cache_clear()
    yield
    provenance.cache_clear()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A function that takes a folder for the package's repository."""

    def take(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(module, "_REPOSITORY", folder.resolve())
        provenance.cache_clear()
        return folder

    return take


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def committed(folder: Path, text: str = "one", file: str = "src/code.py") -> str:
    """A commit of `text` in `file`, in a repository that is made where there is none; its hash."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main")
    (folder / file).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


def found() -> tuple[str, bool]:
    return provenance()["revision"], provenance()["dirty"]


# revision ----------------------------------------------------------------------------------------------------------


def test_a_checkout_tells_its_own_revision(place, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTENTION_CORESETS_REVISION", STATED)  # for copies: a checkout knows better
    head = committed(place(tmp_path))
    assert found() == (head, False)
    (tmp_path / "results.txt").write_text("rewritten by a sweep")
    place(tmp_path)
    assert found() == (head, False)
    (tmp_path / "src" / "new.py").write_text("")
    place(tmp_path)
    assert found() == (head, True)


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (STATED, (STATED, False)),
        (f" {STATED}-dirty\n", (STATED, True)),
        ("", ("unknown", True)),
        (None, ("unknown", True)),
    ],
)
@pytest.mark.parametrize("why", ["no .git", "no git", "within another repository", "no commit"])
def test_without_a_repository_of_its_own_the_variable_tells(why, variable, expected, place, tmp_path, monkeypatch):
    folder = place(tmp_path)
    if why == "no git":
        committed(folder)
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    if why == "within another repository":
        committed(folder)
        place(tmp_path / ".venv" / "lib" / "python3.11")
    if why == "no commit":
        git(folder, "init", "-q")
    if variable is not None:
        monkeypatch.setenv("ATTENTION_CORESETS_REVISION", variable)
    assert found() == expected


def test_what_git_describe_prints_is_understood(place, tmp_path, monkeypatch):
    """The command that message and page name, on a tagged commit, clean and changed."""
    head = committed(tmp_path / "source")
    git(tmp_path / "source", "tag", "-a", "v1", "-m", "v1")
    (command,) = re.findall(r"\$\((git describe .*)\)", (ROOT / "docs" / "results.md").read_text())
    assert command in " ".join((provenance.__doc__ or "").split())
    for dirty in (False, True):
        if dirty:
            (tmp_path / "source" / "src" / "code.py").write_text("changed")
        done = subprocess.run(command, shell=True, cwd=tmp_path / "source", capture_output=True, text=True, check=True)
        monkeypatch.setenv("ATTENTION_CORESETS_REVISION", done.stdout)
        place(tmp_path / "copy")
        assert found() == (head, dirty)


@pytest.mark.parametrize("value", ["main", "HEAD", STATED[:12], f"v1-3-g{STATED}", "-dirty", "--cached", STATED + "0"])
def test_a_variable_that_holds_no_commit_is_refused(value, place, tmp_path, monkeypatch):
    place(tmp_path)
    monkeypatch.setenv("ATTENTION_CORESETS_REVISION", value)
    with pytest.raises(StudyError, match=rf"ATTENTION_CORESETS_REVISION={value}: must be .* `git describe ") as caught:
        provenance()
    assert "\n" not in str(caught.value)


def test_a_hook_of_another_repository_does_not_lead_git_astray(place, tmp_path, monkeypatch):
    head = committed(place(tmp_path / "ours"))
    assert committed(tmp_path / "theirs", "other") != head
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "theirs" / ".git" / "index"))
    assert found() == (head, False)


def test_same_code_is_the_same_src(place, tmp_path):
    folder = place(tmp_path)
    other, first, last = committed(folder, "zero"), committed(folder), committed(folder, "page", "docs/page.md")
    assert [same_code(revision) for revision in (other, first, last)] == [False, True, True]
    assert not same_code(STATED)


def test_same_code_trusts_no_name(place, tmp_path):
    """Branches move, and one may be called as rows call what they do not know."""
    folder = place(tmp_path)
    committed(folder)
    git(folder, "branch", "unknown")
    assert not any(same_code(name) for name in ("main", "HEAD", "unknown", "", "--cached"))


def test_same_code_without_a_repository_is_the_stated_revision_alone(place, tmp_path, monkeypatch):
    head = committed(tmp_path)
    later = committed(tmp_path, "page", "docs/page.md")
    place(tmp_path / "site-packages")  # within a repository that knows both, and is not the package's
    assert not same_code(head)
    monkeypatch.setenv("ATTENTION_CORESETS_REVISION", head)
    provenance.cache_clear()
    assert same_code(head)
    assert not same_code(later)


@pytest.mark.parametrize(
    ("revision", "dirty", "noted"), [(STATED, False, False), (STATED, True, True), ("unknown", True, True)]
)
def test_collecting_notes_code_that_is_not_known_to_be_the_present_one(
    revision, dirty, noted, place, tmp_path, monkeypatch
):
    place(tmp_path)
    monkeypatch.setenv("ATTENTION_CORESETS_REVISION", STATED)
    rows = to_frame([row(revision=revision, dirty=dirty)])
    notes = script("collect")._notes([Gathered(Manifest("one", "smoke", [], []), rows, [])], [])
    expected = ["one: 1 cells were computed with other, uncommitted or unknown code"]
    assert notes == (expected if noted else [])


# machine -----------------------------------------------------------------------------------------------------------


def row(**values) -> dict:
    filler = {"str": "x", "float64": 0.5, "int64": 1, "bool": False}
    return {name: filler[kind] for name, kind in COLUMNS.items()} | {"tier": "smoke"} | values


def test_the_processor_is_the_machines_own_word_for_it(tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(module, "_CPUINFO", info)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor() == "aarch64"  # no such file
    info.write_text("processor\t: 0\nBogoMIPS\t: 50\n")
    assert processor() == "aarch64"  # a file without the name
    info.write_text("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some(R) CPU @ 2GHz \nstepping\t: 7\n")
    assert processor() == provenance()["processor"] == machine.machine()["processor"] == "Some(R) CPU @ 2GHz"


def test_devices_have_names(monkeypatch):
    assert device_name(torch.device("cpu")) == processor() != ""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert device_name(torch.device("cuda", 1)) == "card 1"


def test_tables_that_are_older_say_unknown(tmp_path):
    older = {name: value for name, value in row(cell="a").items() if name not in MACHINE}
    for rows in ([older], [older, row(cell="b"), older]):
        table = to_frame(rows)
        expected = ["unknown" if cell == "a" else "x" for cell in table["cell"]]
        assert [table[name].tolist() for name in MACHINE] == [expected] * len(MACHINE)
    table.drop(columns=list(MACHINE)).to_parquet(tmp_path / "table.parquet")
    assert set(read_table(tmp_path / "table.parquet")[list(MACHINE)].to_numpy().ravel()) == {"unknown"}


def test_the_report_names_machines_where_the_table_does():
    table = synthetic_table(caches=1).drop(columns=list(MACHINE), errors="ignore")
    assert reported(Results("quick", table, [])).endswith("; device cpu, float64.")
    table = table.assign(processor="Some CPU", device_name="Some CPU", fast_path="numba")
    table.loc[table.index[:3], ["device_name", "fast_path"]] = ["Some GPU", "torch"]
    assert reported(Results("quick", table, [])).endswith("; on Some CPU, Some GPU; loops in numba, torch.")


def test_geometry_names_the_processor_and_refuses_a_wrong_revision_before_the_work(place, tmp_path, monkeypatch):
    heads = script("heads")
    measured = []
    monkeypatch.setattr(heads, "_heads", lambda first: [first])
    monkeypatch.setattr(heads, "_row", lambda head: measured.append(head) or {"n": head.n})
    assert set(heads.measure_heads("smoke")["processor"]) == {processor()}
    place(tmp_path)
    monkeypatch.setenv("ATTENTION_CORESETS_REVISION", "main")
    measured.clear()
    with pytest.raises(StudyError):
        heads.measure_heads("smoke")
    assert measured == []


# loops -------------------------------------------------------------------------------------------------------------


@needs_numba
def test_rows_say_which_loops_ran(monkeypatch):
    config = configuration(coreset=WALK)
    rows = run_cell(config)
    assert {(r["device"], r["device_name"], r["processor"]) for r in rows} == {("cpu", processor(), processor())}
    assert {r["fast_path"] for r in rows} == {"numba"}
    with backend("torch"):
        slow = run_cell(config)  # and no word of it: numba is there
    assert {r["fast_path"] for r in slow} == {"torch"}
    assert {r["cell"] for r in slow} == {r["cell"] for r in rows}


@needs_numba
def test_each_size_says_it_for_itself(monkeypatch):
    """A walk among the sizes, where the adversary's loops are off: what ran for one size is not said of the next."""
    for place in (steps, gradient):
        monkeypatch.setattr(place, "compiled", None)
    rows = run_cell(configuration(coreset=WALK, heads=1, sizes=[8, 48]))
    assert [r["fast_path"] for r in rows] == ["numba", "torch"]  # all 48 tokens need no walk


@needs_numba
@pytest.mark.parametrize(("coreset", "expected"), [(WALK, "numba"), ({"name": "uniform", "sinks": 0}, "torch")])
def test_language_rows_say_which_loops_ran(coreset, expected):
    pytest.importorskip("transformers")
    from attention_coresets.study.language import run_cell
    from test_language import configuration as language

    rows = run_cell(language(coreset=coreset, sizes=[12]))
    assert [(r["fast_path"], r["device_name"], r["processor"]) for r in rows] == [(expected, processor(), processor())]


def test_a_device_without_compiled_loops_counts_none_and_needs_no_word(monkeypatch):
    monkeypatch.setattr(compiled, "NUMBA_MISSING", "gone")
    before = compiled.compiled_runs()
    for loop in (None, len):
        assert not compiled.runs_compiled(loop, torch.empty(1, device="meta"))
    assert fast_path(before) == "torch"


@needs_numba
def test_loops_are_counted_from_all_threads():
    before, x = compiled.compiled_runs(), torch.empty(1)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: all(compiled.runs_compiled(len, x) for _ in range(1000)), range(8)))
    assert compiled.compiled_runs()["numba"] == before["numba"] + 8000


def test_threads_say_it_once_together(monkeypatch):
    monkeypatch.setattr(compiled, "NUMBA_MISSING", "gone")
    monkeypatch.setattr(compiled, "_said", set())
    together = Barrier(8)

    def loop(_) -> bool:
        together.wait()
        return compiled.runs_compiled(None, torch.empty(1))

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(8) as pool:
            assert not any(pool.map(loop, range(8)))
    assert [w.category for w in said] == [compiled.SlowLoopWarning]


@needs_numba
def test_only_numba_may_be_missing():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        compiled.compiled_module("attention_coresets.no_such_module")


def test_nothing_else_is_done_without_in_silence():
    package = Path(attention_coresets.__file__).parent
    catching = {path.name for path in package.rglob("*.py") if "except ImportError" in path.read_text()}
    assert catching == {"compiled.py"}


WITHOUT = """
import sys, warnings
sys.modules["numba"] = None
import torch
warnings.simplefilter("always")
from attention_coresets import make_cache, make_coreset
from attention_coresets.adversary import steps
from attention_coresets.coresets.minimax import supports
from attention_coresets.coresets.walks import feature_walk
from attention_coresets.coresets.kernel import kernel_swaps
from attention_coresets.coresets.walks import pairs
from attention_coresets.coresets.walks import walk
from attention_coresets.study.cell import run_cell
loops = steps.compiled, supports.compiled, feature_walk.feature_steps, kernel_swaps.swap, pairs.pairs_compiled
assert loops + (walk.blocked_walk,) == (None,) * 6
print("imported", file=sys.stderr)
rows = run_cell({config})
print(*{{row["fast_path"] for row in rows}})
assert all(row["processor"] and row["device_name"] for row in rows)
cache = make_cache("sphere", n=64, d=4)
make_coreset("kernel_halving", model="unweighted")(cache, 16, 1.0, torch.Generator())
"""


def test_without_numba_one_line_says_so_at_the_first_slow_loop():
    """However many loops run slowly, whatever the filters; and importing the package runs none."""
    code = WITHOUT.format(config=configuration(coreset=WALK))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torch"]
    before, _, after = done.stderr.partition("imported\n")
    assert before == ""
    (line,) = [line for line in after.splitlines() if "numba" in line]
    assert line.count("SlowLoopWarning: numba cannot be imported (") == 1
    assert line.endswith('; pip install "attention-coresets[fast]"')
    assert len(after.splitlines()) == 2  # Python adds the line that asked


def test_rows_hold_the_columns_of_the_table():
    assert set(MACHINE) < set(run_cell(configuration(sizes=[8]))[0]) <= set(COLUMNS) - set(LABELS)


def test_committed_tables_are_still_read():
    tables = sorted((ROOT / "results").glob("*/table.parquet"))
    if not tables:
        pytest.skip("no results in this checkout")
    for path in tables:
        assert set(COLUMNS) == set(read_table(path).columns)
        assert not pd.isna(read_table(path)[list(MACHINE)]).any(axis=None)


def test_a_wrong_revision_stops_a_sweep_before_any_cell(place, tmp_path, monkeypatch, capfd):
    place(tmp_path / "copy")
    monkeypatch.setenv("ATTENTION_CORESETS_REVISION", "main")
    shell = Shell(tmp_path, monkeypatch, capfd)
    outcome = shell.probe()
    assert outcome.code == 1
    assert outcome.err.count("ATTENTION_CORESETS_REVISION=main: must be a commit's whole hash") == 1
    assert not shell.cells
