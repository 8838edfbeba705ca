"""Installs as people have them: read-only, without a home, in another locale, outside the environment, odd paths."""

import ast
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from attention_coresets import Cache, QueryBody, Stream, make_cache, make_coreset, tilt, worst_query
from attention_coresets.study.store import Store
from command_line import Shell, script

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("cache.n=32", "cache.d=4", "sizes=[8]", "adversary=tiny", "arm=uniform")
# run where numba knows no folder but one that it is given, as if neither package nor home could be written to
NOWHERE = """
import numba, pathlib
from attention_coresets import make_cache, make_coreset
from attention_coresets.compiled import compiled_runs
kept = make_coreset("kernel_halving")(make_cache("sphere", n=16, d=2), 4, 1.0, 0)
assert compiled_runs() > 0
assert pathlib.Path(numba.config.CACHE_DIR).is_dir()
print(numba.config.CACHE_DIR, *kept.indices.tolist())
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=variables, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_compiled_loops_run_where_nothing_can_be_kept(monkeypatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    done = python("-c", NOWHERE, NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator")
    assert done.returncode == 0, done.stderr
    folder, *tokens = done.stdout.split()
    expected = make_coreset("kernel_halving")(make_cache("sphere", n=16, d=2), 4, 1.0, 0)
    assert list(map(int, tokens)) == expected.indices.tolist()
    assert not Path(folder).exists()  # it went with the process


def test_output_is_printed_in_any_locale() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import ready; print('\\u03c1 = 2')"
    done = python("-c", shown, **plain)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u03c1 = 2\n", "")


def _text_calls(path: Path) -> list[str]:
    """Calls that read or write text without saying its encoding."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg for keyword in node.keywords}
        modes = [a.value for a in node.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in ("os", "Image"):
            continue  # no text
        text = name in ("read_text", "write_text") or (name == "open" and not any("b" in mode for mode in modes))
        if (text or (name in ("run", "Popen") and "text" in given)) and "encoding" not in given:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    return found


def test_every_file_is_read_and_written_as_utf8() -> None:
    paths = [path for folder in ("src", "scripts", "examples") for path in (ROOT / folder).rglob("*.py")]
    found = [call for path in sorted(paths) for call in _text_calls(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "scripts").glob("*.py")))
def test_a_python_without_the_packages_is_told_how_to_get_them(name: str) -> None:
    if name in ("mutate",):
        pytest.skip("needs the standard library alone")
    done = python("-S", str(ROOT / "scripts" / f"{name}.py"), PYTHONPATH="")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    for part in ("error: ", "has no torch, pandas, hydra", "bash scripts/setup.sh && source .venv/bin/activate"):
        assert part in done.stderr


@pytest.fixture
def shell(tmp_path: Path, monkeypatch, capfd) -> Shell:
    return Shell(tmp_path, monkeypatch, capfd)


SLOW_PATHS = [pytest.param(folder, marks=pytest.mark.slow) for folder in ("a b", "a=b", "grün")]


