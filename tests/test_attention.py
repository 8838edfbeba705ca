"""Cache, Coreset, attend, attention_error: against a loop over tokens, and what attention must not notice."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from attention_coresets import Cache, Coreset, attend, attention_error
from tables import CONSTRUCTIONS, build, label, small_cache

SHAPES = {"n": st.integers(1, 9), "d": st.integers(1, 5), "dv": st.integers(1, 4), "b": st.integers(1, 4)}


def _random(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@given(**SHAPES, seed=st.integers(0, 10**6), weighted=st.booleans())
def test_attend_is_the_loop_over_tokens(n, d, dv, b, seed, weighted):
    queries, keys, values = 2 * _random(seed, b, d), _random(seed + 1, n, d), _random(seed + 2, n, dv)
    log_weights = _random(seed + 3, n) if weighted else None
    out = attend(queries, keys, values, log_weights)
    weights = None if log_weights is None else log_weights.numpy()
    expected = [oracles.attention(q, keys.numpy(), values.numpy(), weights) for q in queries.numpy()]
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-12)


@given(**SHAPES, seed=st.integers(0, 10**6), heads=st.sampled_from([(1,), (3,), (2, 3)]))
def test_heads_are_independent(n, d, dv, b, seed, heads):
    queries, keys, values = (_random(seed + i, *heads, *s) for i, s in enumerate([(b, d), (n, d), (n, dv)]))
    out = attend(queries, keys, values)
    for head in np.ndindex(*heads):
        torch.testing.assert_close(out[head], attend(queries[head], keys[head], values[head]), rtol=1e-12, atol=1e-13)


def test_attention_error_is_the_distance_between_the_loops(rng):
    cache = small_cache("sphere", n=20, d=3, heads=2)
    indices = torch.tensor([[0, 3, 7, 19], [1, 2, 5, 6]])
    log_weights = torch.from_numpy(rng.standard_normal((2, 4)))
    queries = 3 * torch.from_numpy(rng.standard_normal((2, 5, 3)))
    found = attention_error(queries, cache, Coreset(indices, log_weights))
    for h in range(2):
        arrays = (cache.keys[h].numpy(), cache.values[h].numpy(), indices[h].numpy(), log_weights[h].numpy())
        expected = [oracles.error(q, *arrays) for q in queries[h].numpy()]
        np.testing.assert_allclose(found[h].numpy(), expected, rtol=1e-10)


def test_blocks_of_queries_change_nothing(rng):
    cache = small_cache("sphere", n=16, d=3)
    coreset, queries = Coreset(torch.arange(0, 16, 2)), torch.from_numpy(rng.standard_normal((37, 3)))
    whole = attention_error(queries, cache, coreset)
    torch.testing.assert_close(whole, attention_error(queries, cache, coreset, max_logits=50), rtol=1e-12, atol=1e-15)


@given(seed=st.integers(0, 10**6), size=st.floats(0.1, 30))
def test_a_common_shift_of_the_keys_is_not_seen(seed, size):
    queries, keys, values = _random(seed, 4, 3), _random(seed + 1, 12, 3), _random(seed + 2, 12, 2)
    shift = size * _random(seed + 3, 3)
    torch.testing.assert_close(attend(queries, keys + shift, values), attend(queries, keys, values), rtol=0, atol=1e-11)


@given(seed=st.integers(0, 10**6))
def test_the_order_of_the_tokens_is_not_seen(seed):
    queries, keys, values, weights = (_random(seed + i, *s) for i, s in enumerate([(4, 3), (12, 3), (12, 2), (12,)]))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(12))
    shuffled = attend(queries, keys[order], values[order], weights[order])
    torch.testing.assert_close(shuffled, attend(queries, keys, values, weights), rtol=0, atol=1e-13)


@given(seed=st.integers(0, 10**6))
def test_a_constant_log_weight_is_not_seen_and_a_token_counted_twice_weighs_log_two(seed):
    queries, keys, values = _random(seed, 4, 3), _random(seed + 1, 6, 3), _random(seed + 2, 6, 2)
    constant = attend(queries, keys, values, torch.full((6,), 3.7, dtype=torch.float64))
    torch.testing.assert_close(constant, attend(queries, keys, values), rtol=0, atol=1e-13)
    twice = torch.tensor([0, 1, 2, 3, 4, 5, 5])
    double = torch.tensor([0.0, 0, 0, 0, 0, np.log(2)], dtype=torch.float64)
    expected = attend(queries, keys[twice], values[twice])
    torch.testing.assert_close(attend(queries, keys, values, double), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("entry", CONSTRUCTIONS, ids=label)
def test_all_tokens_make_no_error(entry, generator, rng):
    cache = small_cache("clusters", n=16, heads=2)
    queries = torch.from_numpy(rng.standard_normal((2, 8, 4)))
    for size in (cache.n, cache.n + 5):
        coreset = build(entry, cache, size, 2.0, generator)
        assert coreset.indices.tolist() == [list(range(cache.n))] * 2
        assert coreset.log_weights is None
        assert attention_error(queries, cache, coreset).max() < 1e-13


def test_views_and_casts():
    cache = small_cache("sphere", n=12, heads=3)
    assert (cache.n, cache.d, cache.heads) == (12, 4, (3,))
    assert torch.equal(cache[1].keys, cache.keys[1])
    assert cache[1:].heads == (2,)
    assert cache.to(torch.float32).values.dtype == torch.float32
    coreset = Coreset(torch.tensor([[0, 2], [1, 5], [3, 4]]), torch.zeros(3, 2))
    assert coreset.size == 2
    assert coreset[1].indices.tolist() == [1, 5]
    keys, values = cache.take(coreset.indices)
    assert torch.equal(keys[2], cache.keys[2, [3, 4]])
    assert torch.equal(values[0], cache.values[0, [0, 2]])


def test_a_cache_of_one_token_answers_with_its_value():
    cache = Cache(torch.ones(1, 2), torch.tensor([[3.0, 4.0, 5.0]]))
    assert attend(torch.randn(2, 2), cache.keys, cache.values).tolist() == [[3.0, 4.0, 5.0]] * 2
