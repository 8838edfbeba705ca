"""The tilt against other optimisers, the lemma softmax_i(q) <= e^{rho sigma} p_i, and what must not change it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import entr

import oracles
from attention_coresets import tilt
from attention_coresets.coresets.kernel.law import law
from attention_coresets.theory import antipodal_minimum_size, radius
from tables import FAMILIES, small_cache


def cloud(seed, n, d, scale=1.0):
    """Keys of mixed norms, off the origin."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(scale * rng.standard_normal((n, d)) * rng.uniform(0.1, 2, (n, 1)) + rng.standard_normal(d))


def spread(keys, p):
    mu = p @ keys
    return math.sqrt(max(0.0, p @ ((keys - mu) ** 2).sum(-1)))


def antipodal_oracle(plus, minus, rho):
    """sigma, the +u share t and the value at the maximum, over the one free number z = log t / (1 - t).

    The derivative of H + rho sigma, sigma = 2 sqrt(t (1 - t)) = 1 / cosh(z / 2), falls in z: one root.
    """
    odds = math.log(plus / minus)
    z = brentq(lambda z: odds - z - 2 * rho * math.sinh(z / 2), -40, 40, xtol=1e-15, rtol=1e-15)
    t, sigma = 1 / (1 + math.exp(-z)), 1 / math.cosh(z / 2)
    entropy = entr(t) + entr(1 - t) + t * math.log(plus) + (1 - t) * math.log(minus)
    return sigma, t, entropy + rho * sigma


@pytest.mark.parametrize("rho", [1.0, 3.0, 12.0])
@pytest.mark.parametrize(("plus", "minus"), [(1, 4095), (10, 4086), (5, 5), (488, 3608)])
def test_antipodal_against_the_one_free_number(plus, minus, rho):
    u = torch.tensor([0.6, -0.8, 0.0], dtype=torch.float64)
    keys = torch.cat([u.repeat(plus, 1), -u.repeat(minus, 1)])
    t = tilt(keys, rho)
    sigma, share, value = antipodal_oracle(plus, minus, rho)
    assert t.sigma.item() == pytest.approx(sigma, abs=1e-8)
    assert t.p[:plus].sum().item() == pytest.approx(share, rel=1e-7)
    assert (t.entropy + rho * t.sigma).item() == pytest.approx(value, abs=1e-9)


def test_the_value_where_a_damped_fixed_point_stalls():
    # n = 4096 and rho = 12 leave one key at +u; stalled iterations end at 0.9505
    keys = torch.ones(4096, 1, dtype=torch.float64)
    keys[1:] = -1
    assert tilt(keys, 12.0).sigma.item() == pytest.approx(antipodal_oracle(1, 4095, 12.0)[0], abs=1e-8)


def scipy_tilt(keys, rho):
    """H(p) + rho sigma(p) maximised over the logits of p, by BFGS from several starts."""

    def loss(logits):
        p = np.maximum(oracles.softmax(logits), 1e-300)  # a line search may try wild logits
        sigma = spread(keys, p)
        slope = -np.log(p) - 1 + rho * ((keys - p @ keys) ** 2).sum(-1) / (2 * sigma)
        return -(entr(p).sum() + rho * sigma), -(p * (slope - p @ slope))

    rng = np.random.default_rng(0)
    starts = [np.zeros(len(keys)), *rng.standard_normal((4, len(keys)))]
    found = [minimize(loss, s, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10}) for s in starts]
    best = min(found, key=lambda f: f.fun)
    return oracles.softmax(best.x), -best.fun


@pytest.mark.parametrize("rho", [0.3, 2.0, 7.0])
@pytest.mark.parametrize("seed", range(4))
def test_against_a_general_optimiser(seed, rho):
    keys = cloud(seed, n=4 + 2 * seed, d=1 + seed)
    t, (p, value) = tilt(keys, rho), scipy_tilt(keys.numpy(), rho)
    assert (t.entropy + rho * t.sigma).item() == pytest.approx(value, abs=1e-8)
    np.testing.assert_allclose(t.p, p, atol=2e-5)


