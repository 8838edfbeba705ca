"""The rule that gives verdicts: every word on constructed estimates, and what no word may be said of."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from attention_coresets.analysis.parts.band import Band, about, anything
from attention_coresets.analysis.parts.block import BENIGN, BLOCKS, LOWER, OWN, UPPER
from attention_coresets.analysis.parts.measured import Measured, exactly
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.status import NOT_RUN, ORDER, overall, status
from attention_coresets.analysis.parts.verdict import Claim, evaluate
from attention_coresets.analysis.stats.estimates import Estimate, median, paired_log_ratio

NAN, INF = math.nan, math.inf
SLOPE = about(1.0, 0.1, 1.5)
TARGET = Band(-INF, 0.7)


def part(value: float, low: float, high: float, caches: int = 9) -> Measured:
    return Measured("", Estimate(value, low, high, caches))


@pytest.mark.parametrize(
    ("value", "low", "high", "band", "block", "word"),
    [
        (1.02, 0.95, 1.08, SLOPE, LOWER, "reproduced"),
        (1.05, 0.98, 1.20, SLOPE, LOWER, "consistent"),  # excludes the rival, but reaches out of the band
        (1.05, 1.01, 1.09, SLOPE, LOWER, "consistent"),  # in the band, without the predicted value
        (1.05, 0.60, 1.60, SLOPE, LOWER, "inconclusive"),  # the rival is inside
        (1.15, 1.05, 1.25, SLOPE, LOWER, "consistent"),  # the estimate is outside, the interval meets the band
        (1.30, 1.20, 1.40, SLOPE, LOWER, "contradicted"),
        (0.50, 0.40, 0.60, SLOPE, LOWER, "contradicted"),
        (0.33, -0.38, 1.48, Band(-INF, 1.1, (2.0,)), UPPER, "consistent"),  # was reproduced
        (0.361, 0.33, 0.388, about(0.5, 0.15, 0.0, 1.0), LOWER, "consistent"),  # was reproduced
        (0.83, 0.72, 0.93, Band(-INF, 1.1), UPPER, "held"),
        (1.3, 1.2, 1.4, Band(-INF, 1.1), UPPER, "contradicted"),
        (0.5, 0.4, 0.6, TARGET, OWN, "target met"),
        (0.65, 0.5, 0.8, TARGET, OWN, "consistent"),
        (0.8, 0.75, 0.9, TARGET, OWN, "target missed"),
        (0.8, 0.7, 1.05, Band(-INF, 1.0, (1.0,)), OWN, "inconclusive"),
        (0.8, 0.7, 0.95, Band(-INF, 1.0, (1.0,)), OWN, "target met"),
        (0.36, 0.33, 0.39, Band(-INF, 0.5), BENIGN, "easier than the bound"),
        (0.42, 0.36, 0.51, Band(-INF, 0.5), BENIGN, "descriptive"),
        (1.06, 1.01, 1.12, Band(-INF, 1.0), BENIGN, "descriptive"),  # above a bound on rates: no contradiction
        (1.2, 1.1, 1.3, Band(1.0, INF), BENIGN, "easier than the bound"),
        (49.0, 47.0, 51.0, anything(), OWN, "descriptive"),
        (1.00, NAN, NAN, SLOPE, LOWER, "not fitted"),
        (NAN, NAN, NAN, SLOPE, LOWER, "not fitted"),
        (0.0, 0.0, 0.0, Band(-1e-3, 1e-3), LOWER, "not fitted"),  # nothing varied
        (1e-18, -5e-17, 7e-17, Band(-1e-3, 1e-3), LOWER, "not fitted"),
    ],
)
def test_verdicts_of_one_claim(value, low, high, band, block, word):
    assert status(part(value, low, high), band, block, 1) == word


def test_an_exact_value_is_judged_as_it_is():
    assert status(Measured("", exactly(0.9, 100)), Band(-INF, 1.3), UPPER, 50) == "held"
    assert status(Measured("", exactly(1.31, 100)), Band(-INF, 1.3), UPPER, 50) == "contradicted"
    assert status(Measured("", exactly(NAN, 100)), Band(-INF, 1.3), UPPER, 50) == "not fitted"


def test_words_for_a_claim_need_the_wide_interval_and_words_against_it_do_not():
    """Half-widths of 0.06 at nine caches; among 20 claims the interval is wider by t(0.99875) / t(0.975) = 1.84."""
    inside, outside = (1.02, 0.96, 1.08), (1.17, 1.11, 1.23)
    assert [status(part(*inside), SLOPE, LOWER, k) for k in (1, 20)] == ["reproduced", "consistent"]
    assert [status(part(*outside), SLOPE, LOWER, k) for k in (1, 20)] == ["contradicted", "contradicted"]
    assert [status(part(0.9, 0.84, 0.96), Band(-INF, 1.0), BENIGN, k) for k in (1, 20)] == [
        "easier than the bound",
        "descriptive",
    ]
    rival = Band(-INF, 1.1, (1.03,))
    assert [status(part(0.95, 0.89, 1.01), rival, LOWER, k) for k in (1, 20)] == ["reproduced", "inconclusive"]


numbers = st.floats(-3, 3).map(lambda x: round(x, 3))
three = st.tuples(numbers, numbers, numbers).map(sorted)
open_ends = st.sampled_from([(False, False), (True, False), (False, True), (True, True)])
rivals = st.lists(numbers, max_size=2)
cases = given(
    three, st.integers(3, 40), three, open_ends, rivals, st.booleans(), st.sampled_from(BLOCKS), st.integers(1, 60)
)


def case(ends, caches, limits, infinite, others, predicts) -> tuple[Estimate, Band]:
    (low, value, high), (least, predicted, most) = ends, limits
    least, most = -INF if infinite[0] else least, INF if infinite[1] else most
    band = Band(least, most, tuple(others), predicted=predicted if predicts else None)
    return Estimate(value, low, high, caches), band


@cases
def test_no_claim_stands_whose_interval_reaches_out_of_its_band(
    ends, caches, limits, infinite, others, predicts, block, claims
):
    found, band = case(ends, caches, limits, infinite, others, predicts)
    word = status(Measured("", found), band, block, claims)
    if word == block.best:
        wide = found.simultaneous(claims)
        assert band.low <= wide.low <= found.low + 1e-9
        assert found.high - 1e-9 <= wide.high <= band.high
        assert band.predicted is None or found.low <= band.predicted <= found.high
        assert not any(wide.low <= rival <= wide.high for rival in band.rivals)
        assert band.decides
        assert not block.descriptive


@cases
def test_more_claims_never_make_a_verdict_better(ends, caches, limits, infinite, others, predicts, block, claims):
    found, band = case(ends, caches, limits, infinite, others, predicts)
    one, many = (ORDER.index(status(Measured("", found), band, block, k)) for k in (1, claims))
    assert one <= many


def test_a_claim_is_as_good_as_its_worst_setting():
    assert overall(["reproduced", "contradicted", "consistent"]) == "contradicted"
    assert overall(["reproduced", "inconclusive"]) == "inconclusive"
    assert overall(["target met", "target missed"]) == "target missed"
    assert overall(["easier than the bound", "descriptive"]) == "descriptive"
    assert overall(["held", "not fitted"]) == "not fitted"
    assert overall([]) == NOT_RUN


@pytest.mark.parametrize(
    ("band", "values", "shown"),
    [
        (Band(-INF, 1.0), [(0.1, 0.01, 1.2), (0.5, 0.4, 0.6)], 0.5),  # the largest answers whether all are at most 1
        (Band(-INF, 1.0), [(1.1, 1.05, 1.2), (1.3, 0.5, 2.0)], 1.1),  # the one that speaks against it
        (about(1.0, 0.3, 3.0), [(1.05, 0.6, 1.4), (1.2, 1.15, 1.25)], 1.2),
    ],
)
def test_the_part_shown_is_the_one_that_answers(band, values, shown):
    parts = [part(*value) for value in values]
    found = evaluate([_claim(band, parts)], Results("quick", pd.DataFrame({"experiment": []}), []))["x"]
    assert found.deciding is not None
    assert found.deciding[0].estimate.value == shown


def _claim(band: Band, parts: list[Measured]) -> Claim:
    return Claim("x", "", "", "", band, lambda _: parts, UPPER, "", "")


# intervals at another level --------------------------------------------------------------------------------------


def test_the_wide_interval_has_the_bonferroni_level():
    found = Estimate(1.0, 0.8, 1.1, 10**7)
    ratio = norm.ppf(1 - 0.025 / 12) / norm.ppf(0.975)
    wide = found.simultaneous(12)
    assert (wide.value, wide.low, wide.high) == pytest.approx((1.0, 1 - 0.2 * ratio, 1 + 0.1 * ratio), rel=1e-5)
    assert found.simultaneous(1).low == pytest.approx(found.low)
    logs = found.exp().simultaneous(12)
    assert (logs.low, logs.high) == pytest.approx((math.exp(wide.low), math.exp(wide.high)), rel=1e-9)
    with pytest.raises(ValueError, match="at least one claim"):
        found.simultaneous(0)


def test_wide_intervals_of_twelve_means_cover_all_of_them():
    """Student's intervals of means of six normal values: all twelve hold in 95 % of trials, where the 95 % ones hold
    all in 0.95^12 = 54 %."""
    x = np.random.default_rng(0).standard_normal((1000, 12, 6))
    half = t.ppf(0.975, 5) * x.std(axis=2, ddof=1) / math.sqrt(6)
    trials = zip(x.mean(axis=2), half, strict=True)
    found = [[Estimate(m, m - h, m + h, 6) for m, h in zip(*trial, strict=True)] for trial in trials]
    share = np.mean([all(w.low <= 0 <= w.high for w in (e.simultaneous(12) for e in trial)) for trial in found])
    assert 0.93 <= share <= 0.98


def test_ratios_that_cannot_be_below_one_have_no_interval_that_is():
    plain = median(np.array([1.01, 1.3, 1.37]), positive=True)
    assert plain.low < 1
    found = plain.at_least(1.0)
    assert (found.value, found.low, found.high) == (plain.value, 1.0, plain.high)
    wide = found.simultaneous(20)
    assert wide.low == 1.0
    assert wide.high == pytest.approx(plain.simultaneous(20).high)
    assert math.isnan(Estimate(1.2, NAN, NAN, 2).at_least(1.0).low)


def test_a_median_of_zero_is_no_ratio() -> None:
    """An arm is exact in two of three draws: its median is zero, and not what is left without the zeros."""
    rows = [
        {"arm": arm, "seed": seed, "head": 0, "draw": draw, "cache": "sphere", "cache_params": "{}", "n": 8, "d": 2}
        | {"rho": 1.0, "size": 4, "error": error}
        for seed in range(5)
        for arm, errors in (("a", (0.0, 0.0, 1.0)), ("b", (1.0, 1.0, 1.0)))
        for draw, error in enumerate(errors)
    ]
    assert paired_log_ratio(pd.DataFrame(rows), "a", "b").empty
    assert len(paired_log_ratio(pd.DataFrame(rows), "b", "b")) == 5
