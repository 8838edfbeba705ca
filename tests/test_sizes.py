"""Size intervals from a grid and by search, against a plain reading of their definition."""

import numpy as np
import pandas as pd
import pytest
import torch

from attention_coresets import make_cache, make_coreset, worst_query
from attention_coresets.analysis.stats.sizes import size_table
from attention_coresets.study.size_search import minimal_size, search_size

SIZES = np.array([8, 16, 32, 64, 128])


def interval_by_hand(sizes, errors, epsilon, delta):
    """The definition, size by size, from the largest down."""
    hi = np.inf
    for j in reversed(range(len(sizes))):
        if np.mean([e <= epsilon for e in errors[:, j]]) < 1 - delta - 1e-12:
            return float(sizes[j]), float(hi), "right" if np.isinf(hi) else "interval"
        hi = sizes[j]
    return 0.0, float(hi), "left"


def size_interval(sizes, errors, epsilon, delta=0.5):
    """What `size_table` makes of one group, `errors` [replicates, sizes]."""
    table = pd.DataFrame({"size": np.tile(sizes, len(errors)), "error": errors.ravel()})
    row = size_table(table, [epsilon], by=[], delta=delta, max_size=None).iloc[0]
    return float(row.lo), float(row.hi), str(row.status)


@pytest.mark.parametrize("replicates", [1, 4, 5])
@pytest.mark.parametrize("delta", [0.0, 0.2, 0.5])
def test_size_interval_is_its_definition_on_curves_that_are_not_monotone(replicates, delta):
    rng = np.random.default_rng(replicates)
    for _ in range(25):
        errors = 4 / SIZES * rng.lognormal(0, 0.8, (replicates, len(SIZES)))
        epsilon = rng.choice(errors.ravel())  # ties included
        assert size_interval(SIZES, errors, epsilon, delta) == interval_by_hand(SIZES, errors, epsilon, delta)


def test_size_interval_of_known_curves():
    curve = np.array([[1.0, 0.5, 0.6, 0.2, 0.1]])
    assert size_interval(SIZES, curve, 0.55) == (32, 64, "interval")  # 16 was luck: 32 fails again
    assert size_interval(SIZES, curve, 1.0) == (0, 8, "left")
    assert size_interval(SIZES, curve, 0.05) == (128, np.inf, "right")


def result_rows(seeds=(0, 1, 2), n=256) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    rows = [(s, n, m, 4 / m * rng.lognormal(0, 0.5)) for s in seeds for m in SIZES]
    return pd.DataFrame(rows, columns=["seed", "n", "size", "error"])


def test_size_table_agrees_with_size_interval_group_by_group_whatever_the_order():
    rows, epsilons = result_rows(), [0.05, 0.1, 0.3]
    table = size_table(rows.sample(frac=1, random_state=0), epsilons, ["seed"], max_size=None)
    assert len(table) == 9
    for row in table.itertuples():
        curve = rows[rows.seed == row.seed].error.to_numpy()[None]
        assert (row.lo, row.hi, row.status) == size_interval(SIZES, curve, row.epsilon)
    pooled = size_table(rows, epsilons, ["n"], delta=0.4, max_size=None)
    curves = rows.pivot(index="seed", columns="size", values="error").to_numpy()
    assert [*zip(pooled.lo, pooled.hi, pooled.status, strict=True)] == [
        size_interval(SIZES, curves, e, 0.4) for e in epsilons
    ]
    assert (pooled.replicates == 3).all()


def test_sizes_outside_the_regime_become_censoring():
    table = size_table(result_rows(n=256), np.geomspace(0.01, 1, 9), ["seed", "n"], max_size=0.25, min_size=16)
    assert set(table.status) == {"left", "interval", "right"}
    assert table.lo[table.status == "right"].eq(64).all()  # n / 4, though 128 was measured
    assert table.hi[table.status == "left"].eq(16).all()
    with pytest.raises(ValueError, match="inside the regime"):
        size_table(result_rows(n=16), [0.1], ["seed"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(error=t.error.mask(t.index == 3)), "1 errors are NaN"),
        (lambda t: t.drop(index=3), "different numbers of replicates"),
        (lambda t: t.iloc[:0], "no rows"),
    ],
)
def test_bad_tables_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        size_table(change(result_rows()), [0.1], ["n"], max_size=None)