@given(st.integers(1, 40), st.integers(1, 6), st.floats(1e-3, 40), st.floats(1e-4, 1e3), st.integers(0, 10**6))
def test_fields_belong_together(n, d, rho, scale, seed):
    keys = cloud(seed, n, d, scale)
    t, reach = tilt(keys, rho), max(1.0, scale)
    p = t.p.numpy()
    assert p.sum() == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(t.log_p.exp(), p, rtol=1e-12)
    np.testing.assert_allclose(t.center, p @ keys.numpy(), atol=1e-9 * reach)
    assert t.sigma.item() == pytest.approx(spread(keys.numpy(), p), abs=1e-6 * reach)
    assert t.entropy.item() == pytest.approx(entr(p).sum(), abs=1e-9)
    assert -1e-9 * (1 + rho * reach) <= t.gap.item() <= 1e-6


@given(st.integers(2, 30), st.integers(1, 5), st.floats(0.01, 20), st.integers(0, 10**6))
def test_the_lemma_at_random_queries(n, d, rho, seed):
    keys = cloud(seed, n, d)
    t = tilt(keys, rho)
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((60, d))
    queries *= (rho * np.minimum(1, rng.uniform(0, 1.5, 60)) / np.linalg.norm(queries, axis=-1))[:, None]
    aimed = np.concatenate([keys.numpy() - t.center.numpy(), t.center.numpy() - keys.numpy()])
    aimed *= rho / np.maximum(1e-300, np.linalg.norm(aimed, axis=-1))[:, None]
    shares = oracles.softmax(np.concatenate([queries, aimed]) @ keys.numpy().T)
    bound = math.exp(rho * t.sigma.item() + t.gap.item()) * t.p.numpy()
    assert (shares <= bound * (1 + 1e-9)).all()


def suprema(keys, rho, steps=150):
    """sup over |q| <= rho of softmax_i(q) for every i: log softmax_i is concave in q, so plain ascent finds it."""
    q = rho * (keys - keys.mean(0)) / (keys - keys.mean(0)).norm(dim=-1, keepdim=True).clamp_min(1e-12)
    best = torch.full((len(keys),), -torch.inf, dtype=keys.dtype)
    for step in range(steps):
        log_p = (q @ keys.T).log_softmax(-1)
        best = torch.maximum(best, log_p.diagonal())
        q = q + 2 * rho / (step + 2) * torch.nn.functional.normalize(keys - log_p.exp() @ keys, dim=-1)
        q = q * (rho / q.norm(dim=-1, keepdim=True).clamp_min(rho))
    return best.exp()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rho", [0.5, 4.0])
def test_the_lemma_at_each_tokens_worst_query_and_total_sensitivity(family, rho):
    keys = small_cache(family, n=40, d=3 + (family == "signed_clusters")).keys
    t, sup = tilt(keys, rho), suprema(keys, rho)
    factor = (rho * t.sigma + t.gap).exp()
    assert (sup <= factor * t.p * (1 + 1e-9)).all()
    assert sup.sum() <= factor * (1 + 1e-9)
    assert t.sigma <= 1 + 1e-9  # unit keys
    assert t.sigma.item() ** 2 == pytest.approx(1 - t.center.square().sum().item(), abs=1e-8)


