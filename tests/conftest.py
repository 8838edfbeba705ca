"""What every test file shares: checked shapes, repeatable hypothesis, seeded generators, devices, other rounding.

Shapes in signatures are checked where beartype is installed, and tests of sweeps run where Hydra is: a bare GPU machine
has neither, and `pytest -m gpu` runs there.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

from first_calls import begin_test, check_first_calls

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported: its kernels run on the CPU, where a test asks
if find_spec("beartype"):  # before the packages are imported
    if "CHECK_EVERY_CALL" not in os.environ:
        check_first_calls()
    install_import_hook(["attention_coresets", "reference"], "beartype.beartype")

from attention_coresets import CACHES, CORESETS
from pretend_cuda import pretend_cuda
from rounding import OtherRounding, everywhere

NEED_HYDRA = [
    "test_api_page.py",
    "test_audit.py",
    "test_commands.py",
    "test_dashboards.py",
    "test_figures.py",
    "test_grid.py",
    "test_kills.py",
    "test_launchers.py",
    "test_league.py",
    "test_off_sphere.py",
    "test_pages_run.py",
    "test_plans.py",
    "test_provenance.py",
    "test_queue.py",
    "test_replayed.py",
    "test_report.py",
    "test_ruler.py",
    "test_slurm.py",
    "test_sweep.py",
]
collect_ignore = [] if find_spec("hydra") else NEED_HYDRA

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=25)
settings.load_profile("repeatable")


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh torch generator, the same in every test."""
    return torch.Generator().manual_seed(20260501)


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh NumPy generator, the same in every test."""
    return np.random.default_rng(20260501)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As the library runs outside the tests: no shape annotation is checked before the code is reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def registries() -> Iterator[None]:
    """What a test registers, or a page that it runs, is gone after it."""
    before = [(registry, dict(registry)) for registry in (CORESETS, CACHES)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.fixture(params=["pretend", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the test's tensors are: on a pretended GPU in every suite (pretend_cuda.py), on a real one with -m gpu."""
    if request.param == "pretend":
        with pretend_cuda():
            yield "cuda"
        return
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")
    yield request.param


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--other-rounding", type=int, metavar="SEED", help="run every test under other rounding")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    begin_test()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the mark `rounding` runs twice: as it is, and under other rounding."""
    if metafunc.definition.get_closest_marker("rounding"):
        metafunc.fixturenames.append("_rounding")
        metafunc.parametrize("_rounding", [None, 0], ids=["", "other_rounding"], indirect=True)


@pytest.fixture(autouse=True)
def _rounding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    seed = getattr(request, "param", None)
    seed = request.config.getoption("--other-rounding") if seed is None else seed
    if seed is None:
        yield
        return
    noise = torch.Generator().manual_seed(seed)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", everywhere(noise))
    with OtherRounding(noise):
        yield
