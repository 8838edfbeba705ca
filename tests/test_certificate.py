"""The kernel certificate is never below the worst query found, and is its stated formula."""

import math

import numpy as np
import pytest
import torch

from attention_coresets import Cache, Coreset, attention_error, make_coreset, tilt, worst_query
from attention_coresets.adversary import kernel_certificate
from tables import FAMILIES, generators, small_cache


def random_coreset(rng, heads, n, m, weighted):
    """A random subset of each head, with random log-weights if asked."""
    indices = np.stack([np.sort(rng.choice(n, m, replace=False)) for _ in range(heads)])
    weights = torch.from_numpy(2 * rng.standard_normal((heads, m))) if weighted else None
    return Coreset(torch.from_numpy(indices), weights)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(
    ("n", "m", "d", "dv", "rho"), [(2, 1, 1, 1, 1.0), (6, 3, 2, 1, 3.0), (20, 5, 4, 3, 2.0), (12, 11, 3, 3, 6.0)]
)
def test_never_below_the_ascent_on_random_caches(n, m, d, dv, rho, weighted):
    """60 heads a case, keys and values of mixed norms off the origin: 480 caches in all."""
    rng, heads = np.random.default_rng(n), 60
    keys = rng.standard_normal((heads, n, d)) * rng.uniform(0.1, 1.5, (heads, n, 1)) + rng.standard_normal(
        (heads, 1, d)
    )
    values = rng.standard_normal((heads, n, dv)) * rng.uniform(0.1, 3, (heads, 1, 1))
    cache = Cache(torch.from_numpy(keys), torch.from_numpy(values))
    worst = worst_query(cache, random_coreset(rng, heads, n, m, weighted), rho, restarts=16, steps=30, certify=True)
    assert worst.certificate.isfinite().all()
    assert (worst.certificate >= worst.error * (1 - 1e-9)).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rho", [0.3, 2.0])
@pytest.mark.parametrize("construction", ["uniform", "gram_schmidt_walk"])
def test_never_below_the_ascent_on_the_families(family, rho, construction):
    cache = small_cache(family, heads=3)
    coreset = make_coreset(construction)(cache, 16, rho, *generators(0))
    worst = worst_query(cache, coreset, rho, certify=True)
    assert (worst.certificate >= worst.error).all()
    assert torch.equal(worst.certificate, kernel_certificate(cache, coreset, rho))


def formula(keys, values, indices, log_weights, t, rho, a2):
    """The bound of docs/theory.md at one a^2, written out in NumPy."""
    n, weights = len(keys), np.zeros(len(keys))
    shares = np.exp(log_weights)
    weights[indices] = n * shares / shares.sum()
    x = keys - t.center.numpy()
    gram = np.exp(a2 * x @ x.T)
    extended = np.concatenate([values, np.ones((n, 1))], axis=1) * (1 - weights)[:, None]
    largest = np.linalg.eigvalsh(extended.T @ gram @ extended)[-1]
    height = math.sqrt(1 + (values**2).sum(-1).max())
    return math.exp(rho**2 / (2 * a2) - t.entropy.item()) * height * math.sqrt(largest)


def test_it_is_the_least_of_the_formula_over_its_scales(rng):
    cache = small_cache("cap_outliers", n=30)
    rho, coreset = 2.0, random_coreset(rng, 1, 30, 8, weighted=True)[0]
    t = tilt(cache.keys, rho)
    arrays = [x.numpy() for x in (cache.keys, cache.values, coreset.indices, coreset.log_weights)]
    scales = [2 ** (k / 4) * rho / t.sigma.item() for k in range(-6, 7)]
    expected = min(formula(*arrays, t, rho, a2) for a2 in scales)
    assert kernel_certificate(cache, coreset, rho).item() == pytest.approx(expected, rel=1e-9)


def test_an_exact_coreset_is_certified_exact():
    cache = small_cache("sphere")
    everything = Coreset(torch.arange(cache.n))
    assert kernel_certificate(cache, everything, 2.0) == 0
    constant = Coreset(torch.arange(cache.n), torch.full((cache.n,), 1.3, dtype=torch.float64))
    assert kernel_certificate(cache, constant, 2.0) < 1e-9


def test_equal_keys_are_certified_within_the_height():
    """No key varies: error |mean difference|, bound sqrt(1 + 1) times the norm of the same difference."""
    cache = small_cache("equal_keys")
    coreset = Coreset(torch.arange(0, cache.n, 3))
    error = attention_error(torch.zeros(1, 4).double(), cache, coreset)[0]
    bound = kernel_certificate(cache, coreset, 2.0)
    assert error <= bound <= math.sqrt(2) * error * (1 + 1e-6)


def test_a_small_radius_is_certified_nearly_tight():
    """As rho goes to 0 the features tend to the constant, and only the height sqrt(1 + max |v|^2) is lost."""
    cache = small_cache("sphere", heads=5)
    coreset = make_coreset("uniform")(cache, 20, 1e-4, *generators(0))
    worst = worst_query(cache, coreset, 1e-4, certify=True)
    assert (worst.certificate <= 1.1 * math.sqrt(2) * worst.error).all()


def test_a_shift_of_the_keys_and_the_batch_change_nothing():
    cache = small_cache("clusters", heads=3)
    coreset = make_coreset("tilted_draws")(cache, 12, 2.0, *generators(0))
    bound = kernel_certificate(cache, coreset, 2.0)
    moved = kernel_certificate(Cache(cache.keys + 3.0, cache.values), coreset, 2.0)
    torch.testing.assert_close(moved, bound, rtol=1e-6, atol=0)
    for h in range(3):
        torch.testing.assert_close(kernel_certificate(cache[h], coreset[h], 2.0), bound[h], rtol=1e-6, atol=0)


def test_float32_caches_are_certified_in_float64():
    cache = small_cache("sphere", dtype=torch.float32)
    coreset = make_coreset("tilted_draws")(cache, 12, 2.0, *generators(0))
    found = kernel_certificate(cache, coreset, 2.0)
    assert found.dtype == torch.float64
    exact = Coreset(coreset.indices, coreset.log_weights.double())
    assert found.item() == pytest.approx(kernel_certificate(cache.to(torch.float64), exact, 2.0).item(), rel=1e-9)
