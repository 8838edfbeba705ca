"""The exact optimum against exhaustive search, closed forms and an independent optimiser; its order; its refusals."""

import itertools
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from attention_coresets import Cache, Coreset, make_cache, make_coreset, tilt
from attention_coresets.adversary.enclosure import branch_and_bound
from attention_coresets.coresets.exact.demands import Demands
from attention_coresets.coresets.exact.optimum import MODELS, best_subset, smallest_coreset
from attention_coresets.coresets.exact.programs import best_weights, choose
from tables import generators, small_cache

TOLERANCE, ABSOLUTE = 1e-2, 1e-5
GAP = {2: 1e-4, 3: 1e-3, 4: 2e-3}  # of the branch and bound that judges, by dimension
CASES = [  # family, its parameters, rho, size
    ("sphere", {"n": 10, "d": 2}, 1.0, 5),
    ("sphere", {"n": 9, "d": 3}, 2.0, 3),
    ("clusters", {"n": 12, "d": 2, "clusters": 3}, 2.0, 4),
    ("antipodal", {"n": 12, "d": 2, "rho": 1.0}, 1.0, 6),
    ("antipodal", {"n": 10, "d": 3, "rho": 1.0, "values": "keys"}, 1.0, 4),
    ("signed_clusters", {"d": 2, "clusters": 2}, 1.0, 2),
    ("signed_clusters", {"d": 4, "clusters": 4}, 1.0, 2),
    ("cap_outliers", {"n": 10, "d": 2, "outliers": 0.1}, 3.0, 7),
    ("cap_outliers", {"n": 11, "d": 3, "outliers": 0.2}, 1.0, 8),
]


def label(case):
    """A test's name for one of CASES."""
    family, parameters, rho, size = case
    return f"{family}-{'-'.join(map(str, parameters.values()))}-rho{rho:g}-m{size}"


def ball(cache, rho, count, rng):
    """Queries at every radius, half of them on the sphere, and at +-rho k_i."""
    x = rng.standard_normal((count, cache.d))
    radii = np.where(np.arange(count) % 2, 1.0, rng.random(count) ** (1 / cache.d))
    x *= rho * (radii / np.linalg.norm(x, axis=1))[:, None]
    keys = cache.keys.numpy()
    return np.concatenate([x, rho * keys, -rho * keys])


