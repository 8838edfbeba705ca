"""Every construction, over a table of families: exact size, honest weights and marginals, the same in every batch."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from agreement import assert_agree
from attention_coresets import CORESETS, Cache, make_coreset, tilt
from attention_coresets.coresets.balancing.buckets import BUCKETED
from attention_coresets.coresets.eviction import EVICTION
from attention_coresets.coresets.kernel.law import balancing_gram, capped_marginals, law
from attention_coresets.theory import radius
from tables import (
    AS_THEY_STAND,
    CONSTRUCTIONS,
    DETERMINISTIC,
    FAMILIES,
    OWN_WEIGHTS,
    SIGN_RULES,
    build,
    generators,
    label,
    repeated,
    small_cache,
)

N, RHO = 24, 2.5


def in_buckets(entry):
    """Whether a row's marginals depend on how tokens are dealt into buckets: test_buckets.py has their law."""
    return entry[1].get("recursion") in BUCKETED


ROUNDED = ("clusters", "antipodal")  # without and with ties
ENDS = (*ROUNDED, "sphere", "cap_outliers", "equal_keys")  # sizes 1 and n - 1 too
EXACT = ("uniform", "paired_coin", "tilted_draws", "gram_schmidt_walk")
SIGNS = [e for e in CONSTRUCTIONS if e[0] in SIGN_RULES and "refinement" not in e[1]]
EXACT_MARGINALS = [e for e in CONSTRUCTIONS if e[0] in EXACT and not (in_buckets(e) or "refinement" in e[1])]


def is_tilted(entry):
    """Whether a row of CONSTRUCTIONS gives the log-weights -log pi at the marginals of p*."""
    return entry[0] == "tilted_draws" or entry[1].get("model") == "tilted"


def marginals(keys, rho, size, tilted):
    """min(1, c p_i) summing to size, with c found by a root finder."""
    n = len(keys)
    p = tilt(keys, rho).p.numpy() if tilted else np.full(n, 1 / n)
    log_c = brentq(lambda t: np.minimum(1, np.exp(t) * p).sum() - size, -1, 60 - np.log(p.min()), xtol=1e-13)
    return np.minimum(1, np.exp(log_c) * p)


def check(coreset, cache, size, entry):
    """Size, order and weights of a coreset of a batch of heads."""
    own = entry[0] in OWN_WEIGHTS
    assert coreset.indices.shape == (*cache.heads, size)
    assert (coreset.indices.diff(dim=-1) > 0).all()
    assert coreset.indices.min() >= 0
    assert coreset.indices.max() < cache.n
    if not (is_tilted(entry) or own):
        assert coreset.log_weights is None
        return
    assert coreset.log_weights.dtype == cache.keys.dtype  # and finite: Coreset refuses others
    if own:
        return
    if in_buckets(entry):
        assert coreset.log_weights.min() > -1e-6  # 1 / pi of some pi
        return
    for h in range(len(cache.keys)):
        pi = marginals(cache.keys[h], RHO, size, tilted=True)[coreset.indices[h]]
        np.testing.assert_allclose(coreset.log_weights[h].numpy(), -np.log(pi), atol=1e-5)


@pytest.mark.parametrize("entry", CONSTRUCTIONS, ids=label)
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ROUNDED])
def test_size_weights_and_batch(entry, family):
    each_head_is_what_it_is_alone(entry, family)


@pytest.mark.rounding
@pytest.mark.parametrize("entry", CONSTRUCTIONS, ids=label)
@pytest.mark.parametrize("family", ROUNDED)
def test_size_weights_and_batch_however_it_rounds(entry, family):
    each_head_is_what_it_is_alone(entry, family)


def each_head_is_what_it_is_alone(entry, family):
    """By a list of generators."""
    cache, agreement = small_cache(family, n=N, heads=2), make_coreset(entry[0], **entry[1]).agreement
    for size in (1, N // 3 + 1, N - 1) if family in ENDS else (N // 3 + 1,):
        coreset = build(entry, cache, size, RHO, generators(5, 6))
        check(coreset, cache, size, entry)
        for h in range(2):
            alone = build(entry, cache[h], size, RHO, *generators(5 + h))
            assert_agree(agreement, alone, coreset[h], cache[h], RHO)


@pytest.mark.rounding
@pytest.mark.parametrize("entry", CONSTRUCTIONS, ids=label)
def test_randomness(entry):
    cache = small_cache("clusters", n=N, heads=3)
    found = [build(entry, cache, 9, RHO, *generators(seed)).indices for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2]) == (entry[0] in DETERMINISTIC)
    # one generator for all: head 0 does not see the rest of the batch
    assert torch.equal(build(entry, cache[0], 9, RHO, *generators(0)).indices, found[0][0])
    assert torch.equal(build(entry, cache[:2], 9, RHO, *generators(0)).indices, found[0][:2])


