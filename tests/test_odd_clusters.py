"""Odd numbers of signed clusters, which the package does not draw: what docs/lower_bound.md proves of them."""

import math

import numpy as np
import pytest
import torch

from attention_coresets import attend
from attention_coresets.lower_bound import equal_weights_floor
from signed_instances import WEIGHTS, Instance, orthonormal, sharpened, signs, weights

SHAPES = [(3, 3), (4, 3), (6, 5), (8, 7), (16, 15)]  # d, r
RHOS = (0.05, 0.3, 1.0, 2.5)


def instances(rng: np.random.Generator, kind: str) -> list[Instance]:
    """Instances with W = 1."""
    found = []
    for d, r in SHAPES:
        for rho in RHOS:
            w = weights(rng, kind, d, r)
            found.append(Instance(orthonormal(rng, d, r), signs(rng, d, r), w / w.sum(), rho))
    return found


def tau_and_b(x: Instance) -> tuple[np.ndarray, np.ndarray]:
    r, sigma = len(x.S), x.S.sum(0)
    return sigma / (x.d * (r + x.a)), sigma / (r * x.d) - x.b


@pytest.mark.parametrize("kind", WEIGHTS)
def test_attention_and_errors_at_the_queries(rng, kind):
    """What attention is at the queries, the errors there, the sums of g, and the sum of squares."""
    for x in instances(rng, kind):
        r, delta = len(x.S), x.omega - 1 / len(x.S)
        tau, b = tau_and_b(x)
        assert (np.abs(x.S.sum(0)) == 1).all()
        q = torch.from_numpy(sharpened(x.centers, x.rho))
        np.testing.assert_allclose(attend(q, x.cache.keys, x.cache.values), x.level * x.S + tau, rtol=0, atol=1e-14)
        g = (x.level * x.z[:, None] - x.a * x.w) * x.S
        shift = x.a * delta[:, None] * tau
        E = x.errors()
        scale = 1e-12 * x.z.max()
        np.testing.assert_allclose(x.z[:, None] * E, g + shift + b, rtol=0, atol=scale)
        bias = x.S.T @ delta
        np.testing.assert_allclose(g.sum(0), x.a * b + x.a * x.level * bias, rtol=0, atol=10 * r * scale)
        squares = ((g + shift) ** 2).sum(0) + 2 * x.a * x.level * bias * b + (r + 2 * x.a) * b**2
        np.testing.assert_allclose((x.z[:, None] ** 2 * E**2).sum(0), squares, rtol=1e-9, atol=10 * r * scale)


def test_equal_cluster_weights_have_the_floor_of_even_r(rng):
    for x in instances(rng, "equal_clusters"):
        floor = equal_weights_floor(x.d, len(x.S), x.size, x.rho)
        assert np.linalg.norm(x.errors(), axis=1).max() >= floor - 1e-13


@pytest.mark.parametrize(("d", "r"), [(4, 3), (6, 5), (8, 7)])
@pytest.mark.parametrize("rho", RHOS)
def test_equal_counts_have_more_for_parity(rng, d, r, rho):
    """At m = n/2 it is A sqrt(d) sqrt(1 + (1 + 2a/r) / a^2); subsets whose signs are as near balance as can be have
    exactly that as the root mean square over the queries."""
    n = r * d
    for k in range(1, d):
        m = r * k
        for _ in range(20):
            w = (rng.random((r, d)).argsort(1) < k) / m
            x = Instance(orthonormal(rng, d, r), signs(rng, d, r), w, rho)
            extra = r * (r + 2 * x.a) / (r + x.a) ** 2 * d * min(m, n - m) ** 2 / (n * m) ** 2
            floor = math.sqrt(equal_weights_floor(d, r, m, rho) ** 2 + extra)
            if 2 * m == n:
                assert floor == pytest.approx(x.level * math.sqrt(d * (1 + (1 + 2 * x.a / r) / x.a**2)))
            norms = np.linalg.norm(x.errors(), axis=1)
            assert norms.max() >= floor - 1e-13
            gap = ((tau_and_b(x)[1] ** 2).sum() - d * (min(m, n - m) / (n * m)) ** 2) * r * (r + 2 * x.a)
            assert (norms**2).mean() == pytest.approx(floor**2 + gap / (r + x.a) ** 2, rel=1e-9)


def odd_floor(x: Instance) -> float:
    """(v) for odd r as the page states it; 0 where it says nothing."""
    ratio, eta = (x.w.size - x.size) / x.size, 1 / (len(x.S) + x.a)
    kappa = 2 * x.gamma + x.gamma**2 * ratio + eta + x.gamma**2 * eta / (1 - eta)
    if kappa >= 0.5:
        return 0.0
    return x.level * math.sqrt(x.d * ratio * (1 - eta) * (1 - 2 * kappa) / (1 - kappa))


@pytest.mark.parametrize("kind", WEIGHTS)
def test_any_weights(rng, kind):
    """The share that the odd sign costs, and the floor."""
    said = 0
    for x in instances(rng, kind):
        tau, _ = tau_and_b(x)
        delta, eta = x.omega - 1 / len(x.S), 1 / (len(x.S) + x.a)
        g = (x.level * x.z[:, None] - x.a * x.w) * x.S
        shift = x.a * delta[:, None] * tau
        assert (shift**2).sum() == pytest.approx(x.a**2 * (delta**2).sum() / (x.d * (len(x.S) + x.a) ** 2), rel=1e-9)
        least = (1 - eta) * (g**2).sum() - (1 / eta - 1) * (shift**2).sum()
        assert ((g + shift) ** 2).sum() >= least * (1 - 1e-12) - 1e-15
        assert np.linalg.norm(x.errors(), axis=1).max() >= odd_floor(x) - 1e-13
        said += odd_floor(x) > 0
    assert said or kind in ("one_cluster", "one_token", "all_kept")


def without_b(rng: np.random.Generator, S: np.ndarray) -> np.ndarray:
    """Weights of a random half of the tokens, nearest to equal ones with equal cluster weights and B = sigma / n."""
    r, d = S.shape
    kept = rng.random((r, d)).argsort(1) < d // 2
    cluster, coordinate = np.nonzero(kept)
    conditions = np.vstack([np.eye(r)[:, cluster], np.eye(d)[:, coordinate] * S[kept]])  # [r + d, m]
    wanted = np.concatenate([np.full(r, 1 / r), S.sum(0) / (r * d)])
    equal = np.full(kept.sum(), 1 / kept.sum())
    w = np.zeros((r, d))
    w[kept] = equal + np.linalg.lstsq(conditions, wanted - conditions @ equal)[0]
    return w


def test_free_weights_repair_the_parity_and_come_near_the_floor(rng):
    """At d = 64, r = 63 and rho = 0.2 equal weights err by 4.6 times the floor, by parity, free ones by 1.06."""
    d, r, rho = 64, 63, 0.2
    for _ in range(10):
        S = signs(rng, d, r)
        w = without_b(rng, S)
        assert (w >= 0).all()
        x = Instance(orthonormal(rng, d, r), S, w, rho)
        np.testing.assert_allclose(tau_and_b(x)[1], 0, atol=1e-15)
        ratio = np.linalg.norm(x.errors(), axis=1).max() / odd_floor(x)
        assert 1 <= ratio < 1.06
        parity = math.sqrt(1 + (1 + 2 * x.a / r) / x.a**2) * equal_weights_floor(d, r, r * d // 2, rho)
        assert parity / odd_floor(x) > 4.6