def errors_on(cache, queries, weights):
    """Largest error over `queries` of each row of weights [k, n]: attention spelled out."""
    logits = queries @ cache.keys.numpy().T
    kernel = np.exp(logits - logits.max(axis=1, keepdims=True))
    values = cache.values.numpy()
    full = kernel @ values / kernel.sum(axis=1, keepdims=True)
    largest = np.zeros(len(weights))
    for some in np.array_split(np.arange(len(queries)), max(1, len(weights) * len(queries) // 10**6)):
        top = np.einsum("kn,cn,nv->kcv", weights, kernel[some], values, optimize=True)
        bottom = weights @ kernel[some].T
        largest = np.maximum(largest, np.linalg.norm(top / bottom[:, :, None] - full[some], axis=-1).max(axis=1))
    return largest


def inverse_marginals(cache, rho, size):
    """1 / min(1, c p*) with c found by a root finder."""
    p = tilt(cache.keys, rho).p.numpy()
    log_c = brentq(lambda t: np.minimum(1, np.exp(t) * p).sum() - size, -1, 60 - np.log(p.min()), xtol=1e-13)
    return 1 / np.minimum(1, np.exp(log_c) * p)


def exhaustive(cache, rho, size, model):
    """Ends of an interval around the least worst-case error of all subsets: a grid, then branch and bound where due."""
    unit = np.ones(cache.n) if model == "unweighted" else inverse_marginals(cache, rho, size)
    subsets = np.array(list(itertools.combinations(range(cache.n), size)))
    masks = np.zeros((len(subsets), cache.n))
    np.put_along_axis(masks, subsets, 1.0, axis=1)
    floors = errors_on(cache, ball(cache, rho, 2000, np.random.default_rng(5)), masks * unit)
    least, most, gap = np.inf, np.inf, GAP[cache.d]
    for k in np.argsort(floors):
        if floors[k] >= most - gap:  # no later subset is better by more
            return min(least, floors[k]), most
        coreset = Coreset(torch.from_numpy(subsets[k]), torch.from_numpy(np.log(unit[subsets[k]])))
        box = branch_and_bound(cache, coreset, rho, gap=gap)
        least, most = min(least, float(box.lower)), min(most, float(box.upper))
    return least, most


def accuracy(error):
    """How far above the optimum an error may be, for values of radius 1."""
    return max(TOLERANCE * error, 2 * ABSOLUTE)


@pytest.mark.parametrize("case", CASES, ids=label)
@pytest.mark.parametrize("model", ["unweighted", "tilted"])
def test_the_program_finds_what_exhaustive_search_finds(case, model):
    family, parameters, rho, size = case
    cache = make_cache(family, seed=3, **parameters)
    least, most = exhaustive(cache, rho, size, model)
    assert most - least <= 2 * GAP[cache.d]
    found = best_subset(cache, size, rho, model=model)
    assert found.upper >= least
    assert found.upper - accuracy(found.upper) <= most
    check_interval(cache, rho, found)


def check_interval(cache, rho, found):
    """lower <= error <= upper by branch and bound, and no wider than half of what counts as equal."""
    box = branch_and_bound(cache, found.coreset, rho, gap=GAP[cache.d])
    assert found.lower <= float(box.upper) + 1e-12
    assert found.upper >= float(box.lower) - 1e-12
    assert 0 <= found.upper - found.lower <= accuracy(found.upper) / 2


def test_tilted_weights_are_those_of_the_walk():
    cache = make_cache("cap_outliers", n=10, d=2, outliers=0.1, seed=3)
    for size in (3, 7):
        coreset = best_subset(cache, size, 3.0, model="tilted").coreset
        expected = np.log(inverse_marginals(cache, 3.0, size))[coreset.indices]
        np.testing.assert_allclose(coreset.log_weights, expected, atol=1e-6)
    assert np.isclose(expected, 0).any()  # capped
    assert best_subset(cache, 3, 3.0, model="unweighted").coreset.log_weights is None


@pytest.mark.parametrize(("family", "size", "rho"), [("sphere", 2, 1.0), ("sphere", 3, 2.0), ("cap_outliers", 3, 1.0)])
def test_free_weights_against_a_search_of_all_weights(family, size, rho):
    """Every subset, log-weights on a grid that zooms in on its best point, over a dense bank of queries."""
    cache = small_cache(family, n=7 if size == 2 else 6, d=2, seed=1)
    queries = ball(cache, rho, 300, np.random.default_rng(2))
    best = np.inf
    for subset in itertools.combinations(range(cache.n), size):
        center, step = np.zeros(size - 1), 0.4
        for _ in range(6):
            trials = center + step * np.array(list(itertools.product(range(-15, 16), repeat=size - 1)))
            weights = np.zeros((len(trials), cache.n))
            weights[:, subset] = np.exp(np.column_stack([np.zeros(len(trials)), trials]))
            errors = errors_on(cache, queries, weights)
            center, step = trials[errors.argmin()], step / 3
        best = min(best, errors.min())
    found = best_subset(cache, size, rho, model="free")
    assert found.upper <= 1.02 * best  # the bank misses some of the supremum, and the weights may be a little better
    assert found.upper >= 0.98 * best
    check_interval(cache, rho, found)


def antipodal_error(rho, full, kept):
    """sup over |s| <= rho of the error at q = s u for keys = values = +-u: full and kept count (plus, minus) tokens."""
    s = np.linspace(-rho, rho, 4001)
    return np.abs(np.tanh(s + 0.5 * np.log(full[0] / full[1])) - np.tanh(s + 0.5 * np.log(kept[0] / kept[1]))).max()


@pytest.mark.parametrize("epsilon", [0.35, 0.12])
def test_the_smallest_antipodal_coreset_is_the_closed_form(epsilon):
    rho, full = 1.0, (2, 14)
    cache = make_cache("antipodal", n=16, d=2, rho=rho, values="keys", seed=0)
    side = cache.keys @ cache.keys[0] > 0
    few = side if side.sum() == full[0] else ~side
    p = tilt(cache.keys, rho).p
    tilted = float(1 / p[few][0]), float(1 / p[~few][0])  # no marginal is capped at these sizes
    pairs = list(itertools.product(range(1, full[0] + 1), range(1, full[1] + 1)))
    for model, (plus, minus) in (("unweighted", (1, 1)), ("tilted", tilted)):
        enough = [a + b for a, b in pairs if antipodal_error(rho, full, (a * plus, b * minus)) <= epsilon]
        found = smallest_coreset(cache, rho, epsilon, model=model)
        assert found.coreset.size == min(enough) > 2
        assert found.upper <= epsilon
    free = smallest_coreset(cache, rho, epsilon, model="free")
    assert free.coreset.size == 2  # one token of each side, weighted 2 to 14, is the cache itself
    assert free.upper <= epsilon


@pytest.mark.parametrize("family", ["clusters", pytest.param("cap_outliers", marks=pytest.mark.slow)])
def test_nothing_of_the_same_size_and_model_is_better(family):
    cache, rho, size = small_cache(family, n=11, d=2, seed=4), 1.5, 5
    best = {model: best_subset(cache, size, rho, model=model) for model in MODELS}
    for model in ("unweighted", "tilted"):
        assert best["free"].lower <= best[model].upper + accuracy(best["free"].upper)
        names = ("gram_schmidt_walk", "greedy", "self_balancing_walk", "kernel_halving")
        built = [make_coreset(name, model=model, recursion="one_walk") for name in names]
        built += [make_coreset("uniform" if model == "unweighted" else "tilted_draws")]
        for construct in built:
            coreset = construct(cache, size, rho, *generators(1))
            error = float(branch_and_bound(cache, coreset, rho, gap=GAP[cache.d]).upper)
            assert error >= best[model].upper - accuracy(best[model].upper)
            assert error >= best["free"].upper - accuracy(best["free"].upper)


@pytest.mark.slow
def test_free_errors_fall_with_the_size_and_end_at_zero():
    cache, rho = small_cache("sphere", n=7, d=2, seed=2), 1.0
    found = [best_subset(cache, size, rho, model="free") for size in range(1, 7)]
    for few, more in itertools.pairwise(found):
        assert more.upper - accuracy(more.upper) <= few.upper
    assert found[0].lower > 0.1
    for model in MODELS:
        whole = best_subset(cache, 7, rho, model=model)
        assert (whole.lower, whole.upper, whole.coreset.size) == (0.0, 0.0, 7)
        assert whole.coreset.log_weights is None


@pytest.mark.parametrize("model", ["unweighted", "tilted", pytest.param("free", marks=pytest.mark.slow)])
def test_the_smallest_size_and_the_best_error_at_a_size_agree(model):
    cache, rho = small_cache("cap_outliers", n=8, d=2, seed=6), 1.0
    errors = {size: best_subset(cache, size, rho, model=model) for size in range(1, 6)}
    epsilon = 1.05 * errors[4].upper
    found = smallest_coreset(cache, rho, epsilon, model=model)
    assert found.coreset.size <= 4
    assert found.upper <= epsilon + accuracy(epsilon) / 2
    check_interval(cache, rho, found)
    assert errors[found.coreset.size].upper - accuracy(found.upper) <= found.upper
    for size in range(1, found.coreset.size):
        assert errors[size].upper > epsilon  # the best subset of fewer tokens is not good enough
    assert smallest_coreset(cache, rho, 1e-9, model=model).coreset.size == 8  # no seven tokens are exact


def test_batches_dtypes_and_leading_axes():
    cache = small_cache("sphere", n=6, d=2, heads=2)
    square = Cache(*(x.reshape(2, 1, 6, 2) for x in (cache.keys, cache.values)))
    for model in MODELS:
        construct = make_coreset("optimum", model=model)
        folded = construct(square, 2, 1.0, *generators(0))
        assert folded.indices.shape == (2, 1, 2)
        alone = construct(cache[1], 2, 1.0, *generators(9))
        assert torch.equal(folded[1, 0].indices, alone.indices)
        single = construct(cache.to(torch.float32), 2, 1.0, *generators(0))
        assert torch.equal(single.indices.reshape(2, 1, 2), folded.indices)
        if model != "unweighted":
            torch.testing.assert_close(folded[1, 0].log_weights, alone.log_weights, rtol=1e-6, atol=1e-6)
            assert single.log_weights.dtype == torch.float32
        assert construct(cache, 6, 1.0, *generators(0)).size == 6


@pytest.mark.parametrize("model", MODELS)
def test_order_of_tokens_shift_of_keys_and_scale_of_values(model):
    cache, rho, size = small_cache("clusters", n=9, d=2, seed=8), 1.0, 4
    order = torch.from_numpy(np.random.default_rng(0).permutation(9))
    moved = Cache(cache.keys[order] + torch.tensor([2.0, -1.0]), 1e3 * cache.values[order] + 50)
    plain, other = (best_subset(c, size, rho, model=model) for c in (cache, moved))
    assert abs(other.upper / 1e3 - plain.upper) <= accuracy(plain.upper)


def test_equal_values_and_equal_tokens_cost_nothing():
    cache = small_cache("sphere", n=6, d=2)
    same = Cache(cache.keys, torch.ones_like(cache.values))
    twice = Cache(*(torch.cat([x, x]) for x in (cache.keys, cache.values)))
    for model in MODELS:
        assert best_subset(same, 1, 1.0, model=model).upper < 1e-9
        assert smallest_coreset(same, 1.0, 1e-6, model=model).coreset.size == 1
    for model in ("unweighted", "free"):
        assert best_subset(twice, 6, 1.0, model=model).upper < 2 * ABSOLUTE
        assert smallest_coreset(twice, 1.0, 1e-3, model=model).coreset.size <= 6


def test_rows_say_what_the_error_says():
    """A row is <= 0 exactly where the error along its direction is at most epsilon."""
    rng = np.random.default_rng(0)
    cache = small_cache("sphere", n=7, d=3)
    demands = Demands(cache.keys.numpy(), cache.values.numpy(), 2.0)
    demands.add_queries(ball(cache, 2.0, 30, rng))
    weights, unit = rng.random((5, 7)), rng.random(7) + 0.5
    np.testing.assert_allclose(demands.errors(weights).max(axis=1), errors_on(cache, demands.queries, weights))
    for w in weights:
        first, error = len(demands.mass), demands.errors(w[None])[0]
        demands.ask(w, 0.0, 3)
        for epsilon in (0.999 * error.max(), 1.001 * error.max()):
            assert (demands.rows(epsilon, unit)[first] @ (w / unit) > 0) == (epsilon < error.max())
        ratios = (demands.excess[first:] @ w) / (demands.mass[first:] @ w)
        assert ratios.max() == pytest.approx(error.max())
        assert all(np.isclose(error, r).any() for r in ratios)


@pytest.mark.parametrize("seed", range(12))
def test_a_barred_set_has_no_weights_and_the_best_weights_are_a_minimax(seed):
    rng = np.random.default_rng(seed)
    excess, mass = rng.standard_normal((30, 60)), rng.random((30, 60)) + 0.1
    subset = np.array([1, 4, 6])
    best = best_weights(excess, mass, subset, np.inf)
    assert best.barred is None
    assert set(np.flatnonzero(best.weights)) == set(subset)
    shares = np.zeros((20000, 60))
    shares[:, subset] = rng.dirichlet(np.ones(3), 20000)
    ratios = ((excess @ shares.T) / (mass @ shares.T)).max(axis=0)
    assert ratios.min() - 0.05 <= best.value <= ratios.min() + 1e-6
    barred = best_weights(excess, mass, subset, best.value - 1e-4).barred
    assert barred[subset].all()
    assert best_weights(excess, mass, np.flatnonzero(barred), np.inf).value > best.value - 1e-4
    assert best_weights(excess, mass, subset, best.value + 0.01).barred is None


def test_the_choice_keeps_out_of_barred_sets():
    rows = np.array([[-1.0, 0.5, 0.5, 0.5, 1.0]])
    none = np.zeros((0, 5), dtype=bool)
    for free in (False, True):
        assert 0 in choose(rows, 2, free, none, 10.0)
        assert choose(-rows[:, [0, 0, 0, 0, 0]], 2, free, none, 10.0) is None
        barred = np.array([[1, 1, 1, 1, 0]], dtype=bool)
        assert list(choose(rows, 2, free, barred, 10.0)) == [0, 4]
    assert choose(rows, 3, False, none, 10.0).tolist() in ([0, 1, 2], [0, 1, 3], [0, 2, 3])


def test_refusals():
    cache = small_cache("sphere", n=6, d=2)

    def refused(message, call, *args, error=ValueError, **kwargs):
        with pytest.raises(error, match=message):
            call(*args, **kwargs)

    refused("unknown model 'fre'; did you mean 'free'", make_coreset, "optimum", model="fre")
    refused("tolerance must lie strictly between 0 and 1, got 0", make_coreset, "optimum", tolerance=0.0)
    refused("seconds must be above 0, got -1", best_subset, cache, 3, 1.0, seconds=-1.0)
    refused("epsilon must be above 0, got 0", smallest_coreset, cache, 1.0, 0.0)
    refused("rho must be a positive finite number", smallest_coreset, cache, 0.0, 0.1)
    refused("size must be at least 1 token, got 0", best_subset, cache, 0, 1.0)
    limit = "the optimum is for n <= 32 tokens and d <= 4, got n = "
    refused(limit + "33, d = 2", best_subset, small_cache("sphere", n=33, d=2), 3, 1.0)
    refused(limit + "6, d = 5", smallest_coreset, small_cache("sphere", n=6, d=5), 1.0, 0.1)
    refused("one head at a time", best_subset, small_cache("sphere", n=6, d=2, heads=2), 3, 1.0)


@pytest.mark.parametrize("model", MODELS)
def test_an_optimum_that_is_not_proven_in_time_is_none(model):
    cache = small_cache("sphere", n=24, d=3)
    with pytest.raises(RuntimeError, match=f"the {model} optimum at size 12 of 24 tokens is not proven within 0.2 s"):
        make_coreset("optimum", model=model, seconds=0.2)(cache, 12, 2.0, *generators(0))


def test_without_scipy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ModuleNotFoundError, match="the optimum needs scipy: pip install"):
        best_subset(small_cache("sphere", n=6, d=2), 3, 1.0, model="free")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unweighted", "tilted"])
@pytest.mark.parametrize("seed", range(3))
def test_sixteen_tokens_against_exhaustive_search(model, seed):
    cache = small_cache("sphere", n=16, d=2, seed=seed)
    least, most = exhaustive(cache, 1.0, 8, model)
    found = best_subset(cache, 8, 1.0, model=model)
    assert least <= found.upper
    assert found.upper - accuracy(found.upper) <= most