@pytest.mark.rounding
@pytest.mark.parametrize("entry", CONSTRUCTIONS, ids=label)
def test_a_shift_of_the_keys_and_the_number_of_leading_axes_change_nothing(entry):
    cache = small_cache("cap_outliers", n=N, heads=4)
    shifted = Cache(cache.keys + torch.tensor([3.0, -1.0, 0.5, 2.0]), cache.values)
    plain, moved = (build(entry, c, 10, RHO, generators(1, 2, 3, 4)) for c in (cache, shifted))
    assert torch.equal(plain.indices, moved.indices) == (entry[0] not in AS_THEY_STAND)
    square = Cache(*(x.reshape(2, 2, N, 4) for x in (cache.keys, cache.values)))
    folded = build(entry, square, 10, RHO, generators(1, 2, 3, 4))
    assert torch.equal(folded.indices, plain.indices.reshape(2, 2, 10))
    if plain.log_weights is not None:
        torch.testing.assert_close(moved.log_weights, plain.log_weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize("entry", CONSTRUCTIONS, ids=label)
def test_float32_caches(entry):
    cache = small_cache("sphere", n=N, heads=2, dtype=torch.float32)
    check(build(entry, cache, 7, RHO, *generators(0)), cache, 7, entry)


@pytest.mark.parametrize("entry", EXACT_MARGINALS, ids=label)
@pytest.mark.parametrize("size", [3, 8])
def test_inclusion_frequencies_are_the_marginals(entry, size):
    """Each count is binomial(replicates, pi): 4.5 standard errors, over 12 tokens and 14 tests, is one in 1000."""
    n, replicates = 12, 1200
    cache = small_cache("cap_outliers", n=n, d=4, seed=1)
    pi = marginals(cache.keys, RHO, size, is_tilted(entry))
    coreset = build(entry, repeated(cache, replicates), size, RHO, *generators(11))
    kept = torch.zeros(replicates, n).scatter_(-1, coreset.indices, 1.0).numpy()
    certain = pi > 1 - 1e-9
    assert (kept[:, certain] == 1).all()
    error = np.sqrt(pi * (1 - pi) / replicates)
    assert np.abs((kept.mean(0) - pi)[~certain] / error[~certain]).max() < 4.5
    if is_tilted(entry):  # Horvitz-Thompson: the weights count the cache
        total = coreset.log_weights.exp().sum(-1)
        assert abs(total.mean() - n) < 4.5 * total.std() / replicates**0.5 + 1e-6


@pytest.mark.parametrize("entry", SIGNS, ids=label)
def test_rules_that_keep_the_mean_by_symmetry_at_one_half(entry):
    """Adaptive signs from x = 0: swapping kept and left is as likely, so every token is kept half the time."""
    n, replicates = 10, 1200
    name, parameters = entry
    cache = repeated(small_cache("sphere", n=n), replicates)
    if "model" in parameters:
        parameters = {**parameters, "model": "unweighted"}
    coreset = build((name, parameters), cache, n // 2, RHO, *generators(12))
    kept = torch.zeros(replicates, n).scatter_(-1, coreset.indices, 1.0).mean(0)
    assert (kept - 0.5).abs().max() < 4.5 * 0.5 / replicates**0.5


@pytest.mark.parametrize("entry", [e for e in CONSTRUCTIONS if is_tilted(e)], ids=label)
def test_tokens_of_inclusion_probability_one_are_kept(entry):
    cache = small_cache("cap_outliers", n=40, d=8, heads=6, seed=2)
    for h, coreset in enumerate(build(entry, cache, 12, 6.0, *generators(3))[i] for i in range(6)):
        sure = np.flatnonzero(marginals(cache.keys[h], 6.0, 12, tilted=True) > 1 - 1e-9)
        assert len(sure) > 0
        assert set(sure) <= set(coreset.indices.tolist())
        weights = dict(zip(coreset.indices.tolist(), coreset.log_weights.tolist(), strict=True))
        assert max(abs(weights[i]) for i in sure) < 1e-9


@pytest.mark.parametrize("sinks", [0, 1, 5])
def test_uniform_with_sinks(sinks):
    cache = repeated(small_cache("sphere", n=20), 800)
    coreset = make_coreset("uniform", sinks=sinks)(cache, 8, RHO, *generators(4))
    assert (coreset.indices[:, :sinks] == torch.arange(sinks)).all()
    kept = torch.zeros(800, 20).scatter_(-1, coreset.indices, 1.0).mean(0)
    share = (8 - sinks) / (20 - sinks)
    assert ((kept[sinks:] - share) / (share * (1 - share) / 800) ** 0.5).abs().max() < 4.5
    if sinks == 0:
        assert coreset.log_weights is None
    else:
        assert (coreset.log_weights[:, :sinks] == 0).all()
        np.testing.assert_allclose(coreset.log_weights[:, sinks:], -np.log(share), rtol=1e-12)


@given(st.integers(2, 30), st.data())
def test_capped_marginals(n, data):
    size = data.draw(st.integers(1, n - 1))
    spread, seed = data.draw(st.sampled_from([0.0, 1.0, 30.0, 800.0])), data.draw(st.integers(0, 10**6))
    log_p = -spread * np.random.default_rng(seed).random(n)
    found = capped_marginals(torch.from_numpy(log_p)[None], size)[0].numpy()
    assert found.sum() == pytest.approx(size, abs=1e-9)
    assert found.max() <= 1
    ratio = np.log(np.maximum(found, 1e-320)) - log_p  # log c where the cap does not bind, less where it does
    free = (found < 1 - 1e-9) & (found > 1e-290)
    if free.any():
        np.testing.assert_allclose(ratio[free], ratio[free].max(), atol=1e-8)
        assert (ratio[found >= 1 - 1e-9] <= ratio[free].max() + 1e-8).all()


@pytest.mark.parametrize("model", ["tilted", "unweighted"])
@pytest.mark.parametrize("scale", ["auto", "one", "inv_sqrt_d", "rho"])
def test_the_law_and_the_gram_matrix_are_the_formula(model, scale):
    cache = small_cache("cap_outliers", n=15, d=4, heads=1)
    keys, values = cache.keys[0].numpy(), 3 * cache.values[0].numpy()  # value norms count relative to the largest
    found = law(cache.keys, RHO, model, scale)
    t = tilt(cache.keys[0], RHO)
    spread = t.sigma.item() if model == "tilted" else radius(cache.keys[0]).item()
    center = t.center.numpy() if model == "tilted" else keys.mean(0)
    a2 = {"auto": RHO / spread, "one": 1.0, "inv_sqrt_d": 0.5, "rho": RHO}[scale]
    assert found.scale.item() == pytest.approx(a2)
    np.testing.assert_allclose(found.center[0], center, atol=1e-9)
    pi = marginals(cache.keys[0], RHO, 5, model == "tilted")
    weights = torch.from_numpy(-np.log(pi))[None]
    gram = balancing_gram(cache.keys, torch.from_numpy(values)[None], weights, found)[0].numpy()
    x = keys - center
    expected = np.exp(a2 * x @ x.T) * (values @ values.T / 9 + 1) / np.outer(pi, pi)
    np.testing.assert_allclose(gram, expected / expected.diagonal().max(), rtol=1e-6)
    if model == "tilted" and scale == "auto":  # all weighted features of uncapped tokens have one norm
        np.testing.assert_allclose(gram.diagonal()[pi < 1 - 1e-9], gram.diagonal()[pi < 1 - 1e-9].max(), rtol=1e-4)


def test_huge_exponents_do_not_overflow():
    cache = small_cache("sphere", n=16, heads=2)
    large = Cache(40 * cache.keys, 1e3 * cache.values)
    for entry in CONSTRUCTIONS:
        coreset = build(entry, large, 6, 20.0, *generators(0))
        assert coreset.indices.shape == (2, 6)


@pytest.mark.parametrize("name", CORESETS)
def test_constructions_are_frozen_and_hold_their_parameters(name):
    construct = make_coreset(name)
    assert dataclasses.is_dataclass(construct)
    assert construct == make_coreset(name, **dataclasses.asdict(construct))
    for field in dataclasses.fields(construct):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(construct, field.name, getattr(construct, field.name))


def test_every_construction_is_in_the_table():
    """All but the optimum and those for queries: test_optimum.py, test_eviction.py, test_query_coresets.py."""
    elsewhere = {"optimum", "query_walk", "query_exchange", *EVICTION}
    assert {name for name, _ in CONSTRUCTIONS} == set(CORESETS) - elsewhere


def test_uniform_keeps_the_texts_first_tokens_wherever_they_are() -> None:
    cache, places = small_cache("sphere", n=20), torch.arange(19, -1, -1)
    found = make_coreset("uniform", sinks=3)(cache, 8, 2.0, 0, positions=places)
    assert {17, 18, 19} <= set(found.indices.tolist())
    assert found.log_weights[found.indices >= 17].tolist() == [0.0, 0.0, 0.0]
    assert float(found.log_weights[found.indices < 17].min()) == pytest.approx(math.log(17 / 5))