@pytest.mark.parametrize("n", [1, 7])
def test_equal_keys_give_the_uniform_law_and_no_spread(n):
    t = tilt(torch.tensor([[0.3, -5.0]]).repeat(n, 1).double(), 4.0)
    assert t.sigma.item() == 0
    assert t.gap.item() == 0
    torch.testing.assert_close(t.p, torch.full((n,), 1 / n, dtype=torch.float64), rtol=0, atol=1e-15)
    assert t.entropy.item() == pytest.approx(math.log(n), abs=1e-12)
    torch.testing.assert_close(t.center, torch.tensor([0.3, -5.0]).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("heads", [(4,), (2, 2)])
def test_each_head_is_as_if_alone_equal_keys_among_them(heads):
    keys = torch.stack([cloud(0, 20, 3), torch.ones(20, 3).double(), 1e-3 * cloud(1, 20, 3), 50 * cloud(2, 20, 3)])
    batch = tilt(keys.reshape(*heads, 20, 3), 3.0)
    for h in range(4):
        alone, place = tilt(keys[h], 3.0), (h,) if len(heads) == 1 else (h // 2, h % 2)
        for field in ("p", "center", "sigma", "entropy"):
            torch.testing.assert_close(getattr(batch, field)[place], getattr(alone, field), rtol=1e-9, atol=1e-9)
        assert batch.gap[place] <= 1e-6


@given(st.integers(2, 25), st.floats(0.1, 10), st.floats(1e-3, 1e3), st.integers(0, 10**6))
def test_shift_and_scale(n, rho, scale, seed):
    keys = cloud(seed, n, 3)
    shift = torch.tensor([10.0, -3.0, 0.5], dtype=torch.float64)
    base, moved, scaled = tilt(keys, rho), tilt(keys + shift, rho), tilt(keys * scale, rho / scale)
    torch.testing.assert_close(moved.p, base.p, rtol=0, atol=1e-5)
    torch.testing.assert_close(moved.center, base.center + shift, rtol=0, atol=1e-4)
    torch.testing.assert_close(scaled.p, base.p, rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled.sigma / scale, base.sigma, rtol=0, atol=1e-5)
    assert moved.sigma.item() == pytest.approx(base.sigma.item(), abs=1e-5)


@pytest.mark.parametrize("rho", [0.01, 30.0, 100.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_small_and_large_radii_converge(family, rho):
    t = tilt(small_cache(family, heads=3).keys, rho)
    assert t.gap.max() <= 1e-6
    assert t.log_p.isfinite().all()


def test_float32_keys_are_solved_in_float64():
    t = tilt(cloud(3, 30, 4).float(), 2.0)
    assert t.p.dtype == torch.float64
    assert t.gap <= 1e-9


def test_radius_is_the_largest_distance_from_the_mean():
    keys = cloud(5, 12, 3)
    distances = np.linalg.norm(keys.numpy() - keys.numpy().mean(0), axis=-1)
    assert radius(keys).item() == pytest.approx(distances.max())


def test_stated_bound_of_the_antipodal_pair():
    assert antipodal_minimum_size(1.5, 0.25) == pytest.approx(math.exp(3) * 0.6)


@given(st.integers(1, 8), st.integers(1, 4), st.floats(0.05, 10), st.integers(0, 10**6))
def test_weights_count_repeated_tokens(n, d, rho, seed):
    """The tilt of weighted tokens is that of the cache in which token i is there w_i times."""
    keys, times = cloud(seed, n, d), torch.from_numpy(np.random.default_rng(seed).integers(1, 6, n))
    weighted, repeated = tilt(keys, rho, times.log().double()), tilt(keys.repeat_interleave(times, dim=0), rho)
    summed = torch.zeros(n).double().scatter_add_(0, torch.arange(n).repeat_interleave(times), repeated.p)
    torch.testing.assert_close(weighted.p, summed, rtol=0, atol=1e-7)
    torch.testing.assert_close(weighted.center, repeated.center, rtol=0, atol=1e-6)
    torch.testing.assert_close(weighted.sigma, repeated.sigma, rtol=0, atol=1e-6)
    torch.testing.assert_close(weighted.entropy, repeated.entropy, rtol=0, atol=1e-6)
    doubled = tilt(keys, rho, times.log().double() + 5.0)  # a common factor moves the entropy alone
    torch.testing.assert_close(doubled.p, weighted.p, rtol=0, atol=1e-9)
    torch.testing.assert_close(doubled.entropy, weighted.entropy + 5.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-13, 1e-20, 1e6])
def test_units_of_the_keys_change_nothing(scale, rng):
    keys = torch.from_numpy(rng.standard_normal((20, 3)))
    one, other = tilt(keys, 2.0), tilt(keys * scale, 2.0 / scale)
    torch.testing.assert_close(other.p, one.p, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(other.sigma / scale, one.sigma, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rho", [1.0, 1e20])
def test_keys_of_zero_are_equal_keys(rho):
    assert torch.equal(
        law(torch.zeros(1, 6, 2).double(), rho, "tilted", "auto").scale, torch.tensor([rho], dtype=torch.float64)
    )
