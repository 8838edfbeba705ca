"""The upper bound: each step of its proof after the walk's signs (docs/theory.md, Balancing), and many walks."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import oracles
from attention_coresets import Cache, Coreset, WeightedCache, make_cache, make_coreset, worst_query
from attention_coresets.analysis.topics.upper_bound.ceiling import held_to_bound, largest_shares
from attention_coresets.coresets.kernel.law import capped_marginals
from attention_coresets.study.table import read_table
from attention_coresets.theory import radius, tilt
from attention_coresets.upper_bound import balancing_bound, balancing_constant

RESULTS = Path(__file__).parent.parent / "results"


def law_of(keys, rho, size, model="tilted") -> tuple[Tensor, Tensor, float, float, Tensor]:
    """(p, center, spread, log of the least Z, marginals) of a model, from the tilt alone."""
    if model == "tilted":
        t = tilt(keys, rho)
        p, center, width, log_z = t.p, t.center, float(t.sigma), float(t.entropy)
    else:
        n = len(keys)
        p = torch.full((n,), 1.0 / n, dtype=keys.dtype)
        center, width, log_z = keys.mean(0), float(radius(keys)), math.log(n)
    return p, center, width, log_z, capped_marginals(p.log().unsqueeze(0), size)[0]


def features_gram(keys, values, rho, size, model="tilted"):
    """Gram matrix of the u_i, and the marginals."""
    _, center, width, _, pi = law_of(keys, rho, size, model)
    x, v = keys - center, values / values.norm(dim=-1).max()
    return torch.exp(rho / width * x @ x.T) * (v @ v.T + 1) / (pi[:, None] * pi[None]), pi


CAPPED = [("cap_outliers", {}, 2.0, 20), ("antipodal", {"rho": 2.0}, 2.0, 30), ("sphere", {}, 3.0, 40)]


def drawn(name, parameters, n=96, d=4, seed=0):
    made = make_cache(name, n=n, d=d, seed=seed, **parameters)
    return made.keys.double(), made.values.double()


# From signs to errors.


@pytest.mark.parametrize(("name", "parameters", "rho", "size"), CAPPED)
@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_features_of_the_stated_norm(name, parameters, rho, size, model):
    keys, values = drawn(name, parameters)
    keys, values = 0.7 * keys + 0.1 * torch.arange(4), values * torch.linspace(0.1, 3, 96)[:, None]
    p, _, width, log_z, pi = law_of(keys, rho, size, model)
    gram, _ = features_gram(keys, values, rho, size, model)
    free = pi < 1 - 1e-9
    assert not free.all() or model == "unweighted" or name == "sphere"  # these laws do cap tokens
    shares = (p / pi)[free]  # 1 / c
    torch.testing.assert_close(shares, shares[:1].expand_as(shares))
    assert shares.max() <= (1 + 1e-9) / size
    most = math.sqrt(2) * math.exp(log_z + rho * width / 2) * float(shares.max())
    norms = gram.diagonal().sqrt()[free]
    assert norms.max() <= most * (1 + 1e-9)
    assert norms.max() >= most * 0.9 or model == "unweighted"
    assert gram.min() >= 0
    square = norms.square()
    apart = square[:, None] + square[None] - 2 * gram[free][:, free]
    assert apart.max() <= 2 * most**2 * (1 + 1e-9)


@pytest.mark.parametrize(("name", "parameters", "rho", "size"), CAPPED)
@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_the_denominator_has_the_stated_floor(name, parameters, rho, size, model):
    keys, _ = drawn(name, parameters)
    _, center, _, log_z, _ = law_of(keys, rho, size, model)
    q = torch.randn(500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q = rho * q / q.norm(dim=-1, keepdim=True) * torch.linspace(0, 1, 500)[:, None]
    assert (q @ (keys - center).T).logsumexp(-1).min() >= log_z - 1e-9


def test_the_error_is_the_balanced_sum_over_the_denominator():
    rng = np.random.default_rng(0)
    keys, values, size, rho = rng.normal(size=(30, 3)), rng.normal(size=(30, 3)), 11, 1.3
    pi = law_of(torch.from_numpy(keys), rho, size)[-1].numpy()
    kept = np.sort(rng.choice(30, size, replace=False))
    moved = np.isin(np.arange(30), kept) * 2.0 - 2 * pi
    q = rho * rng.normal(size=3) / 3
    own = oracles.attention(q, keys[kept], values[kept], -np.log(pi[kept]))
    weights = moved / (2 * pi) * np.exp(keys @ q)
    found = (weights @ values - own * weights.sum()) / np.exp(keys @ q).sum()
    np.testing.assert_allclose(found, own - oracles.attention(q, keys, values), atol=1e-12)


# The supremum.

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def complex_gaussian(eta):
    """Points and weights that integrate functions of one coordinate of zeta exactly, but for rounding."""
    z = math.sqrt(eta / 2) * (NODES[:, None] + 1j * NODES[None])
    return z.ravel(), np.outer(WEIGHTS, WEIGHTS).ravel()


@pytest.mark.parametrize("eta", [0.05, 0.3])
@pytest.mark.parametrize("y", [0.0, 0.6, -1.2])
def test_means_over_complex_queries(eta, y):
    zeta, weight = complex_gaussian(eta)
    z = y + zeta
    for x in (-2.0, 0.3, 1.5):
        assert weight @ np.exp(z * x) == pytest.approx(math.exp(y * x), rel=1e-9)
    assert weight @ np.exp(np.abs(z) ** 2) == pytest.approx(math.exp(y * y / (1 - eta)) / (1 - eta), rel=1e-9)
    assert weight @ np.exp(z * z) == pytest.approx(math.exp(y * y), rel=1e-9)
    powers = z[:, None] ** np.arange(60) / np.sqrt([float(math.factorial(k)) for k in range(60)])
    half = (np.exp(np.abs(z) ** 2) + np.exp(z * z).real) / 2
    small = np.abs(z) < 3
    np.testing.assert_allclose((powers.real**2).sum(-1)[small], half[small], rtol=1e-9)


@given(
    d=st.integers(1, 40),
    r2=st.floats(0, 20),
    eta=st.floats(0.001, 0.9),
    part=st.floats(0, 1),
    theta=st.floats(0.05, 5),
)
def test_the_relative_entropy(d, r2, eta, part, theta):
    def normal(mean, variance):
        covariance = torch.eye(d, dtype=torch.float64) * variance
        return torch.distributions.MultivariateNormal(torch.full((d,), mean, dtype=torch.float64), covariance)

    kl = torch.distributions.kl_divergence
    y = math.sqrt(part * r2 / d)  # |y|^2 = part * R^2
    found = kl(normal(y, eta / 2), normal(0.0, eta / 2 + r2 / d))
    assert found <= d / 2 * math.log1p(2 * r2 / (d * eta)) + 1e-9
    found = kl(normal(1 / math.sqrt(d), theta / d), normal(0.0, (1 + theta) / d))  # |w| = 1, in dv = d
    assert float(found) == pytest.approx(d / 2 * math.log1p(1 / theta), rel=1e-6)


@given(d=st.integers(1, 300), dv=st.integers(1, 300), exponent=st.floats(0, 30), delta=st.floats(1e-9, 1))
def test_the_stated_constant_is_the_lemma_at_the_stated_choice(d, dv, exponent, delta):
    """sqrt(1 + ridge) sqrt(2 B (K + log 1/delta)) e^{rho sigma / 2}, rounded up to 2 and e^(1/2)."""
    eta, theta = 0.5 / (d + exponent + 0.5), 1.0
    b = (2 + theta) / 2 * (1 + (1 - eta) ** -d * math.exp(exponent / (1 - eta) - exponent))
    k = d / 2 * math.log1p(2 * exponent / (d * eta)) + dv / 2 * math.log1p(1 / theta) + math.log(2)
    lemma = math.sqrt(1.006) * math.sqrt(2 * b * (k - math.log(delta)) / d)
    found = balancing_constant(d, dv, 1.0, exponent, delta)
    assert lemma <= found
    if d > 4:
        assert found <= 1.04 * lemma
    if dv <= d and delta == 1:
        assert found <= 5.3 * math.sqrt(math.log(2 + exponent))


@given(d=st.integers(1, 300), exponent=st.floats(0, 100))
def test_the_short_form_of_the_bound(d, exponent):
    short = 5.3 * math.sqrt(math.log(2 + exponent))
    assert 1.6 <= balancing_constant(d, d, 1.0, exponent) <= short


def test_the_constant_at_one_place():
    """L = 8 log 6.75 + 8 log 2 + log 4 at d = dv = 8, rho sigma = 1."""
    assert balancing_constant(8, 8, 2.0, 0.5) == pytest.approx(3.23458, rel=1e-4)
    assert balancing_bound(8, 8, 100, 2.0, 0.5) == pytest.approx(3.23458 * math.sqrt(8) * math.e / 100, rel=1e-4)
    assert balancing_bound(8, 8, 2, 2.0, 0.5, values=3.0) == 6
    assert balancing_bound(8, 8, 2, 2.0, 5000.0) == 2


@pytest.mark.parametrize(
    "bad", [{"d": 0}, {"dv": 0}, {"rho": 0.0}, {"rho": math.inf}, {"sigma": -0.1}, {"sigma": math.nan}]
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match="|".join(bad)):
        balancing_constant(**{"d": 2, "dv": 2, "rho": 1.0, "sigma": 1.0} | bad)


@pytest.mark.parametrize("bad", [{"size": 0}, {"values": 0.0}, {"delta": 0.0}, {"delta": 1.5}])
def test_a_bound_of_nothing_is_refused(bad):
    with pytest.raises(ValueError, match="|".join(bad)):
        balancing_bound(2, 2, **{"size": 4, "rho": 1.0, "sigma": 1.0} | bad)


# The bound.


@pytest.mark.parametrize(("name", "parameters", "rho", "size"), [*CAPPED, ("equal_keys", {}, 1.0, 24)])
@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_the_bound_lies_above_many_walks(name, parameters, rho, size, model):
    """Keys and values off the sphere; 10 walks, each within its bound at delta = 1e-3, their mean within the other."""
    keys, values = drawn(name, parameters)
    keys, values = 0.8 * keys + 0.3, values * torch.linspace(0.5, 2, 96, dtype=torch.float64)[:, None]
    walk = make_coreset("gram_schmidt_walk", model=model)
    width = float(tilt(keys, rho).sigma if model == "tilted" else radius(keys))
    found = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        coreset = walk(Cache(keys, values), size=size, rho=rho, generator=generator)
        found.append(float(worst_query(Cache(keys, values), coreset, rho, generator=generator, restarts=8).error))
    assert max(found) <= balancing_bound(4, 4, size, rho, width, delta=1e-3, values=2.0)
    assert np.mean(found) <= balancing_bound(4, 4, size, rho, width, values=2.0)


def test_base_log_weights_keep_to_the_bound():
    keys, values = drawn("sphere", {})
    base = torch.linspace(-2, 2, 96, dtype=torch.float64)
    cache, rho, size = WeightedCache(keys, values, base), 1.0, 48
    sigma = float(tilt(keys, rho, base).sigma)
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        coreset = make_coreset("gram_schmidt_walk")(cache, size=size, rho=rho, generator=generator)
        assert isinstance(coreset, Coreset)
        found = worst_query(cache, coreset, rho, generator=generator, restarts=8)
        assert float(found.error) <= balancing_bound(4, 4, size, rho, sigma)


@pytest.mark.parametrize("tier", ["quick", "reduced"])
def test_every_committed_row_keeps_to_the_bound(tier):
    rows = read_table(RESULTS / tier / "table.parquet")
    held = held_to_bound(rows)
    assert set(held["arm"]) == {"walk_tilted"}
    assert (held["error"] <= held["bound"]).to_numpy().all()
    best = largest_shares(rows)
    assert best["share"].is_monotonic_decreasing
    assert best["cache"].is_unique
    informative = held.loc[held["bound_mean"] < 2]
    assert best["share"].iloc[0] == pytest.approx((informative["error"] / informative["bound_mean"]).max())
    # the constant's own ceiling says the same
    assert (informative["constant"] / informative["constant_bound"]).max() == pytest.approx(best["share"].iloc[0])
