"""What every test file shares: hypothesis runs the same examples each time, and fixtures for seeded generators."""

import numpy as np
import pytest
import torch
from hypothesis import settings

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
