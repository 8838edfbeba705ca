"""Variance components against data of known ones, and against a decomposition by hand."""

import math

import numpy as np
import pytest

from attention_coresets.analysis.stats.components import components
from attention_coresets.analysis.topics.rates.luck import luck
from synthetic_results import synthetic_results


@pytest.mark.parametrize(("between", "within"), [(1.0, 0.25), (0.2, 1.0), (0.0, 1.0)])
def test_known_components_are_recovered(between, within, rng):
    cache = np.sqrt(between) * rng.standard_normal((4000, 1))
    found = components(3.0 + cache + np.sqrt(within) * rng.standard_normal((4000, 6)))
    assert found.between == pytest.approx(between, abs=0.04)
    assert found.within == pytest.approx(within, rel=0.04)
    share = between / (between + within)
    assert found.share.low - 0.005 <= share <= found.share.high + 0.005
    assert found.share.high - found.share.low < 0.06


def test_three_caches_by_hand():
    values = np.array([[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]])  # means 1, 5, 9: variance 16; within 2
    found = components(values)
    assert found.within == 2.0
    assert found.between == 15.0
    assert found.share.value == pytest.approx(15 / 17)
    assert 0 <= found.share.low <= found.share.high <= 1


def test_draws_alone_leave_no_negative_variance():
    found = components(np.array([[0.0, 10.0], [10.0, 0.0], [0.0, 10.0]]))
    assert (found.between, found.share.value) == (0.0, 0.0)


def test_intervals_hold_the_true_share_about_as_often_as_they_say(rng):
    """20 caches of 5 draws, shares 0.5: 95 % less what percentiles of few caches lose."""
    held = 0
    for _ in range(200):
        cache = rng.standard_normal((20, 1))
        found = components(cache + rng.standard_normal((20, 5))).share
        held += found.low <= 0.5 <= found.high
    assert held >= 174


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_one_cache_or_one_draw_has_no_components(shape):
    with pytest.raises(ValueError, match="both must be at least 2"):
        components(np.zeros(shape))


def test_the_table_of_luck_has_the_deviations_of_its_rows():
    """Six caches at e^{+-0.4}: a deviation of 0.4 sqrt(6/5) between them."""
    lines = [line.split(" | ") for line in luck(synthetic_results(noise=0.1)).splitlines() if line.startswith("| ")][2:]
    assert [line[0].strip("| ") for line in lines] == ["uniform (unweighted)", "walk_tilted (tilted)"]
    for line in lines:
        assert line[2] == "n = 1024, d = 8, ρ = 1, m = 128"
        assert float(line[3]) == pytest.approx(0.4 * math.sqrt(6 / 5), rel=0.02)
        assert 0.003 < float(line[4]) < 0.008  # a tenth of 0.05, from 12 degrees of freedom
        assert float(line[5].split(" [")[0]) > 0.99
        assert line[6].strip("| ") == "6 × 3"
