"""Reference bounds: Nystroem weights, fitted weights and values against dense solvers, the search against a grid."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from scipy.special import lambertw

from attention_coresets import Cache, Coreset, attend, make_cache, make_coreset, worst_query
from reference import RefittedValues, WildCat, worst_of
from reference.refitted_values import sample_ball
from reference.wildcat import nystroem_weights
from tables import generators, small_cache

RHO = 2.0
BOUNDS = (WildCat(), RefittedValues(samples=256))


def temperature(keys, rho):
    """a^2, from the paper's formulas with SciPy's Lambert function."""
    radius = np.linalg.norm(keys - keys.mean(0), axis=1).max()
    rho_0 = math.sqrt(1 + math.exp(2 * lambertw(2 / math.e**2).real + 2))
    b = math.log(len(keys)) / (rho * radius) + 2
    return rho / radius * 2 * lambertw(b / (2 * rho_0)).real / b


@pytest.mark.rounding
@pytest.mark.parametrize("family", ["sphere", "cap_outliers", "clusters"])
@pytest.mark.parametrize("bound", BOUNDS, ids=lambda b: type(b).__name__)
def test_exact_with_every_token_and_batched(bound, family):
    cache = small_cache(family, n=24, d=3, heads=2)
    queries = torch.randn(2, 50, 3, dtype=torch.float64)
    for size in (24, 30):
        found = bound(cache, size, RHO, *generators(0)).attend(queries)
        torch.testing.assert_close(found, attend(queries, cache.keys, cache.values), rtol=0, atol=1e-9)
    both = bound(cache, 7, RHO, generators(5, 6))
    assert both.indices.shape == (2, 7)
    assert (both.indices.diff(dim=-1) > 0).all()
    for h in range(2):
        alone = bound(cache[h], 7, RHO, *generators(5 + h))
        assert torch.equal(alone.indices, both.indices[h])
        torch.testing.assert_close(alone.attend(queries[h]), both.attend(queries)[h], rtol=0, atol=1e-8)
    for rho, size, message in ((-1.0, 7, "rho must be"), (1.0, 0, "size must be")):
        with pytest.raises(ValueError, match=message):
            bound(cache, size, rho, *generators(0))


@pytest.mark.parametrize("rho", [0.5, 3.0])
def test_nystroem_weights_against_a_dense_solve(rho):
    cache = small_cache("cap_outliers", n=30, d=3)
    found = WildCat()(cache, 6, rho, *generators(1))
    keys, values = cache.keys.numpy(), cache.values.numpy()
    x = (keys - keys.mean(0)) * math.sqrt(temperature(keys, rho))
    h, kept = np.exp(x @ x.T), found.indices.numpy()
    weights = np.linalg.solve(h[np.ix_(kept, kept)], h[kept])
    np.testing.assert_allclose(found.values, weights @ values, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.mass, weights.sum(1), rtol=1e-6, atol=1e-8)
    query = np.random.default_rng(0).standard_normal(3)
    kernel = np.exp(x[kept] @ query / math.sqrt(temperature(keys, rho)))
    wanted = np.clip(kernel @ weights @ values / (kernel @ weights.sum(1)), values.min(0), values.max(0))
    np.testing.assert_allclose(found.attend(torch.from_numpy(query)[None])[0], wanted, rtol=1e-6)


def test_pivots_are_drawn_by_what_is_left_of_the_diagonal():
    """Pairs of pivots of 20,000 heads against the chances of both orders, exactly enumerated."""
    rng, heads, n = np.random.default_rng(3), 20_000, 5
    x = rng.standard_normal((n, 2))
    h = np.exp(x @ x.T)
    chance = np.zeros((n, n))
    for i in range(n):
        left = np.diag(h) - h[i] ** 2 / h[i, i]
        for j in set(range(n)) - {i}:
            chance[min(i, j), max(i, j)] += h[i, i] / np.trace(h) * left[j] / left.sum()
    uniforms = torch.from_numpy(rng.random((heads, 2)))
    pivots, _ = nystroem_weights(torch.from_numpy(x).expand(heads, n, 2), uniforms)
    counts = np.zeros((n, n))
    np.add.at(counts, tuple(pivots.numpy().T), 1)
    error = np.sqrt(chance * (1 - chance) / heads)
    assert (np.abs(counts / heads - chance)[chance > 0] < 4.5 * error[chance > 0]).all()
    assert (counts[chance == 0] == 0).all()


def test_nystroem_weights_of_every_token_are_the_identity():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 9, 4)))
    _, weights = nystroem_weights(x, torch.rand(1, 9, dtype=torch.float64))
    torch.testing.assert_close(weights[0], torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-9)


def test_repeated_keys_exhaust_the_kernel_and_cost_nothing():
    one = small_cache("sphere", n=5, d=3)
    values = torch.randn(40, 3, dtype=torch.float64, generator=generators(0)[0])
    cache = Cache(one.keys.repeat(8, 1), values)
    found = WildCat()(cache, 12, RHO, *generators(1))
    assert found.indices.shape == (12,)
    assert int((found.mass.abs() > 1e-9).sum()) == 5
    assert worst_of(cache, found.attend, RHO, restarts=8, steps=20).error < 1e-7
    equal = small_cache("equal_keys", n=30, d=3)
    assert worst_of(equal, WildCat()(equal, 4, RHO, *generators(1)).attend, RHO, restarts=8, steps=5).error < 1e-9


@pytest.mark.rounding
def test_wildcat_does_not_mind_a_shift_and_stays_in_the_box():
    cache = small_cache("clusters", n=60, d=4)
    moved = Cache(cache.keys + 2.0, cache.values)
    found, other = (WildCat()(c, 3, RHO, *generators(1)) for c in (cache, moved))
    assert torch.equal(found.indices, other.indices)
    queries = 50 * torch.randn(200, 4, dtype=torch.float64, generator=generators(0)[0])
    out = found.attend(queries)
    torch.testing.assert_close(out, other.attend(queries), rtol=0, atol=1e-6)
    assert (out >= cache.values.amin(0)).all()
    assert (out <= cache.values.amax(0)).all()


def test_refitted_weights_and_values_against_dense_solvers():
    cache = small_cache("sphere", n=40, d=3)
    coreset = make_coreset("uniform")(cache, 6, RHO, *generators(2))
    found = RefittedValues(samples=300, ridge=1e-13)(cache, 6, RHO, *generators(1), coreset=coreset)
    assert torch.equal(found.indices, coreset.indices)
    q, kept = sample_ball(cache, RHO, 300, *generators(1)).numpy(), coreset.indices.numpy()
    kernel = np.exp(q @ cache.keys.numpy().T)
    share = kernel[:, kept] / kernel.sum(1, keepdims=True)
    _, least = nnls(share, np.ones(300))
    w = found.log_weights.exp().numpy()
    assert least <= np.linalg.norm(share @ w - 1) <= 1.001 * least
    x = share * w / (share @ w)[:, None]
    target = kernel @ cache.values.numpy() / kernel.sum(1, keepdims=True)
    wanted = np.linalg.lstsq(x, target, rcond=None)[0]
    np.testing.assert_allclose(
        np.linalg.norm(x @ found.values.numpy() - target), np.linalg.norm(x @ wanted - target), rtol=1e-6
    )


def test_refitted_keys_are_those_of_largest_rms_attention():
    cache = small_cache("cap_outliers", n=30, d=3)
    found = RefittedValues(samples=100)(cache, 5, RHO, *generators(1))
    logits = (sample_ball(cache, RHO, 100, *generators(1)) @ cache.keys.T).numpy()
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found.indices.tolist() == sorted(np.argsort(-(share**2).mean(0))[:5].tolist())
    with pytest.raises(ValueError, match="coreset has 4 tokens, size asks for 5"):
        RefittedValues()(cache, 5, RHO, *generators(1), coreset=Coreset(torch.arange(4)))


def test_samples_fill_the_ball_and_aim_at_tokens():
    cache = small_cache("sphere", n=20, d=3, heads=2)
    q = sample_ball(cache, RHO, 4000, generators(0, 1))
    radius = q.norm(dim=-1) / RHO
    assert radius.max() <= 1 + 1e-12
    grid = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    reached = (radius.unsqueeze(-1) <= grid).double().mean(1)
    assert (reached - grid**3).abs().max() < 0.026  # Kolmogorov's 1 % point for 4000
    centred = cache.keys - cache.keys.mean(dim=1, keepdim=True)
    cosine = torch.nn.functional.normalize(q[:, ::2], dim=-1) @ torch.nn.functional.normalize(centred, dim=-1).mT
    assert (cosine.abs().amax(-1) > 1 - 1e-9).all()
    assert 0.4 < (cosine.gather(-1, cosine.abs().argmax(-1, keepdim=True)) > 0).double().mean() < 0.6


@pytest.mark.parametrize("bound", [*BOUNDS, None], ids=["wildcat", "refitted", "subset"])
def test_the_search_against_a_grid_in_the_plane(bound):
    cache = make_cache("cap_outliers", n=64, d=2, seed=4, heads=2)
    subset = make_coreset("uniform")(cache, 6, RHO, *generators(2))
    made = None if bound is None else bound(cache, 3, RHO, *generators(2))
    approximate = made.attend if made else lambda q: attend(q, *cache.take(subset.indices))
    side = torch.linspace(-RHO, RHO, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    grid = grid[grid.norm(dim=-1) <= RHO].expand(2, -1, -1)
    errors = (attend(grid, cache.keys, cache.values) - approximate(grid)).norm(dim=-1).amax(-1)
    found = worst_of(cache, approximate, RHO, restarts=16, steps=80)
    assert (found.query.norm(dim=-1) <= RHO * (1 + 1e-12)).all()
    at = found.query.unsqueeze(-2)
    again = (attend(at, cache.keys, cache.values) - approximate(at)).norm(dim=-1).squeeze(-1)
    torch.testing.assert_close(found.error, again)
    assert (found.error >= errors * (1 - 1e-6)).all()
    assert (found.error <= 1.02 * errors).all()


def test_the_search_agrees_with_the_adversary_of_coresets():
    cache = make_cache("clusters", n=256, d=8, seed=1, heads=2)
    coreset = make_coreset("tilted_draws")(cache, 32, RHO, *generators(0))
    weights = coreset.log_weights
    found = worst_of(cache, lambda q: attend(q, *cache.take(coreset.indices), weights), RHO)
    torch.testing.assert_close(found.error, worst_query(cache, coreset, RHO).error, rtol=0.01, atol=0)


def test_signed_weights_are_far_below_any_subset():
    cache = make_cache("sphere", n=256, d=4, seed=0)
    subset = make_coreset("uniform")(cache, 32, 1.0, *generators(0))
    assert worst_of(cache, WildCat()(cache, 32, 1.0, *generators(0)).attend, 1.0).error < 0.1 * float(
        worst_query(cache, subset, 1.0).error
    )


def test_what_the_search_refuses():
    cache = small_cache("sphere", n=10, d=3)
    with pytest.raises(ValueError, match="returned NaN"):
        worst_of(cache, lambda q: q * math.nan, 1.0)
    with pytest.raises(ValueError, match="rho must be"):
        worst_of(cache, lambda q: q, 0.0)
    with pytest.raises(ValueError, match="restarts and steps must be at least 1, got 0 and 150"):
        worst_of(cache, lambda q: q, 1.0, restarts=0)
