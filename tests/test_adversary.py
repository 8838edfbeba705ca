"""The worst query: its gradient, the ball, and its error against grids, larger searches and a known optimum."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from attention_coresets import Cache, Coreset, attend, attention_error, make_cache, make_coreset, worst_query
from attention_coresets.adversary.ascent import Ascent, _climb, climb
from attention_coresets.adversary.enclosure import branch_and_bound
from attention_coresets.adversary.gradient import error_and_gradient, rooms
from attention_coresets.adversary.sides import two_sides
from attention_coresets.adversary.starts import RADII, starts
from attention_coresets.adversary.steps import project
from tables import FAMILIES, generators, small_cache

SETTINGS = [("uniform", 2), ("uniform", 6), ("tilted_draws", 6)]  # construction, and n over its size


def cases(cache, rho):
    """Coresets of one cache batch: good and bad, weighted and not."""
    return [make_coreset(name)(cache, max(1, cache.n // part), rho, *generators(0)) for name, part in SETTINGS]


def parameters(family, rho):
    """antipodal refuses a rho that leaves no key at +u: its queries may go further than its own rho."""
    return {"rho": min(rho, 1.5)} if family == "antipodal" else {}


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 10**6))
def test_the_gradient_is_that_of_half_the_squared_error(n, d, dv, weighted, seed):
    rng = np.random.default_rng(seed)
    cache = Cache(*(torch.from_numpy(rng.standard_normal((2, n, k))) for k in (d, dv)))
    m = int(rng.integers(1, n + 1))
    indices = torch.from_numpy(np.stack([np.sort(rng.choice(n, m, replace=False)) for _ in range(2)]))
    coreset = Coreset(indices, torch.from_numpy(rng.standard_normal((2, m))) if weighted else None)
    query = torch.from_numpy(rng.standard_normal((2, 3, d))).requires_grad_()
    keys, values = cache.take(indices)
    gap = attend(query, cache.keys, cache.values) - attend(query, keys, values, coreset.log_weights)
    (expected,) = torch.autograd.grad(0.5 * gap.square().sum(), query)
    sides = two_sides(cache, coreset, rho=4.0)
    error, gradient = error_and_gradient(query.detach(), sides, rooms(query.detach(), sides, 2))
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(error, gap.norm(dim=-1).detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rho", [0.5, 3.0])
def test_the_error_is_that_of_a_query_in_the_ball(family, rho):
    cache = small_cache(family, heads=2, **parameters(family, rho))
    for coreset in cases(cache, rho):
        worst = worst_query(cache, coreset, rho, restarts=8, steps=10, polish=10)
        assert (worst.query.norm(dim=-1) <= rho * (1 + 1e-12)).all()
        assert worst.error.dtype == torch.float64
        for h in range(2):
            weights = None if coreset.log_weights is None else coreset.log_weights[h].numpy()
            arrays = (cache.keys[h].numpy(), cache.values[h].numpy(), coreset.indices[h].numpy(), weights)
            assert worst.error[h].item() == pytest.approx(oracles.error(worst.query[h].numpy(), *arrays), abs=1e-9)
        assert ((worst.reached >= 1) & (worst.reached <= 8)).all()
        assert (worst.restarts, worst.certificate) == (8, None)


@pytest.mark.parametrize("rho", [0.7, 4.0])
def test_a_climb_never_descends_and_stays_in_the_ball(rho, generator):
    cache = small_cache("clusters", heads=3)
    coreset = cases(cache, rho)[1]
    sides = two_sides(cache, coreset, rho)
    first = starts(cache, coreset, rho, 20, generator)
    query, error = first, attention_error(first, cache, coreset)
    for steps in (1, 2, 5, 20):
        query, better = _climb(first, sides, rho, steps)
        assert (better >= error - 1e-12).all()
        assert (query.norm(dim=-1) <= rho * (1 + 1e-12)).all()
        torch.testing.assert_close(attention_error(query, cache, coreset), better, rtol=1e-9, atol=1e-12)
        error = better


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_climbing_from_given_queries(dtype, generator):
    """From anywhere, in or out of the ball, with leading axes: in the dtype of the cache, and never a loss."""
    cache = small_cache("cap_outliers", heads=4, dtype=dtype)
    coreset = cases(cache, 2.0)[2]
    queries = 3 * torch.randn(2, 2, 5, 4, generator=generator, dtype=torch.float64)
    square = Cache(*(x.reshape(2, 2, *x.shape[1:]) for x in (cache.keys, cache.values)))
    folded = Coreset(coreset.indices.reshape(2, 2, -1), coreset.log_weights.reshape(2, 2, -1))
    before = attention_error(project(queries.to(dtype), 2.0), square, folded)
    for steps in (0, 1, 30):
        found, error = climb(square, folded, 2.0, queries, steps)
        assert (found.dtype, found.shape, error.shape) == (dtype, queries.shape, queries.shape[:-1])
        assert (found.norm(dim=-1) <= 2.0 * (1 + 1e-6)).all()
        torch.testing.assert_close(error, attention_error(found, square, folded), rtol=1e-4, atol=1e-5)
        assert (error >= before - 1e-5).all()
        before = error
    assert (error.amax(-1).double() >= 0.9 * worst_query(square, folded, 2.0).error).all()
    torch.testing.assert_close(climb(square[1], folded[1], 2.0, queries[1], 30)[1], error[1])


def test_climbing_refuses_what_does_not_fit():
    cache = small_cache("sphere", heads=2)
    coreset = cases(cache, 2.0)[0]
    with pytest.raises(ValueError, match="queries"):
        climb(cache, coreset, 2.0, torch.zeros(1, 3, cache.d, dtype=torch.float64), 3)
    with pytest.raises(ValueError, match="steps"):
        climb(cache, coreset, 2.0, torch.zeros(2, 3, cache.d, dtype=torch.float64), -1)
    with pytest.raises(ValueError, match="rho"):
        climb(cache, coreset, 0.0, torch.zeros(2, 3, cache.d, dtype=torch.float64), 3)


def test_projection_moves_only_what_is_outside():
    inside, outside = torch.tensor([[0.3, 0.4]]), torch.tensor([[3.0, 4.0]])
    assert torch.equal(project(inside, 1.0), inside)
    torch.testing.assert_close(project(outside, 1.0), outside / 5)
    assert torch.equal(project(torch.zeros(1, 2), 1.0), torch.zeros(1, 2))


@pytest.mark.parametrize("count", [1, 7, 64, 3000])
def test_starts_lie_on_the_stated_radii(count, generator):
    cache = small_cache("sphere", heads=2, d=5)
    found = starts(cache, cases(cache, 2.0)[1], 2.0, count, generator)
    assert found.shape == (2, count, 5)
    radii = (found.norm(dim=-1, keepdim=True) / 2.0 - torch.tensor(RADII, dtype=torch.float64)).abs().amin(-1)
    assert radii.max() < 1e-9


def polar_grid(rho, angles=360, radii=40):
    """Queries of the disc of radius rho ``[angles * radii, 2]``."""
    theta = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
    rays = torch.stack([theta.cos(), theta.sin()], dim=-1)
    lengths = rho * torch.arange(1, radii + 1, dtype=torch.float64) / radii
    return (lengths[:, None, None] * rays).flatten(0, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rho", [1.0, 4.0])
def test_two_dimensions_against_a_dense_grid(family, rho):
    cache = small_cache(family, n=64, d=2, heads=2, **parameters(family, rho))
    grid = polar_grid(rho).expand(2, -1, -1)
    for coreset in cases(cache, rho):
        on_grid = attention_error(grid, cache, coreset).max(dim=-1).values
        assert (worst_query(cache, coreset, rho).error >= 0.99 * on_grid).all()


def larger_search(cache, coreset, rho):
    """20 times the default restarts, from other random numbers."""
    return worst_query(cache, coreset, rho, restarts=20 * 64, generator=torch.Generator().manual_seed(99)).error


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("d", "rho"), [(8, 3.0), (32, 2.0)])
def test_against_twenty_times_its_restarts(family, d, rho):
    cache = small_cache(family, n=64, d=d, **parameters(family, rho))
    coreset = cases(cache, rho)[1]
    assert worst_query(cache, coreset, rho).error >= 0.99 * larger_search(cache, coreset, rho)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("d", [8, 32])
@pytest.mark.parametrize("rho", [2.0, 4.0])
def test_against_twenty_times_its_restarts_on_large_caches(family, d, rho):
    cache = small_cache(family, n=2048, d=d, heads=2, **parameters(family, rho))
    for coreset in cases(cache, rho):
        assert (worst_query(cache, coreset, rho).error >= 0.99 * larger_search(cache, coreset, rho)).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_dropped_outlier_among_many_tokens_is_found(seed):
    """One token far from the rest carries the whole supremum: a lottery over the tokens would miss it."""
    cache = small_cache("sphere", n=600, d=16, seed=seed)
    keys = 0.2 * cache.keys + torch.eye(16).double()[0]
    keys[17] = -torch.eye(16).double()[0]
    odd = Cache(keys, cache.values)
    kept = torch.tensor([i for i in range(0, 600, 5) if i != 17])
    aimed = torch.zeros(1, 16, dtype=torch.float64)
    aimed[0, 0] = -6.0
    worst = worst_query(odd, Coreset(kept), 6.0, restarts=8)
    assert worst.error >= attention_error(aimed, odd, Coreset(kept))[0]


@pytest.mark.parametrize(("plus", "minus"), [(1, 40), (4, 4), (3, 10)])
@pytest.mark.parametrize("rho", [1.0, 2.0])
def test_the_known_error_of_unweighted_antipodal_subsets(plus, minus, rho):
    """At q = rho u full attention is 0 but for rounding, and a subset answers tanh(rho + log(m_plus / m_minus) / 2)."""
    cache = make_cache("antipodal", n=400, d=3, rho=rho, values="keys", seed=4)
    u = cache.keys[0]
    above = torch.nonzero(cache.keys @ u > 0).squeeze(-1)
    below = torch.nonzero(cache.keys @ u < 0).squeeze(-1)
    few, many = (above, below) if len(above) < len(below) else (below, above)
    kept = torch.cat([few[:plus], many[:minus]]).sort().values
    worst = worst_query(cache, Coreset(kept), rho)
    full, subset = (math.log(a / b) / 2 for a, b in ((len(few), len(many)), (plus, minus)))
    t = np.linspace(-rho, rho, 200_001)  # only the part of q along u counts
    exact = np.abs(np.tanh(t + full) - np.tanh(t + subset)).max()
    assert worst.error.item() == pytest.approx(exact, rel=1e-6)
    assert worst.error.item() >= abs(math.tanh(rho + subset)) - abs(math.tanh(rho + full)) - 1e-9


@pytest.mark.parametrize("family", ["sphere", "cap_outliers", "signed_clusters"])
def test_a_head_is_the_same_in_every_batch(family):
    cache = small_cache(family, heads=3)
    coreset = cases(cache, 3.0)[2]
    batch = worst_query(cache, coreset, 3.0)
    for h in range(3):
        alone = worst_query(cache[h], coreset[h], 3.0)
        assert alone.error.item() == pytest.approx(batch.error[h].item(), rel=1e-6)
        assert alone.query.shape == (4,)


def test_chunks_of_heads_change_nothing(monkeypatch):
    cache = small_cache("clusters", heads=4)
    coreset = cases(cache, 3.0)[1]
    whole = worst_query(cache, coreset, 3.0)
    monkeypatch.setattr("attention_coresets.adversary.portions._NUMBERS", 1)
    torch.testing.assert_close(worst_query(cache, coreset, 3.0).error, whole.error, rtol=1e-6, atol=0)


@pytest.mark.rounding
def test_leading_axes_and_repeats():
    cache = small_cache("sphere", heads=4)
    coreset = cases(cache, 2.0)[2]
    flat = worst_query(cache, coreset, 2.0, certify=True)
    square = Cache(*(x.reshape(2, 2, *x.shape[1:]) for x in (cache.keys, cache.values)))
    folded = Coreset(coreset.indices.reshape(2, 2, -1), coreset.log_weights.reshape(2, 2, -1))
    found = worst_query(square, folded, 2.0, certify=True)
    assert found.query.shape == (2, 2, 4)
    torch.testing.assert_close(found.error, flat.error.reshape(2, 2), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.certificate, flat.certificate.reshape(2, 2), rtol=1e-6, atol=0)
    torch.testing.assert_close(worst_query(cache, coreset, 2.0).error, flat.error, rtol=1e-6, atol=0)


def test_more_radius_is_no_less_error():
    cache = small_cache("clusters", heads=3)
    coreset = cases(cache, 2.0)[1]
    errors = [worst_query(cache, coreset, rho).error for rho in (0.5, 1.0, 2.0, 4.0)]
    for small, large in itertools.pairwise(errors):
        assert (large >= small * (1 - 1e-3)).all()


def test_float32_caches_and_equal_keys():
    cache = small_cache("equal_keys", dtype=torch.float32, heads=2)
    coreset = cases(cache, 2.0)[0]
    worst = worst_query(cache, coreset, 2.0)
    means = [cache.values.mean(-2), cache.take(coreset.indices)[1].mean(-2)]
    torch.testing.assert_close(worst.error, (means[0] - means[1]).norm(dim=-1).double(), rtol=1e-4, atol=1e-6)
    assert (worst.reached == 64).all()


def test_log_weights_a_thousand_nats_apart_overflow_nothing():
    """Tokens of weight e^-1000 beside others are as good as absent."""
    cache = small_cache("sphere")
    weights = torch.tensor([0.0, 0.3, -0.2, 0.1, -1000.0, -1000.0], dtype=torch.float64)
    with_them, without = Coreset(torch.arange(6), weights), Coreset(torch.arange(4), weights[:4])
    found, expected = (worst_query(cache, coreset, 2.0).error for coreset in (with_them, without))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_ridges_of_large_logits_are_climbed_to_their_end():
    """Keys of norm about 1.7, rho = 10, random weights: plain gradients, at the same number of steps, ended 0.1 to
    0.8 % below what branch and bound found."""
    generator = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(12, 20, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    coreset = Coreset(torch.arange(20).expand(12, 20), torch.randn(12, 20, generator=generator, dtype=torch.float64))
    cache = Cache(keys, values)
    found = branch_and_bound(cache, coreset, 10.0, gap=0.03, nodes=20_000).lower
    short = (found - worst_query(cache, coreset, 10.0).error) / found
    assert short.max() < 5e-3
    assert short.median() < 1e-5


def test_errors_that_float32_does_not_see_are_found_in_float64():
    """Tokens in pairs that differ by 1e-9: the error is of that size, a hundredth of what float32 rounds."""
    half = small_cache("sphere", n=32, d=4, heads=3, seed=5)
    noise = 1e-9 * torch.randn(3, 32, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    cache = Cache(half.keys.repeat(1, 2, 1), torch.cat([half.values, half.values + noise], dim=1))
    coreset = Coreset(torch.arange(32).expand(3, -1))
    found = worst_query(cache, coreset, 2.0, restarts=32, steps=40, polish=40)
    seen = 2.0 * half.keys
    best = climb(cache, coreset, 2.0, torch.cat([seen, -seen], dim=1), 200)[1].amax(-1)
    assert (best > 1e-10).all()
    assert (found.error >= (1 - 1e-3) * best).all()
    torch.testing.assert_close(attention_error(found.query.unsqueeze(-2), cache, coreset).squeeze(-1), found.error)


@pytest.mark.parametrize(("keys", "values"), [(1, 1e11), (1, 1e13), (1e-22, 1), (1e-28, 1), (1e12, 1e-12)])
def test_units_of_keys_and_values_change_nothing(keys, values):
    cache = small_cache("sphere", n=64, d=8, heads=2)
    coreset = cases(cache, 12.0)[0]
    scaled = Cache(cache.keys * keys, cache.values * values)
    worst, found = worst_query(cache, coreset, 12.0), worst_query(scaled, coreset, 12.0 / keys)
    torch.testing.assert_close(found.error / values, worst.error, rtol=1e-6, atol=0)
    at = attention_error(found.query.unsqueeze(-2), scaled, coreset)[..., 0]
    torch.testing.assert_close(at, found.error, rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_one_dimension_against_a_dense_grid(seed):
    """Narrow hills at every radius, which few directions and radii pass by."""
    rng = np.random.default_rng(seed)
    keys, values = (torch.from_numpy(x) for x in (rng.uniform(-1, 1, (20, 1)), rng.standard_normal((20, 2))))
    cache, coreset = Cache(keys, values), Coreset(torch.arange(0, 20, 2))
    steps = torch.logspace(-4, 0, 20_000, dtype=torch.float64)
    grid = 400 * torch.cat([steps, -steps])[:, None]
    best = attention_error(grid, cache, coreset).max()
    worst = worst_query(cache, coreset, 400.0, certify=True)
    assert float(worst.error) <= float(worst.certificate)
    for restarts in (3, 64, 20_000):
        assert float(worst_query(cache, coreset, 400.0, restarts=restarts).error) >= float(best) * (1 - 1e-6)


def test_the_error_is_not_below_what_branch_and_bound_finds(monkeypatch):
    """Where all climbs stand still at a query of no error."""
    cache = small_cache("sphere", n=24, d=3)
    coreset = cases(cache, 4.0)[0]
    right = worst_query(cache, coreset, 4.0, certify=True)

    def lost(cache, coreset, rho, **_):
        return Ascent(torch.zeros(()).double(), torch.zeros(3).double(), torch.tensor(64))

    monkeypatch.setattr("attention_coresets.adversary.worst.ascend", lost)
    found = worst_query(cache, coreset, 4.0, certify=True)
    assert float(found.climbed) == 0
    assert float(found.error) == pytest.approx(float(right.error), abs=2e-4)
    at = float(attention_error(found.query[None], cache, coreset)[0])
    assert at == pytest.approx(float(found.error), rel=1e-9)
