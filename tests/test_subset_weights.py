"""Non-negative least squares, the kernel by rows, and refitted weights, each against an independent oracle."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls as scipy_nnls

from attention_coresets import Cache, Coreset, make_coreset, worst_query
from attention_coresets.coresets.kernel.law import balancing_gram, law
from attention_coresets.coresets.kernel.nnls import nnls
from attention_coresets.coresets.kernel.refit import refit_log_weights
from attention_coresets.coresets.kernel.unit_kernel import unit_kernel
from attention_coresets.coresets.selection import FLOOR, floored_log
from tables import FAMILIES, generators, small_cache

RHO = 2.0


def factors(rng, m, rank, heads=1):
    """Tall factors A and right-hand sides b of least squares problems, rank-deficient where rank < m."""
    a = rng.standard_normal((heads, m + 3, rank)) @ rng.standard_normal((heads, rank, m))
    return a, rng.standard_normal((heads, m + 3))


def kkt_residual(gram, target, u):
    """How far u >= 0 is from optimal: max |min(u_i G_ii, slope_i)|, slope = G u - target, over max |target|; a head."""
    slope = (gram @ u.unsqueeze(-1)).squeeze(-1) - target
    scaled = u * gram.diagonal(dim1=-2, dim2=-1)
    return torch.minimum(scaled, slope).abs().amax(-1) / target.abs().amax(-1)


@given(st.integers(1, 12), st.data())
def test_nnls_is_scipys(m, data):
    rank, seed = data.draw(st.integers(1, m)), data.draw(st.integers(0, 10**6))
    a, b = factors(np.random.default_rng(seed), m, rank, heads=3)
    gram, target = torch.from_numpy(a.transpose(0, 2, 1) @ a), torch.from_numpy(np.einsum("hkm,hk->hm", a, b))
    found = nnls(gram, target, ridge=0.0 if rank == m else 1e-10)
    assert (found >= 0).all()
    assert kkt_residual(gram, target, found).max() < 1e-6
    for h in range(3):
        best, norm = scipy_nnls(a[h], b[h])
        assert np.linalg.norm(a[h] @ found[h].numpy() - b[h]) == pytest.approx(norm, rel=1e-6)
        if rank == m and np.linalg.cond(a[h]) < 1e3:
            np.testing.assert_allclose(found[h], best, atol=1e-7)


def test_nnls_of_a_kernel_matrix_of_near_duplicates(rng):
    points = np.repeat(rng.standard_normal((60, 3)), 4, axis=0) + 1e-7 * rng.standard_normal((240, 3))
    gram = np.exp(-0.5 * np.square(points[:, None] - points[None]).sum(-1))
    target = gram @ rng.random(240)
    held, aim = (torch.from_numpy(x)[None] for x in (gram[:150, :150], target[:150]))
    found = nnls(held, aim)
    assert kkt_residual(held, aim, found).item() < 1e-5
    values, vectors = np.linalg.eigh(gram[:150, :150] + 1e-12 * np.eye(150))
    root = vectors * np.sqrt(values.clip(1e-14))
    best, _ = scipy_nnls(root.T, (vectors / np.sqrt(values.clip(1e-14))).T @ target[:150], maxiter=3000)

    def objective(u):
        return u @ gram[:150, :150] @ u / 2 - target[:150] @ u

    assert objective(found[0].numpy()) <= objective(best) + 1e-6 * abs(objective(best))


def test_nnls_without_predictions_finds_the_same_minimum(rng, monkeypatch):
    """Where the corrector goes in circles, as on a head of 1797 tokens of a real model, plain steps take over."""
    a, b = factors(rng, 30, 25, heads=20)
    gram, target = torch.from_numpy(a.transpose(0, 2, 1) @ a), torch.from_numpy(np.einsum("hkm,hk->hm", a, b))
    usual = nnls(gram, target, ridge=1e-6)
    monkeypatch.setattr("attention_coresets.coresets.kernel.nnls._PREDICTED", 0)
    plain = nnls(gram, target, ridge=1e-6)
    assert not torch.equal(plain, usual)
    torch.testing.assert_close(plain, usual, rtol=1e-6, atol=1e-8)


def test_nnls_of_large_weights_ends_where_rounding_does():
    """Weights of 2400 of two features that nearly cancel: G u is known to 1e-12 of the target, not to 1e-13."""
    gram = torch.tensor([[1.0, -0.37695, -0.99948], [-0.37695, 1.0, 0.34728], [-0.99948, 0.34728, 1.0]]).double()
    target = torch.tensor([-0.05747, 1.0, 0.10909]).double()
    found = nnls(gram[None], target[None], ridge=0.0)
    assert found.max() > 1000
    assert kkt_residual(gram[None], target[None], found).item() < 1e-11


def test_nnls_treats_each_head_alone_and_refuses_what_is_no_gram_matrix(rng):
    a, b = factors(rng, 8, 8, heads=4)
    gram, target = torch.from_numpy(a.transpose(0, 2, 1) @ a), torch.from_numpy(np.einsum("hkm,hk->hm", a, b))
    together = nnls(gram, 1e9 * target)
    for h in range(4):
        torch.testing.assert_close(nnls(gram[h : h + 1], 1e9 * target[h : h + 1])[0], together[h], rtol=1e-9, atol=1e-3)
    with pytest.raises(ValueError, match="not positive semidefinite"):
        nnls(gram * torch.nan, target)
    assert nnls(gram, 0 * target).abs().max() < 1e-300


@pytest.mark.parametrize("scale", ["auto", "inv_sqrt_d"])
@pytest.mark.parametrize("family", ["sphere", "cap_outliers", "antipodal"])
def test_the_unit_kernel_is_the_balancing_gram_matrix(family, scale):
    cache = small_cache(family, n=20, heads=2)
    cache = Cache(1.5 * cache.keys, 3 * cache.values)
    measure = law(cache.keys, RHO, "tilted", scale)
    kernel = unit_kernel(cache.keys, cache.values, measure)
    everyone = torch.arange(20).expand(2, 20)
    rows, lengths = kernel.rows(everyone), kernel.log_norms.exp()
    gram = balancing_gram(cache.keys, cache.values, torch.zeros_like(lengths), measure)
    full = rows * lengths.unsqueeze(-1) * lengths.unsqueeze(-2)
    top = gram.flatten(1).amax(-1)[:, None, None]  # each is scaled by its own largest norm
    torch.testing.assert_close(gram / top, full / full.flatten(1).amax(-1)[:, None, None])
    some = torch.tensor([[3, 11, 4], [0, 19, 7]])
    heads = torch.arange(2).unsqueeze(-1)
    torch.testing.assert_close(kernel.among(some), rows[heads.unsqueeze(-1), some.unsqueeze(-1), some.unsqueeze(-2)])
    torch.testing.assert_close(kernel.everywhere(lengths), (rows @ lengths.unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(kernel.sums(lengths, some), kernel.everywhere(lengths).gather(-1, some))
    dense = unit_kernel(cache.keys, cache.values, measure, dense=True)
    torch.testing.assert_close(dense.rows(some), kernel.rows(some))
    torch.testing.assert_close(dense.everywhere(lengths), kernel.everywhere(lengths))


def rkhs_distance(cache, coreset, rho):
    """|sum_i phi_i - sum_j w_j phi_j| of one head, features by a factor of the whole Gram matrix."""
    zero = torch.zeros(1, cache.n, dtype=torch.float64)
    gram = balancing_gram(cache.keys[None], cache.values[None], zero, law(cache.keys[None], rho, "tilted", "auto"))[0]
    signed = torch.ones(cache.n, dtype=torch.float64)
    signed[coreset.indices] -= coreset.log_weights.exp()
    return float((signed @ gram @ signed).clamp_min(0).sqrt() / gram.sum().sqrt())


@pytest.mark.parametrize("family", ["sphere", "cap_outliers"])
def test_the_kernel_refit_is_the_least_distance(family):
    """Against scipy on a factor of the Gram matrix, and never above the weights it began with."""
    cache = small_cache(family, n=40, d=6)
    start = make_coreset("tilted_draws")(cache, 12, RHO, *generators(0))
    fitted = refit_log_weights(cache, start, RHO)
    assert torch.equal(fitted.indices, start.indices)
    zero = torch.zeros(1, 40, dtype=torch.float64)
    measure = law(cache.keys[None], RHO, "tilted", "auto")
    gram = balancing_gram(cache.keys[None], cache.values[None], zero, measure)[0].numpy()
    root = np.linalg.cholesky(gram + 1e-12 * np.eye(40)).T
    best, norm = scipy_nnls(root[:, start.indices], root.sum(1))
    found = rkhs_distance(cache, fitted, RHO)
    assert found == pytest.approx(norm / np.sqrt(gram.sum()), rel=1e-4)
    assert found < rkhs_distance(cache, start, RHO)
    kept = best > 1e-3 * best.max()
    np.testing.assert_allclose(fitted.log_weights.exp()[kept], best[kept], rtol=1e-3)


def test_refits_keep_shapes_batches_and_exactness():
    cache = small_cache("clusters", n=24, heads=4)
    start = make_coreset("gram_schmidt_walk")(cache, 9, RHO, generators(0, 1, 2, 3))
    fitted = refit_log_weights(cache, start, RHO)
    square = Cache(*(x.reshape(2, 2, 24, -1) for x in (cache.keys, cache.values)))
    folded = Coreset(start.indices.reshape(2, 2, 9), start.log_weights.reshape(2, 2, 9))
    again = refit_log_weights(square, folded, RHO)
    torch.testing.assert_close(again.log_weights.reshape(4, 9), fitted.log_weights, rtol=0, atol=1e-6)
    for h in range(4):
        alone = refit_log_weights(cache[h], start[h], RHO)
        torch.testing.assert_close(alone.log_weights, fitted.log_weights[h], rtol=0, atol=1e-6)
    everything = Coreset(torch.arange(24).repeat(4, 1))
    exact = refit_log_weights(cache, everything, RHO)
    assert worst_query(cache, exact, RHO, restarts=4).error.max() < 1e-6
    half = Cache(cache.keys.float(), cache.values.float())
    assert refit_log_weights(half, start, RHO).log_weights.dtype == torch.float32


def test_refit_refuses_what_makes_no_sense():
    cache = small_cache("sphere", n=10)
    coreset = Coreset(torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="rho must be a positive finite number"):
        refit_log_weights(cache, coreset, -1.0)


def test_the_floor_of_weights():
    found = floored_log(torch.tensor([[4.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64))
    top = np.log(4.0)
    np.testing.assert_allclose(found[0], [top, 0.0, top + FLOOR])
    assert found[1].isfinite().all()
    assert (found[1] == found[1, 0]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_refits_of_every_family_are_finite(family):
    cache = small_cache(family, n=24, heads=2)
    start = make_coreset("uniform")(cache, 7, RHO, *generators(0))
    refit_log_weights(cache, start, RHO)  # Coreset refuses NaN and Inf
