"""A construction and a family of the user's own, in a module elsewhere: run, or refused in one line."""

import hashlib
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attention_coresets.registry import source_of
from attention_coresets.study.store import Store

ROOT = Path(__file__).resolve().parent.parent
MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

import attention_coresets as ac


@dataclass(frozen=True)
class TopNorm(ac.Construction):
    """The tokens of largest value norm."""

    model: ClassVar[str] = "unweighted"
    short: int = 0

    def choose(self, request):
        norms = request.cache.values.norm(dim=-1)
        size = max(1, request.size - self.short)
        return ac.Coreset(norms.topk(size, dim=-1).indices.sort(dim=-1).values)


@dataclass(frozen=True)
class Lognormal:
    """Unit keys, values of lognormal length."""

    n: int = 64
    d: int = 4

    def sample(self, rng):
        keys, values = rng.standard_normal((2, self.n, self.d))
        keys /= (keys**2).sum(-1, keepdims=True) ** 0.5
        return keys, values * rng.lognormal(size=(self.n, 1))


ac.register_construction("top_norm", TopNorm)
ac.register_cache("lognormal", Lognormal)
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE)
    return tmp_path


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """As from a shell in the user's own folder."""
    where = [f"paths.results={folder / 'results'}", f"paths.outputs={folder / 'outputs'}"]
    command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), *arguments, *where, "adversary=tiny"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def test_a_sweep_over_ones_own_construction_and_family(folder):
    grid = ["-m", "plugins=[my_module]", "coreset=top_norm,uniform", "cache=lognormal", "cache.n=64", "sizes=[8,16]"]
    done = sweep(folder, *grid)
    assert done.returncode == 0, done.stderr
    assert "2 computed, 0 already done, 0 failed" in done.stderr
    store = Store(folder / "results")
    cells = [store.read(cell) for cell in store.finished()]  # here, where nobody knows the module
    assert {(row["coreset"], row["cache"], row["size"]) for rows in cells for row in rows or []} == {
        (name, "lognormal", size) for name in ("top_norm", "uniform") for size in (8, 16)
    }
    assert "0 computed, 2 already done" in sweep(folder, *grid).stderr
    # another text of the module is another construction
    (folder / "my_module.py").write_text(MODULE.replace("request.cache.values", "request.cache.keys"))
    assert "2 computed, 0 already done" in sweep(folder, *grid).stderr


@pytest.mark.parametrize(
    ("old", "new", "argument", "message"),
    [
        ("", "", "coreset.short=1", "coreset=top_norm: TopNorm fails for size 8 of 24 tokens: TopNorm kept (3, 7)"),
        ('    model: ClassVar[str] = "unweighted"\n', "", "rho=1", "TopNorm has no model; set it to one of tilted"),
        ("rng.lognormal(size=(self.n, 1))", "float('nan')", "rho=1", "cache=lognormal: values hold NaN"),
    ],
)
def test_what_breaks_the_type_is_refused_before_any_cell(folder, old, new, argument, message):
    (folder / "my_module.py").write_text(MODULE.replace(old, new) if old else MODULE)
    done = sweep(folder, "plugins=[my_module]", "coreset=top_norm", "cache=lognormal", "cache.n=64", argument)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert message in lines[0]
    assert not list(Store(folder / "results").finished())


def test_the_users_own_files_that_a_module_imports_are_part_of_it(tmp_path, monkeypatch, registries):
    """Also indirectly; those of installed packages and of Python are not."""
    monkeypatch.syspath_prepend(tmp_path)
    alone = "import json, numpy\n" + MODULE
    helped = "from my_helper import other\ndef late():\n    from my_late import x\n" + MODULE
    found = {}
    for name, module, other, late in (
        ("alone", alone, "x = 1", "x = 1"),
        ("alone again", alone, "x = 2", "x = 2"),
        ("one", helped, "x = 1", "x = 1"),
        ("two", helped, "x = 2", "x = 1"),
        ("in a function", helped, "x = 1", "x = 2"),
    ):
        (tmp_path / "my_module.py").write_text(module)
        (tmp_path / "my_helper.py").write_text("from parts.my_other import x as other\n")
        (tmp_path / "parts").mkdir(exist_ok=True)  # without an __init__.py
        (tmp_path / "parts" / "my_other.py").write_text(other)
        (tmp_path / "my_late.py").write_text(late)
        for own in ("my_module", "my_helper", "parts.my_other"):
            sys.modules.pop(own, None)
        importlib.invalidate_caches()
        found[name] = source_of(importlib.import_module("my_module").TopNorm)
    for own in ("my_module", "my_helper"):
        sys.modules.pop(own, None)  # other tests have modules of these names
    assert found["alone"] == found["alone again"] == hashlib.sha256(alone.encode()).hexdigest()[:16]
    assert len(set(found.values())) == 4


def test_a_new_construction_is_a_file_and_a_row(tmp_path):
    """A copy of the package with one file more, and in the catalogue one row and its import: the name works."""
    package = tmp_path / "src" / "attention_coresets"
    shutil.copytree(ROOT / "src" / "attention_coresets", package, ignore=shutil.ignore_patterns("__pycache__"))
    body = re.sub(r"(?s)@dataclass\(frozen=True\)\nclass Lognormal.*", "", MODULE).replace("ac.", "")
    imports = (
        "from attention_coresets.attention import Coreset\nfrom attention_coresets.coresets.base import Construction"
    )
    (package / "coresets/draws/top_norm.py").write_text(body.replace("import attention_coresets as ac", imports))
    catalogue = package / "coresets/catalogue.py"
    first = "from attention_coresets.coresets.draws.uniform import Uniform\n"
    more = first.replace("uniform", "top_norm").replace("Uniform", "TopNorm")
    text = catalogue.read_text().replace("    **EVICTION,\n", '    "top_norm": TopNorm,\n    **EVICTION,\n')
    catalogue.write_text(text.replace(first, first + more))
    code = "import attention_coresets as ac; ac.check_construction(ac.make_coreset('top_norm'))"
    environment = {"PYTHONPATH": str(tmp_path / "src"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