@pytest.mark.parametrize("folder", ["a,b", "a b, c=d [grün]", *SLOW_PATHS])
def test_paths_of_any_letters(shell: Shell, folder: str) -> None:
    """Refused with the quoted form, which then does what it says."""
    path = shell.directory / folder
    outputs = f"paths.outputs={shell.outputs}"
    first = shell._run("sweep", [*SMALL, outputs, f"paths.results={path}"])
    quoted = f'paths.results="{path}"'
    if first.code:
        assert len(first.err.splitlines()) == 1
        assert first.err.endswith(f"'{quoted}'\n")
        assert "quoted" in first.err
    assert shell._run("sweep", [*SMALL, outputs, quoted]).code == 0
    assert shell._run("sweep", ["-m", *SMALL, outputs, quoted, "seed=0,1"]).code == 0
    assert len(list(Store(path).finished())) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        ("report", ["--root", "/missing"], ("/missing is no folder", "give the repository")),
        ("report", ["--results", "/missing"], ("no tier has a table in /missing", "bash scripts/reproduce.sh")),
        ("figures", ["--results", "/missing"], ("/missing/reduced/table.parquet is missing", "scripts/sweep.py")),
        ("fit", ["--results", "/missing"], ("/missing/reduced/table.parquet is missing", "scripts/collect.py")),
        ("collect", ["--results", "/missing"], ("no experiment was run at tier reduced under /missing/cells",)),
        ("publish_wandb", ["--results", "/missing"], ("/missing/reduced/table.parquet is missing",)),
        ("publish_wandb", ["--outputs", "/dev/null/x"], ("cannot write to /dev/null/x", "make it writable")),
        (
            "figures",
            ["--tier", "reduced", "--name", "headline", "--figures", "/dev/null/x"],
            ("cannot write to /dev/null/x", "make it writable"),
        ),
        ("sweep", [*SMALL, "paths.outputs=/dev/null"], ("cannot use /dev/null", "give another path")),
        ("sweep", [*SMALL, "paths.results=/dev/null/x"], ("cannot write to /dev/null/x/cells", "make it writable")),
    ],
)
def test_folders_that_are_not_there_or_not_writable(shell: Shell, name: str, arguments: list[str], parts) -> None:
    extra = [] if name != "sweep" else [one for one in shell.paths if one.split("=")[0] not in " ".join(arguments)]
    outcome = shell._run(name, [*arguments, *extra])
    assert outcome.code in (1, 2)
    assert len(outcome.err.splitlines()) == 1
    for part in parts:
        assert part in outcome.err


def _saved(tmp_path: Path) -> dict[str, object]:
    cache = make_cache("sphere", n=24, d=3, heads=2)
    stream = Stream("greedy", 4, 1.0)
    stream.add(cache.keys, cache.values)
    coreset = make_coreset("gram_schmidt_walk")(cache, 8, 1.5, 0)
    return {
        "coreset": coreset,
        "one head": coreset[1],
        "unweighted": make_coreset("uniform")(cache, 8, 1.5, 0),
        "everything": make_coreset("uniform")(cache, 24, 1.5, 0),
        "held": stream.coreset(),
        "cache": cache,
        "weighted": make_cache("biased_logits", n=24, d=3),
        "body": QueryBody.ball(3),
        "tilt": tilt(cache.keys, 1.5),
        "worst": worst_query(cache, coreset, 1.5, restarts=8, steps=2, polish=2, certify=True, gap=0.3),
    }


def _equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(_equal(getattr(one, n), getattr(other, n)) for n in names)
    return one == other


def test_results_are_saved_and_loaded_by_torch(tmp_path: Path) -> None:
    saved = _saved(tmp_path)
    for name, value in saved.items():
        torch.save(value, tmp_path / "file.pt")
        assert _equal(torch.load(tmp_path / "file.pt"), value), name
    assert not _equal(saved["cache"], Cache(*(x + 1 for x in (saved["cache"].keys, saved["cache"].values))))


def test_coresets_are_saved_and_loaded_by_safetensors(tmp_path: Path) -> None:
    saved = _saved(tmp_path)
    for name in ("coreset", "one head", "unweighted", "everything", "held"):
        coreset = saved[name]
        tensors = {key: value for key, value in vars(coreset).items() if value is not None}
        save_file(tensors, tmp_path / "file.safetensors")
        loaded = type(coreset)(**{"log_weights": None, **load_file(tmp_path / "file.safetensors")})
        assert _equal(loaded, coreset), name


def test_every_script_says_what_is_not_set_up() -> None:
    """The first import of each, before any that could fail."""
    for path in (ROOT / "scripts").glob("*.py"):
        if path.stem in ("ready", "mutate"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        first = next(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
        assert isinstance(first, ast.Import), path
        assert first.names[0].name == "ready", path
    assert script("ready").check is not None
