"""The library alone, as `pip install .` gives it: built as a wheel, run where only torch, numpy and jaxtyping exist."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ImportError(f"No module named {{name!r}}")

sys.meta_path.insert(0, Absent())
sys.path.insert(0, {wheel!r})
import warnings
warnings.simplefilter("ignore")  # numba is absent, which is said once
import torch
import attention_coresets as ac

assert ac.__file__.startswith({wheel!r}), ac.__file__
cache = ac.make_cache("sphere", n=64, d=4, heads=2)
for name in ac.CORESETS:
    construct = ac.make_coreset(name)
    # the optimum needs scipy, the coordinate subset signed clusters
    if name != "optimum" and not construct.needs_queries:
        coreset = construct(cache, 16, 2.0, torch.Generator().manual_seed(0))
        worst = ac.worst_query(cache, coreset, 2.0, certify=True, restarts=4, steps=5, polish=2)
        assert (worst.error <= worst.certificate).all(), name
print(*sorted(sys.modules))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(folder)!r}))"
    source = folder / "source"
    source.mkdir()
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def extras() -> set[str]:
    """What the extras install beyond the core, by the names they are imported by."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line for extra in project["optional-dependencies"].values() for line in extra}
    plain = {name.split(">")[0].split("=")[0].split("[")[0].replace("-", "_") for name in names}
    return plain | {"hydra", "hydra_plugins", "omegaconf", "safetensors", "llvmlite"}


def test_the_core_runs_without_the_extras(wheel):
    code = CODE.format(absent=extras(), wheel=str(wheel))
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=wheel.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not extras() & {name.split(".")[0] for name in done.stdout.split()}


SWEEP = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("transformers", "tokenizers"):
            raise ImportError(f"No module named {name!r}")

sys.meta_path.insert(0, Absent())
sys.path.insert(0, "scripts")
sys.argv[:] = ["sweep.py", *sys.argv[1:]]
import sweep

code = sweep.main()
assert not {"torch._dynamo", "attention_coresets.models.serving"} & set(sys.modules)
sys.exit(code)
"""


def test_cells_need_no_language_models_and_wait_for_none_of_their_imports(tmp_path):
    cell = ["cache.n=64", "cache.d=4", "arm=uniform", "sizes=[16]", "adversary=tiny"]
    paths = [f"paths.results={tmp_path}", f"paths.outputs={tmp_path}", f"hydra.sweep.dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, *cell, *paths], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uniform" in done.stdout
