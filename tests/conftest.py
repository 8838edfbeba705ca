"""What every test file shares: repeatable hypothesis, seeded generators, and tests under other rounding."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import settings

from attention_coresets import CACHES, CORESETS
from rounding import OtherRounding, everywhere

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
def registries() -> Iterator[None]:
    """What a test registers, or a page that it runs, is gone after it."""
    before = [(registry, dict(registry)) for registry in (CORESETS, CACHES)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--other-rounding", type=int, metavar="SEED", help="run every test under other rounding")


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
