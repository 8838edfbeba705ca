"""Herding, Frank-Wolfe, Nystrom, k-center, SubGen and sensitivity draws: each against a slow oracle of its own."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, nnls

from attention_coresets import Cache, make_cache, make_coreset, tilt, worst_query
from attention_coresets.coresets.draws.sensitivities import sensitivities
from attention_coresets.coresets.draws.systematic import systematic
from attention_coresets.coresets.kernel.frank_wolfe import pursue
from attention_coresets.coresets.kernel.law import balancing_gram, capped_marginals, law
from attention_coresets.coresets.kernel.nystrom import random_pivots
from attention_coresets.coresets.kernel.unit_kernel import unit_kernel
from attention_coresets.coresets.published.k_center import standardised
from attention_coresets.coresets.published.subgen import online_clusters
from tables import generators, repeated, small_cache

RHO = 2.0


def features_of(cache, log_weights, measure):
    """Rows with the inner products of the weighted balancing kernel, [n, n]: a factor of its Gram matrix."""
    gram = balancing_gram(cache.keys[None], cache.values[None], log_weights[None], measure)[0].numpy()
    values, vectors = np.linalg.eigh(gram)
    return vectors * np.sqrt(values.clip(0))


@pytest.mark.parametrize("model", ["tilted", "unweighted"])
@pytest.mark.parametrize(("family", "rho"), [("sphere", 2.0), ("cap_outliers", 6.0)])
def test_herding_token_by_token(family, rho, model):
    cache, size = small_cache(family, n=40, d=8, seed=2), 12
    measure = law(cache.keys[None], rho, model, "auto")
    pi = capped_marginals(measure.log_p, size)[0]
    g = features_of(cache, -pi.log(), measure)
    whole, certain = pi.numpy() @ g, np.flatnonzero(pi.numpy() == 1)
    first = g[certain].sum(0)
    chosen = list(certain)
    while len(chosen) < size:
        share = (len(chosen) + 1 - len(certain)) / (size - len(certain))
        wanted = first + share * (whole - first) - g[chosen].sum(0)
        left = np.setdiff1d(np.arange(40), chosen)
        chosen.append(left[np.square(wanted - g[left]).sum(1).argmin()])
    coreset = make_coreset("herding", model=model)(cache, size, rho, *generators(0))
    assert coreset.indices.tolist() == sorted(chosen)
    if model == "tilted":
        assert family != "cap_outliers" or len(certain) > 0
        torch.testing.assert_close(coreset.log_weights, -pi[coreset.indices].log(), rtol=0, atol=1e-9)


def test_herding_of_equal_keys_and_few_values_meets_the_mean():
    """Values +-e_1 in equal numbers: every second token is the other one."""
    values = torch.zeros(20, 3, dtype=torch.float64)
    values[:10, 0], values[10:, 0] = 1.0, -1.0
    cache = Cache(torch.ones(20, 3, dtype=torch.float64), values)
    assert (make_coreset("herding")(cache, 8, 1.0, *generators(0)).indices < 10).sum() == 4


@pytest.mark.parametrize("family", ["sphere", "cap_outliers"])
def test_frank_wolfe_is_greedy_least_squares(family):
    """The first 16 tokens, each followed by scipy's non-negative least squares on the features themselves."""
    cache = small_cache(family, n=60, d=6)
    measure = law(cache.keys[None], RHO, "tilted", "auto")
    phi = features_of(cache, torch.zeros(60, dtype=torch.float64), measure)
    lengths = np.linalg.norm(phi, axis=1)
    whole, chosen, weights = phi.sum(0), [], np.zeros(0)
    for _ in range(12):
        products = (phi @ (whole - weights @ phi[chosen])) / lengths
        products[chosen] = -np.inf
        chosen.append(int(products.argmax()))
        weights, _ = nnls(phi[chosen].T, whole)
    coreset = make_coreset("frank_wolfe")(cache, 12, RHO, *generators(0))
    assert coreset.indices.tolist() == sorted(chosen)
    order = np.argsort(chosen)
    np.testing.assert_allclose(coreset.log_weights.exp(), weights[order], rtol=1e-4, atol=1e-6 * weights.max())