def test_bad_levels_are_refused():
    with pytest.raises(ValueError, match="epsilon must be positive"):
        size_table(result_rows(), [0.0], ["n"])
    with pytest.raises(ValueError, match="delta must be"):
        size_table(result_rows(), [0.1], ["n"], delta=1.0)


class Asked:
    """An error curve that counts how often it is asked."""

    def __init__(self, curve):
        self.curve, self.sizes = curve, []

    def __call__(self, size):
        self.sizes.append(size)
        return np.asarray(self.curve(size))


@pytest.mark.parametrize("needed", [1, 2, 3, 17, 100, 998, 1000])
@pytest.mark.parametrize("ratio", [1.1, 1.5])
def test_search_brackets_the_size_needed_with_few_evaluations(needed, ratio):
    asked = Asked(lambda m: [needed / m] * 3)
    found = search_size(asked, 1000, epsilon=1.0, ratio=ratio)
    assert found.lo < needed <= found.hi
    assert found.hi <= max(found.lo * ratio, found.lo + 1)
    assert found.status == ("left" if needed == 1 else "interval")
    assert 1000 not in asked.sizes  # a whole cache has no error
    assert len(set(asked.sizes)) == len(asked.sizes) <= np.log2(np.log(1000) / np.log(ratio)) + 3
    assert [m for m, _ in found.evaluations] == asked.sizes


def test_search_ends_at_its_limits():
    small, large = Asked(lambda m: [0.0]), Asked(lambda m: [1.0])
    assert search_size(small, 1000, 0.5, smallest=10, largest=250).status == "left"
    found = search_size(large, 1000, 0.5, smallest=10, largest=250)
    assert (found.lo, found.hi, found.status, large.sizes) == (250, np.inf, "right", [250])
    cut = search_size(lambda m: np.array([300 / m]), 10**6, 1.0, max_evaluations=4)
    assert (cut.status, len(cut.evaluations)) == ("budget", 4)
    assert cut.lo < 300 <= cut.hi


def test_search_uses_the_share_of_replicates():
    curve = lambda m: np.array([10, 20, 30, 40]) / m  # noqa: E731
    for delta, needed in [(0.0, 40), (0.25, 30), (0.5, 20), (0.75, 10)]:
        found = search_size(curve, 500, 1.0, delta, ratio=1.0001)
        assert (found.lo, found.hi) == (needed - 1, needed)


def test_search_moves_up_where_a_size_just_above_fails_again():
    curve = lambda m: [0.0 if 30 <= m <= 33 or m >= 50 else 1.0]  # noqa: E731
    assert search_size(Asked(curve), 64, 0.5, ratio=1.2, confirm=3).lo >= 34


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"delta": -0.1}, "delta"),
        ({"ratio": 1.0}, "ratio"),
        ({"smallest": 0}, "1 <= smallest"),
        ({"largest": 65}, "<= n"),
    ],
)
def test_search_refuses_bad_limits(bad, message):
    with pytest.raises(ValueError, match=message):
        search_size(Asked(lambda m: [1.0]), 64, **({"epsilon": 0.1} | bad))
    with pytest.raises(ValueError, match="NaN"):
        search_size(Asked(lambda m: [np.nan]), 64, 0.1)


def test_minimal_size_is_what_its_ends_measure():
    cache = make_cache("sphere", n=64, d=3, seed=0, heads=2)
    construct, effort = make_coreset("uniform"), {"restarts": 4, "steps": 10, "polish": 2}
    found = minimal_size(cache, construct, 1.0, 0.2, seeds=range(3), ratio=1.3, **effort)
    assert found.status == "interval"
    assert found == minimal_size(cache, construct, 1.0, 0.2, seeds=range(3), ratio=1.3, **effort)
    for size, wanted in ((int(found.lo), False), (int(found.hi), True)):
        errors = []
        for seed in range(3):
            g = torch.Generator().manual_seed(seed)
            coreset = construct(cache, size=size, rho=1.0, generator=g)
            errors.append(worst_query(cache, coreset, 1.0, generator=g, **effort).error)
        assert bool((torch.stack(errors) <= 0.2).double().mean() >= 0.5) is wanted
