"""Exact sensitivities: against dense search in the plane, the tilt's bound and closed forms."""

import math

import numpy as np
import pytest
import torch

from attention_coresets import make_cache, tilt
from attention_coresets.coresets.draws import sensitivities as module
from attention_coresets.coresets.draws.sensitivities import sensitivities
from tables import FAMILIES, small_cache


def dense(keys, rho, angles=1440, radii=60):
    """log of the largest share of each token over a polar grid of the disc."""
    t = np.linspace(0, 2 * np.pi, angles, endpoint=False)
    queries = np.concatenate([r * np.stack([np.cos(t), np.sin(t)], -1) for r in np.linspace(0, rho, radii)])
    logits = queries @ keys.T
    return (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    ).max(0)


@pytest.mark.parametrize("rho", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("family", ["sphere", "clusters", "cap_outliers"])
def test_dense_search_in_the_plane(family, rho):
    cache = small_cache(family, n=30, d=2)
    keys = cache.keys + 0.2 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sensitivities(keys, rho, tolerance=1e-6)
    grid = dense(keys.numpy(), rho)
    assert (found.log_lower.numpy() >= grid - 1e-6).all()
    # between grid points the share is below the nearest one's by curvature alone, or by the slope at the rim
    np.testing.assert_allclose(found.log_lower, grid, atol=rho * 3e-4 + 1e-3)
    assert (found.gap >= -1e-9).all()
    assert (found.gap <= 1e-6).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tilt_bounds_them(family):
    cache = small_cache(family, n=40, d=4, heads=2)
    for rho in (1.0, 4.0):
        found, t = sensitivities(cache.keys, rho), tilt(cache.keys, rho)
        bound = rho * t.sigma.unsqueeze(-1) + t.log_p
        assert (found.log_lower <= bound + 1e-6).all()
        assert (found.log_upper <= 0).all()
        assert (found.log_lower.exp().sum(-1) >= 1 - 1e-9).all()  # softmax at q = 0 sums to 1, and each is a supremum
        # any query of the ball is below the proven bound
        queries = torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        queries = rho * queries / queries.norm(dim=-1, keepdim=True)
        shares = (queries @ cache.keys.mT).log_softmax(-1)
        assert (shares.amax(-2) <= found.log_upper + 1e-9).all()


def test_closed_forms():
    """Keys +-u: the share 1 / (1 + (n - 1) e^{-2 rho}) of a lone key; equal keys: 1/n, at once."""
    keys = torch.tensor([[1.0, 0.0]] + [[-1.0, 0.0]] * 7, dtype=torch.float64)
    found = sensitivities(keys, 2.0, tolerance=1e-9).log_lower
    assert found[0].item() == pytest.approx(-math.log(1 + 7 * math.exp(-4.0)), abs=1e-8)
    assert found[1].item() == pytest.approx(-math.log(7 + math.exp(-4.0)), abs=1e-8)
    equal = sensitivities(torch.ones(5, 3, dtype=torch.float64), 3.0)
    torch.testing.assert_close(equal.log_lower, torch.full((5,), -math.log(5), dtype=torch.float64))


def test_blocks_heads_and_shifts_change_nothing(monkeypatch):
    cache = make_cache("sphere", n=50, d=5, seed=0, heads=4)
    found = sensitivities(cache.keys, 2.0, tolerance=1e-8)
    monkeypatch.setattr(module, "_MAX_LOGITS", 350)
    square = sensitivities((cache.keys + 3.0).reshape(2, 2, 50, 5), 2.0, tolerance=1e-8)
    torch.testing.assert_close(square.log_lower.reshape(4, 50), found.log_lower, rtol=0, atol=1e-7)


def test_refusals(monkeypatch):
    keys = make_cache("sphere", n=10, d=3, seed=0).keys
    with pytest.raises(ValueError, match="rho must be a positive finite number"):
        sensitivities(keys, 0.0)
    with pytest.raises(ValueError, match="tolerance must be above 0, got 0"):
        sensitivities(keys, 1.0, tolerance=0.0)
    monkeypatch.setattr(module, "_STEPS", 1)
    with pytest.raises(RuntimeError, match="are left with a gap of"):
        sensitivities(keys, 5.0, tolerance=1e-9)
