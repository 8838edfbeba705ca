"""The synthetic families: common promises over a table, and each family's own definition."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import cumulative_trapezoid
from scipy.special import ive
from scipy.stats import kstest

from attention_coresets import CACHES, attend, make_cache, tilt
from attention_coresets.caches.directions import von_mises_fisher
from attention_coresets.theory import radius
from tables import FAMILIES, OFF_SPHERE, small_cache, small_parameters


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("d", [2, 8])
def test_unit_norms_shapes_and_dtype(family, d):
    cache = small_cache(family, n=64, d=d, heads=3)
    assert cache.keys.shape == cache.values.shape == (3, small_parameters(family, 64, d)["n"], d)
    for x in (cache.keys, cache.values):
        torch.testing.assert_close(x.norm(dim=-1), torch.ones_like(x[..., 0]), rtol=0, atol=1e-12)
    assert small_cache(family, dtype=torch.float32).keys.dtype == torch.float32
    assert small_cache(family).heads == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_is_the_same_in_every_batch(family):
    many, few, one = small_cache(family, heads=4), small_cache(family, heads=2), small_cache(family)
    for part in ("keys", "values"):
        assert torch.equal(getattr(many, part)[:2], getattr(few, part))
        assert torch.equal(getattr(many, part)[0], getattr(one, part))


@pytest.mark.parametrize("family", FAMILIES)
def test_seeds_and_heads_differ_and_repeat(family):
    cache = small_cache(family, heads=2, seed=3)
    assert torch.equal(cache.keys, small_cache(family, heads=2, seed=3).keys)
    assert not torch.equal(cache.keys[0], cache.keys[1])
    assert not torch.equal(cache.keys, small_cache(family, heads=2, seed=4).keys)
    assert not torch.equal(cache.values[0], cache.values[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_familys_own_in_another_order(family):
    parameters = small_parameters(family)
    keys, values = CACHES[family](**parameters).sample(np.random.default_rng([5, 0]))
    drawn, cache = np.concatenate([keys, values], axis=1), make_cache(family, seed=5, **parameters)
    shuffled = np.concatenate([cache.keys, cache.values], axis=1)
    assert not np.array_equal(drawn, shuffled)
    np.testing.assert_array_equal(drawn[np.lexsort(drawn.T)], shuffled[np.lexsort(shuffled.T)])


def test_the_registry_holds_these_families_and_the_model():
    assert set(CACHES) == {*FAMILIES, *OFF_SPHERE, "model"}


@pytest.mark.parametrize("rho", [0.5, 1.0, 2.0])
def test_antipodal_counts_and_balance(rho):
    cache = make_cache("antipodal", n=1000, d=5, rho=rho, values="keys", seed=1)
    u = cache.keys[0]
    groups = torch.bincount((cache.keys @ u > 0).long(), minlength=2)
    minority = round(1000 / (1 + math.exp(2 * rho)))
    assert sorted(groups.tolist()) == [minority, 1000 - minority]
    assert torch.equal(cache.values, cache.keys)
    plus = u if groups[1] == minority else -u
    answer = attend(rho * plus[None], cache.keys, cache.values)[0]
    rounding = abs(math.tanh(rho + 0.5 * math.log(minority / (1000 - minority))))
    assert answer.norm().item() == pytest.approx(rounding, abs=1e-9)
    assert rounding <= 1e-3 * math.exp(2 * rho)  # what rounding the minority to a whole token leaves


def test_antipodal_values_on_the_sphere_are_not_the_keys():
    cache = make_cache("antipodal", n=100, d=5, rho=1.0)
    assert len(torch.unique(cache.keys, dim=0)) == 2
    assert len(torch.unique(cache.values, dim=0)) == 100


@pytest.mark.parametrize(("d", "clusters", "rho"), [(8, 4, 1.0), (8, 8, 2.5), (6, 2, 0.3)])
def test_signed_clusters_answer_their_own_signs(d, clusters, rho):
    cache = make_cache("signed_clusters", d=d, clusters=clusters, seed=2)
    assert cache.n == clusters * d
    centers, label, counts = torch.unique(cache.keys, dim=0, return_inverse=True, return_counts=True)
    assert counts.tolist() == [d] * clusters
    torch.testing.assert_close(centers @ centers.T, torch.eye(clusters).double(), rtol=0, atol=1e-12)
    signs = torch.zeros(clusters, d, dtype=torch.float64).index_add_(0, label, cache.values)
    assert (signs.abs() == 1).all()
    assert (signs.sum(0) == 0).all()
    a = math.expm1(rho)
    expected = a / (cache.n + d * a) * signs
    torch.testing.assert_close(attend(rho * centers, cache.keys, cache.values), expected, rtol=0, atol=1e-13)


def test_signed_clusters_beyond_d_are_random_unit_centers():
    cache = make_cache("signed_clusters", d=4, clusters=10)
    centers = torch.unique(cache.keys, dim=0)
    assert len(centers) == 10
    assert cache.values.sum(0).abs().max() == 0


@pytest.mark.parametrize("given", [{}, {"n": 64}, {"clusters": 8}, {"clusters": 8, "n": 64}])
def test_signed_clusters_need_only_one_of_n_and_clusters(given):
    assert make_cache("signed_clusters", d=8, **given).n == 64


def test_equal_keys_are_equal_and_answer_the_mean():
    cache = small_cache("equal_keys")
    assert (cache.keys == cache.keys[0]).all()
    torch.testing.assert_close(attend(3 * torch.ones(1, 4).double(), cache.keys, cache.values)[0], cache.values.mean(0))
    assert tilt(cache.keys, 2.0).sigma == 0


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_low_rank_keys_span_their_rank_and_values_all(rank):
    cache = make_cache("low_rank", n=100, d=8, rank=rank)
    assert torch.linalg.matrix_rank(cache.keys) == rank
    assert torch.linalg.matrix_rank(cache.values) == 8


@pytest.mark.parametrize(("d", "rho"), [(8, 1.0), (8, 3.0), (32, 2.0)])
def test_cap_outliers_set_radius_and_sigma_apart(d, rho):
    cache = make_cache("cap_outliers", n=1000, d=d, heads=3)
    far, sigma = radius(cache.keys), tilt(cache.keys, rho).sigma
    assert ((far > 1) & (far <= 2)).all()
    assert (sigma < 1).all()
    assert (sigma < 0.9 * far).all()


@pytest.mark.parametrize("outliers", [0.001, 0.07, 0.4])
def test_cap_outliers_share(outliers):
    # a tight cap, so that which keys lie outside it is plain; a share that rounds to no token still gives one
    cache = make_cache("cap_outliers", n=200, d=16, outliers=outliers, concentration_per_dim=1e4)
    axis = cache.keys.median(dim=0).values
    outside = int(((cache.keys - axis).norm(dim=-1) > 0.1).sum())
    assert outside == max(1, round(200 * outliers))


def test_clusters_are_of_equal_size_around_their_centers():
    cache = make_cache("clusters", n=50, d=8, clusters=7, concentration=1e6)
    near = torch.cdist(cache.keys, cache.keys) < 0.05
    assert sorted(near.sum(-1).tolist()) == sorted([7] * 42 + [8] * 8)
    assert torch.equal(near, torch.cdist(cache.values, cache.values) < 0.05)


def test_product_repeats_few_orthonormal_keys_with_fresh_values():
    cache = make_cache("product", n=60, d=8, distinct=5)
    keys, counts = torch.unique(cache.keys, dim=0, return_counts=True)
    assert counts.tolist() == [12] * 5
    torch.testing.assert_close(keys @ keys.T, torch.eye(5).double(), rtol=0, atol=1e-12)
    assert len(torch.unique(cache.values, dim=0)) == 60
    assert len(torch.unique(make_cache("product", n=60, d=8, distinct=20).keys, dim=0)) == 20


@pytest.mark.parametrize("d", [3, 8])
@pytest.mark.parametrize("concentration", [0.5, 4.0, 60.0])
def test_von_mises_fisher_mean_resultant_length(d, concentration, rng):
    draws = 40_000
    mean = np.eye(d)[0]
    x = von_mises_fisher(rng, np.repeat(mean[None], draws, axis=0), concentration)
    length = ive(d / 2, concentration) / ive(d / 2 - 1, concentration)
    variance = 1 - length**2 - (d - 1) / concentration * length  # of the cosine
    assert abs((x @ mean).mean() - length) < 4.5 * math.sqrt(variance / draws)
    assert np.abs(x[:, 1:].mean(0)).max() < 4.5 / math.sqrt(draws * (d - 1))


@pytest.mark.parametrize("d", [2, 5])
def test_von_mises_fisher_cosines_follow_their_density(d, rng):
    kappa, mean = 2.0, np.eye(d)[0]
    angle = np.arccos((von_mises_fisher(rng, np.repeat(mean[None], 4000, axis=0), kappa) @ mean).clip(-1, 1))

    grid = np.linspace(0, math.pi, 2000)
    mass = cumulative_trapezoid(np.exp(kappa * np.cos(grid)) * np.sin(grid) ** (d - 2), grid, initial=0)
    assert kstest(angle, lambda t: np.interp(t, grid, mass / mass[-1])).pvalue > 1e-3


def test_sphere_is_isotropic():
    cache = make_cache("sphere", n=20_000, d=5)
    for x in (cache.keys, cache.values):
        assert x.mean(0).norm() < 4.5 / math.sqrt(20_000)
        assert torch.linalg.matrix_norm(x.T @ x / len(x) - torch.eye(5) / 5, ord=2) < 0.008  # 4 % of 1/5
    assert (cache.keys * cache.values).sum(-1).mean().abs() < 4.5 / math.sqrt(20_000 * 5)