def test_frank_wolfes_distance_falls_with_every_token():
    """Also past the 16 tokens where not every one is followed by a refit."""
    cache = make_cache("clusters", n=120, d=6, seed=0, clusters=6)
    kernel = unit_kernel(cache.keys[None], cache.values[None], law(cache.keys[None], RHO, "tilted", "auto"))
    everyone = torch.arange(120).unsqueeze(0)
    gram, lengths = kernel.rows(everyone)[0], kernel.log_norms[0].exp()
    distance = []
    for size in (1, 2, 4, 8, 15, 16, 17, 18, 25, 40):
        tokens, weights = pursue(kernel, size)
        change = lengths.clone()
        change[tokens[0]] -= weights[0]
        distance.append(float(change @ gram @ change))
        assert len(set(tokens[0].tolist())) == size
    assert (np.diff(distance) <= 1e-9 * distance[0]).all()
    assert distance[-1] < 2e-2 * distance[0]


def test_free_weights_beat_the_walks_tilted_ones():
    cache = make_cache("sphere", n=512, d=8, seed=0, heads=4)
    error = {
        name: worst_query(cache, make_coreset(name)(cache, 64, 1.0, generators(0, 1, 2, 3)), 1.0, restarts=16).error
        for name in ("gram_schmidt_walk", "frank_wolfe", "herding")
    }
    assert (error["frank_wolfe"] < 0.6 * error["gram_schmidt_walk"]).all()
    assert (error["herding"] < error["gram_schmidt_walk"]).all()


