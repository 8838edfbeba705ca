"""find_coreset: what it returns keeps its word by evaluations of the test's own, and beats the walk."""

import math

import numpy as np
import pytest
import torch

from attention_coresets import Cache, WeightedCache, find_coreset, make_cache, make_coreset
from attention_coresets.adversary import kernel_certificate
from attention_coresets.finding import CANDIDATES
from tables import generators

RHO = 1.0


def errors(cache: Cache, coreset, rho: float, count: int = 20_000) -> np.ndarray:
    """The error at random queries of the ball and of its sphere, head by head, in plain NumPy from softmax on."""
    rng, found = np.random.default_rng(5), []
    heads = cache.flat(), coreset.flat()
    for h in range(len(heads[0].keys)):
        keys, values = heads[0].keys[h].double().numpy(), heads[0].values[h].double().numpy()
        kept, weights = heads[1].indices[h].numpy(), np.exp(heads[1].log_weights[h].double().numpy())
        queries = rng.standard_normal((count, keys.shape[1]))
        aimed = keys[rng.integers(len(keys), size=count // 2)] - keys.mean(0)
        queries[: count // 2] = aimed * rng.choice([-1, 1], (count // 2, 1))
        radii = np.where(rng.random(count) < 0.5, 1.0, rng.random(count))
        queries *= (rho * radii / np.maximum(np.linalg.norm(queries, axis=1), 1e-12))[:, None]
        soft, small = np.exp(queries @ keys.T), np.exp(queries @ keys[kept].T) * weights
        whole = soft @ values / soft.sum(1, keepdims=True)
        part = small @ values[kept] / small.sum(1, keepdims=True)
        found.append(np.linalg.norm(whole - part, axis=1).max())
    return np.array(found)


@pytest.fixture(scope="module")
def cache() -> Cache:
    """Two heads unlike each other: the second has values of twice the size."""
    one, two = make_cache("sphere", n=128, d=5, seed=1, heads=1), make_cache("clusters", n=128, d=5, seed=2, heads=1)
    return Cache(torch.cat([one.keys, two.keys]), torch.cat([one.values, 2 * two.values]))


@pytest.fixture(scope="module")
def found(cache):
    return find_coreset(cache, RHO, 0.15)


def test_every_head_meets_epsilon_by_an_evaluation_of_the_certificate_and_of_errors(cache, found):
    assert found.certificate.shape == found.error.shape == (2,)
    assert 1 < found.size < 64
    assert float(found.certificate.max()) <= 0.15
    torch.testing.assert_close(
        found.certificate.min(), torch.minimum(found.certificate, kernel_certificate(cache, found.coreset, RHO)).min()
    )
    seen = errors(cache, found.coreset, RHO)
    assert (seen <= found.error.numpy() * (1 + 1e-6)).all()  # the ascent finds at least what 20,000 queries do
    assert (seen > 0.6 * found.error.numpy()).all()
    assert (found.error < found.certificate).all()


def test_it_takes_fewer_tokens_than_the_walk_and_than_herding(cache, found):
    for name in ("gram_schmidt_walk", "herding"):
        for size in (found.size, round(1.2 * found.size)):
            coreset = make_coreset(name)(cache, size, RHO, generators(0, 1))
            assert float(kernel_certificate(cache, coreset, RHO).max()) > 0.15


def test_all_candidates_were_tried_and_no_smaller_size_met(found):
    assert {tried.construction for tried in found.tried} == set(CANDIDATES["certificate"])
    assert found.size == min(tried.size for tried in found.tried if tried.value <= 0.15)
    kept = [one for one in found.tried if (one.construction, one.size) == (found.construction, found.size)]
    # a search's ceiling, of one law alone; the certificate is the least of several
    assert float(found.certificate.max()) <= kept[0].value * (1 + 1e-6)


def test_the_same_call_gives_the_same_bits_and_16_bits_are_taken(cache):
    coarse = cache[:1].to(torch.bfloat16)
    one, two = (find_coreset(coarse, RHO, size=20) for _ in range(2))
    assert torch.equal(one.coreset.indices, two.coreset.indices)
    assert torch.equal(one.coreset.log_weights, two.coreset.log_weights)
    assert one.tried == two.tried
    assert one.coreset.log_weights.dtype == torch.float32
    assert (errors(coarse, one.coreset, RHO, 2000) <= one.error.numpy()).all()


def test_by_error_fewer_tokens_are_enough_and_nothing_is_said_to_be_proven(cache, found):
    small = cache[0]
    looser = find_coreset(small, RHO, 0.15, by="error")
    assert looser.certificate.shape == ()
    assert float(looser.error) <= 0.15 < float(looser.certificate)
    assert looser.size < found.size
    assert errors(small, looser.coreset, RHO).max() <= 0.15


def test_a_size_has_the_candidate_of_least_certificate(cache):
    best = find_coreset(cache[:1], RHO, size=40)
    assert best.size == 40
    values = {tried.construction: tried.value for tried in best.tried}
    assert set(values) == set(CANDIDATES["certificate"])
    assert values[best.construction] == min(values.values())
    for name, arm in (("walk_tilted", "gram_schmidt_walk"), ("herding_tilted", "herding")):
        coreset = make_coreset(arm)(cache[:1], 40, RHO, generators(0))
        assert values[name] == pytest.approx(float(kernel_certificate(cache[:1], coreset, RHO)), rel=0.02)


@pytest.mark.parametrize("asked", [{"epsilon": 1e-9}, {"size": 24}, {"size": 100}])
def test_what_needs_all_tokens_keeps_all(asked):
    small = make_cache("sphere", n=24, d=5, seed=0, heads=2)
    whole = find_coreset(small, RHO, **asked)
    assert (whole.size, whole.construction) == (24, "all tokens")
    assert whole.certificate.tolist() == whole.error.tolist() == [0, 0]
    assert errors(small, whole.coreset, RHO, 100).max() < 1e-12


def test_epsilon_above_what_values_alone_allow_needs_one_token_even_where_the_series_overflows():
    cache = make_cache("sphere", n=32, d=5, seed=0, heads=1)
    wide = find_coreset(Cache(1000 * cache.keys, cache.values), RHO, 4.0)
    assert wide.size == 1
    assert float(wide.certificate.max()) <= 4


def test_values_of_any_unit(cache):
    large = Cache(cache.keys, cache.values * 2.0**600)
    plain, same = (find_coreset(one[:1], RHO, size=30) for one in (cache, large))
    assert torch.equal(same.coreset.indices, plain.coreset.indices)
    assert [tried.value for tried in same.tried] == [tried.value * 2.0**600 for tried in plain.tried]
    assert torch.equal(same.certificate, plain.certificate * 2.0**600)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "takes either epsilon or size"),
        ({"epsilon": 0.1, "size": 4}, "takes either epsilon or size"),
        ({"epsilon": 0.0}, "epsilon must be above 0, got 0"),
        ({"epsilon": math.nan}, "epsilon must be above 0, got nan"),
        ({"size": 0}, "size must be at least 1"),
        ({"epsilon": 0.1, "by": "certificat"}, "did you mean 'certificate'"),
    ],
)
def test_what_cannot_be_is_refused(cache, asked, message):
    with pytest.raises(ValueError, match=message):
        find_coreset(cache, RHO, **asked)


def test_weights_are_refused(cache):
    with pytest.raises(ValueError, match="plain Cache"):
        find_coreset(WeightedCache(cache.keys, cache.values, torch.zeros(2, 128).double()), RHO, 0.1)
