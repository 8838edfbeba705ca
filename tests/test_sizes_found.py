"""The search over sizes: what it returns meets epsilon, is close to the least where values fall; few tries."""

import math

import numpy as np
import pytest

from attention_coresets.finding.sizes import RESOLUTION, smallest_size


class Counted:
    """A function of the size that remembers where it was asked."""

    def __init__(self, value):
        self.value, self.asked = value, []

    def __call__(self, size: int) -> float:
        assert size not in self.asked
        self.asked.append(size)
        return self.value(size)


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("least", [1, 2, 7, 100, 1234, 3999])
@pytest.mark.parametrize("first", [1, 512, 4095])
def test_the_least_size_of_a_power_law_to_three_per_cent(rate, least, first):
    counted = Counted(lambda size: (least / size) ** rate)
    found = smallest_size(counted, 1.0, first, 4096)
    assert least <= found <= least + max(1, least // RESOLUTION)
    assert all(1 <= size < 4096 for size in counted.asked)
    assert len(counted.asked) <= 14


def test_exact_sizes_have_no_logarithm():
    """A value of 0 from some size on, as of coresets that are exact there."""
    counted = Counted(lambda size: 1.0 if size < 300 else 0.0)
    assert 300 <= smallest_size(counted, 1e-3, 128, 1024) <= 300 + 300 // RESOLUTION


@pytest.mark.parametrize("seed", range(20))
def test_values_that_are_not_monotone_end_at_a_size_that_was_tried_and_meets(seed):
    rng = np.random.default_rng(seed)
    values = 100 / np.arange(1, 1001) * np.exp(0.5 * rng.standard_normal(1000))
    counted = Counted(lambda size: float(values[size - 1]))
    found = smallest_size(counted, 0.4, 125, 1001)
    assert found in counted.asked
    assert values[found - 1] <= 0.4
    assert found < 500


def test_ends():
    assert smallest_size(lambda size: 1.0, 0.5, 12, 100) == 100
    assert smallest_size(lambda size: math.inf, 0.5, 12, 100) == 100
    assert smallest_size(lambda size: 0.0, 0.5, 12, 100) == 1
    assert smallest_size(lambda size: 0.0, 0.5, 1, 2) == 1
    assert smallest_size(lambda size: 0.1 if size >= 97 else 1.0, 0.5, 97, 100) in (97, 98, 99)