def test_pivots_are_drawn_by_what_is_left():
    """The chance of each ordered pair of pivots, by hand, against 4000 draws; never a token twice."""
    cache = small_cache("sphere", n=6, d=3)
    kernel = unit_kernel(cache.keys[None], cache.values[None], law(cache.keys[None], RHO, "tilted", "auto"))
    gram = kernel.rows(torch.arange(6).unsqueeze(0))[0].numpy()
    chance = np.zeros((6, 6))
    for i in range(6):
        left = np.diag(gram) - gram[i] ** 2 / gram[i, i]
        left[i] = 0
        chance[i] = left / left.sum() / 6
    copies = repeated(cache, 4000)
    kernels = unit_kernel(copies.keys, copies.values, law(copies.keys, RHO, "tilted", "auto"))
    uniforms = torch.rand(4000, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    pivots = random_pivots(kernels, uniforms).numpy()
    assert all(len(set(row)) == 4 for row in pivots.tolist())
    counts = np.zeros((6, 6))
    np.add.at(counts, (pivots[:, 0], pivots[:, 1]), 1)
    error = np.sqrt(chance * (1 - chance) / 4000)
    off = ~np.eye(6, dtype=bool)
    assert np.abs((counts / 4000 - chance)[off] / error[off]).max() < 4.5


def test_pivots_of_a_kernel_of_low_rank_span_it_first():
    """Four distinct tokens, each five times: the first four pivots are one of each, whatever the draws."""
    base = small_cache("sphere", n=4, d=3)
    cache = Cache(base.keys.repeat(5, 1), base.values.repeat(5, 1))
    kernel = unit_kernel(cache.keys[None], cache.values[None], law(cache.keys[None], RHO, "tilted", "auto"))
    for seed in range(10):
        uniforms = torch.rand(1, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        pivots = random_pivots(kernel, uniforms)[0]
        assert sorted((pivots[:4] % 4).tolist()) == [0, 1, 2, 3]
        assert len(set(pivots.tolist())) == 12
    coreset = make_coreset("nystrom")(cache, 12, RHO, *generators(0))
    assert worst_query(cache, coreset, RHO, restarts=8).error < 1e-6


@pytest.mark.parametrize("metric", ["keys", "keys_values"])
def test_k_center_by_hand(metric):
    cache, size = small_cache("clusters", n=40, d=4, seed=3), 9
    coreset = make_coreset("k_center", metric=metric)(cache, size, RHO, *generators(0))
    points = [standardised(x[None])[0].numpy() for x in (cache.keys, cache.values)]
    points = points[0] if metric == "keys" else np.concatenate(points, axis=1)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    first = int(torch.rand(1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).item() * 40)
    chosen = [first]
    while len(chosen) < size:
        chosen.append(int(distance[:, chosen].min(1).argmax()))
    assert coreset.indices.tolist() == sorted(chosen)
    counts = np.bincount(distance[:, coreset.indices].argmin(1), minlength=size)
    np.testing.assert_allclose(coreset.log_weights.exp(), counts)


def test_k_center_of_duplicates_counts_every_token_once():
    """Three distinct keys, six times each: the three first centres share what the four duplicates leave."""
    base = small_cache("sphere", n=3, d=3)
    cache = Cache(base.keys.repeat(6, 1), base.values.repeat(6, 1))
    counts = make_coreset("k_center")(cache, 7, RHO, *generators(0)).log_weights.exp().sort().values
    torch.testing.assert_close(counts[:4], torch.ones_like(counts[:4]))
    assert counts.sum().item() == pytest.approx(18)


def arrivals(points, delta):
    """Online clustering as published: token by token, to the nearest representative within delta, else a new one."""
    representatives, cluster = [], []
    for x in points:
        distance = np.array([np.linalg.norm(x - r) for r in representatives])
        if len(distance) == 0 or distance.min() > delta:
            cluster.append(len(representatives))
            representatives.append(x)
        else:
            cluster.append(int(distance.argmin()))
    return cluster


@pytest.mark.parametrize("delta", [0.3, 0.8, 1.2, 5.0])
@pytest.mark.parametrize("family", ["sphere", "clusters", "cap_outliers"])
def test_online_clusters_are_those_of_the_stream(family, delta):
    cache = small_cache(family, n=60, d=4, heads=3)
    points = standardised(cache.keys)
    found = online_clusters(points, delta)
    for h in range(3):
        assert found[h].tolist() == arrivals(points[h].numpy(), delta)


def kept_often(name, cache, size, replicates, **parameters):
    """How often each token is kept, and the coresets, over replicates of one cache."""
    coreset = make_coreset(name, **parameters)(repeated(cache, replicates), size, RHO, *generators(7))
    kept = torch.zeros(replicates, cache.n).scatter_(-1, coreset.indices, 1.0)
    return kept.numpy(), coreset


def marginals(p, size):
    """min(1, c p) with the sum `size`, by a root finder."""
    log_c = brentq(lambda t: np.minimum(1, np.exp(t) * p).sum() - size, -50, 60, xtol=1e-13)
    return np.minimum(1, np.exp(log_c) * p)


def agrees(kept, pi, coreset):
    """Inclusion frequencies within 4.5 standard errors of pi, and log-weights -log pi."""
    certain = pi > 1 - 1e-9
    assert (kept[:, certain] == 1).all()
    error = np.sqrt(pi * (1 - pi) / len(kept))
    assert np.abs((kept.mean(0) - pi)[~certain] / error[~certain]).max() < 4.5
    np.testing.assert_allclose(coreset.log_weights, -np.log(pi)[coreset.indices], atol=1e-6)


def test_a_point_at_the_distance_delta_joins():
    """At delta up to rounding, which a shift changes: the second point joins the first, the third is too far."""
    for shift in (0.0, 0.1, 1 / 3, 7.7):
        points = torch.tensor([[[0.0], [0.3], [0.7]]], dtype=torch.float64) + shift
        assert online_clusters(points, 0.3).tolist() == [[0, 0, 1]]


def test_subgens_marginals_are_half_clusters_half_value_norms():
    cache = small_cache("clusters", n=14, d=4, seed=4)
    cache = Cache(cache.keys, cache.values * torch.linspace(0.1, 3, 14, dtype=torch.float64)[:, None])
    cluster = np.array(arrivals(standardised(cache.keys[None])[0].numpy(), 1.0))
    assert 2 < cluster.max() + 1 < 10
    uniform = 1 / ((cluster.max() + 1) * np.bincount(cluster)[cluster])
    norms = cache.values.square().sum(-1).numpy()
    pi = marginals(uniform + norms / norms.sum(), 6)
    kept, coreset = kept_often("subgen", cache, 6, 1200)
    agrees(kept, pi, coreset)
    for c in range(cluster.max() + 1):  # each cluster has its share, to within one token
        share, counts = pi[cluster == c].sum(), kept[:, cluster == c].sum(1)
        assert counts.min() >= np.floor(share - 1e-9)
        assert counts.max() <= np.ceil(share + 1e-9)


def test_sensitivity_draws_marginals():
    cache = small_cache("cap_outliers", n=14, d=4, seed=1)
    s = sensitivities(cache.keys, RHO, 1e-3).log_lower.exp().numpy()
    assert np.abs(s / s.sum() - tilt(cache.keys, RHO).p.numpy()).max() > 1e-3  # not p* by another name
    kept, coreset = kept_often("sensitivity_draws", cache, 6, 1200)
    agrees(kept, marginals(s, 6), coreset)


def test_systematic_draws_take_what_the_grid_meets():
    pi = torch.tensor([[0.5, 0.25, 1.0, 0.75, 0.5]], dtype=torch.float64)
    order = torch.tensor([[4, 0, 2, 1, 3]])  # running total 0.5, 1, 2, 2.25, 3
    for shift, expected in ((0.1, [4, 2, 1]), (0.6, [0, 2, 3]), (0.3, [4, 2, 3])):
        kept = systematic(pi, torch.tensor([shift], dtype=torch.float64), order)[0]
        assert kept.nonzero().squeeze(-1).tolist() == sorted(expected)
