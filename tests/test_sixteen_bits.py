"""Caches of 16 bits: whatever is computed of them is that of the float64 computation on the same bits."""

import math

import numpy as np
import pytest
import torch

from attention_coresets import (
    Cache,
    Coreset,
    QueryBody,
    Stream,
    WeightedCache,
    attend,
    attention_error,
    make_cache,
    make_coreset,
    tilt,
    worst_query,
)
from attention_coresets.adversary import CERTIFICATES, branch_and_bound, climb
from attention_coresets.coresets.eviction import EVICTION
from attention_coresets.coresets.exact.optimum import best_subset
from attention_coresets.coresets.kernel.refit import refit_log_weights
from tables import CONSTRUCTIONS, FAMILIES, OFF_SPHERE, generators, label, small_cache

HALVES = (torch.bfloat16, torch.float16)
DTYPES = (*HALVES, torch.float32)
OF_QUERIES = [(name, {}) for name in (*EVICTION, "query_walk", "query_exchange")]
OTHERS = [
    ("curdkv", {"leverage": "exact"}),
    ("curdkv", {"leverage": "projected"}),
    ("balancekv", {"variant": "shipped"}),
    ("gram_schmidt_walk", {"model": "free"}),
]
ENTRIES = [*CONSTRUCTIONS, *OF_QUERIES, *OTHERS]
# each row: dtype, leading axes, tokens, size; rows of ENTRIES take turns at the families
SHAPES = [
    (torch.bfloat16, (), 24, 5),
    (torch.float16, (2,), 24, 12),
    (torch.bfloat16, (2, 2), 17, 9),
    (torch.float32, (1, 3), 20, 19),
]


def cache_of(family: str, dtype: torch.dtype, heads: tuple[int, ...], n: int) -> Cache:
    """A cache of a family with these leading axes."""
    cache = small_cache(family, n=n, d=3, heads=math.prod(heads), seed=3).to(dtype)
    return cache[0] if not heads else Cache(*(x.reshape(*heads, *x.shape[1:]) for x in (cache.keys, cache.values)))


def oracle(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, log_weights=None) -> np.ndarray:
    """Attention of one head, in NumPy's float64."""
    q, k, v = (x.detach().double().numpy() for x in (queries, keys, values))
    logits = q @ k.T + (0 if log_weights is None else log_weights.double().numpy())
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights @ v / weights.sum(axis=1, keepdims=True)


def error_oracle(queries: torch.Tensor, cache: Cache, coreset: Coreset) -> np.ndarray:
    kept = coreset.indices
    whole = oracle(queries, cache.keys, cache.values, getattr(cache, "log_weights", None))
    return np.linalg.norm(whole - oracle(queries, cache.keys[kept], cache.values[kept], coreset.log_weights), axis=1)


@pytest.mark.parametrize("entry", ENTRIES, ids=label)
def test_tokens_are_those_of_the_float64_computation_head_by_head(entry) -> None:
    """Every head of a batch in its own dtype against that head alone in float64."""
    construct = make_coreset(entry[0], **entry[1])
    for turn, (dtype, heads, n, size) in enumerate(SHAPES):
        families = FAMILIES if construct.takes_weights or turn % 2 else ("sphere", "cap_outliers")
        cache = cache_of(families[(ENTRIES.index(entry) + turn) % len(families)], dtype, heads, n)
        count = math.prod(heads)
        asked = torch.randn(*heads, 2, 6, 3, generator=torch.Generator().manual_seed(4)).to(dtype)
        size = min(size, cache.n - 1)
        found = construct(cache, size, 1.7, generators(*range(count)), asked).flat()
        flat, asked = cache.flat(), asked.reshape(count, 2, 6, 3)
        for head in range(count):
            alone = flat[head].to(torch.float64)
            exact = construct(alone, size, 1.7, *generators(head), asked[head].double())
            assert torch.equal(found.indices[head], exact.indices), (dtype, heads)
            assert (found.log_weights is None) == (exact.log_weights is None)
            if exact.log_weights is not None:
                assert found.log_weights.dtype == torch.float32
                torch.testing.assert_close(found.log_weights[head].double(), exact.log_weights, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_scores_do_not_tie_where_exact_ones_do_not(dtype: torch.dtype) -> None:
    """64 dimensions, where 16-bit norms and softmax weights tie by the dozen; scores in NumPy."""
    g = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(200, 64, generator=g).to(dtype) for _ in range(2))
    queries = (torch.randn(2, 8, 64, generator=g) / 8).to(dtype)
    k, v = keys.double().numpy(), values.double().numpy()
    unit = k / np.linalg.norm(k, axis=1, keepdims=True)
    anchor = unit.mean(axis=0)
    last = np.stack([oracle(q[-1:], keys, torch.eye(200)) for q in queries]).mean(axis=(0, 1))
    centred = queries.double().numpy() - queries.double().numpy().mean(axis=1, keepdims=True)
    logits = queries.double().numpy().mean(axis=1) @ k.T
    logits += 0.5 * np.stack([np.square(k @ c.T).mean(axis=1) for c in centred])
    logits[:, :4] = -np.inf
    expected = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).mean(axis=0) * np.linalg.norm(v, axis=1)
    expected[:4] = np.inf
    scores = {
        "knorm": -np.linalg.norm(k, axis=1),
        "keydiff": -unit @ anchor / np.linalg.norm(anchor),
        "tova": last,
        "expected_attention": expected,
    }
    for name, score in scores.items():
        found = make_coreset(name)(Cache(keys, values), 100, 1.0, 0, queries).indices
        assert found.tolist() == sorted(np.argsort(-score, kind="stable")[:100].tolist()), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_and_its_error_are_those_of_the_bits(dtype: torch.dtype) -> None:
    cache = make_cache("cap_outliers", n=60, d=4, seed=2).to(dtype)
    coreset = Coreset(torch.arange(0, 60, 3), torch.linspace(-2, 3, 20, dtype=torch.float64))
    queries = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = attention_error(queries, cache, coreset)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, error_oracle(queries, cache, coreset), rtol=1e-12)
    same = attention_error(queries.to(dtype), cache, coreset)
    assert same.dtype == torch.float32
    np.testing.assert_allclose(same, error_oracle(queries.to(dtype), cache, coreset), rtol=2e-4)


def test_logits_beyond_float16_stay_finite() -> None:
    keys = torch.tensor([[300.0, 300.0], [299.0, 300.5], [-300.0, 0.0]], dtype=torch.float16)
    values = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float16)
    queries = torch.tensor([[300.0, 300.0], [-300.0, 1.0]], dtype=torch.float16)
    assert (queries[:1] @ keys.mT).isinf().any()  # what float16 makes of the first
    found = attend(queries, keys, values)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, oracle(queries, keys, values), rtol=1e-6)


def test_log_weights_are_not_rounded_to_sixteen_bits() -> None:
    """-log pi of 5.4 is off by 0.016 in bfloat16, which moves a weight by 1.6 %."""
    exact = torch.tensor([0.0, 5.401, -3.3, 7.77], dtype=torch.float64)
    keys = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weighted = WeightedCache(keys, keys, exact).to(torch.bfloat16)
    assert weighted.keys.dtype == torch.bfloat16
    assert torch.equal(weighted.log_weights, exact)
    assert Coreset(torch.arange(4), exact.bfloat16()).log_weights.dtype == torch.float32
    assert WeightedCache(keys, keys, exact.half()).log_weights.dtype == torch.float32
    queries = keys[:2]
    kept = Coreset(torch.tensor([1, 3]), exact[[1, 3]])
    np.testing.assert_allclose(
        attention_error(queries, weighted, kept), error_oracle(queries, weighted, kept), rtol=1e-12
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["clusters", *OFF_SPHERE])
def test_worst_query_has_the_error_that_it_says(family: str, dtype: torch.dtype) -> None:
    """And no certificate lies below it."""
    cache = make_cache(family, n=40, d=3, seed=1).to(dtype)
    coreset = make_coreset("gram_schmidt_walk")(cache, 12, 2.0, 0)
    worst = worst_query(cache, coreset, 2.0, restarts=8, steps=8, polish=8)
    expected = error_oracle(worst.query[None], cache, coreset)[0]
    assert float(worst.error) == pytest.approx(expected, abs=1e-6)
    assert float(attention_error(worst.query[None], cache, coreset)) == pytest.approx(expected, rel=1e-9)
    for certificate in CERTIFICATES.values():
        same = certificate(cache.to(torch.float64), coreset, 2.0)
        assert float(certificate(cache, coreset, 2.0)) == pytest.approx(float(same), rel=1e-9)
    assert float(branch_and_bound(cache, coreset, 2.0, gap=0.05).upper) >= expected
    query, error = climb(cache, coreset, 2.0, worst.query[None].to(dtype), 2)
    np.testing.assert_allclose(error, error_oracle(query, cache, coreset), rtol=1e-3)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_stream_keeps_the_tokens_of_float64(dtype: torch.dtype) -> None:
    cache = make_cache("sphere", n=150, d=4, heads=2, seed=5).to(dtype)
    streams = [Stream("gram_schmidt_walk", 8, 2.0, generator=generators(0, 1)) for _ in range(2)]
    for block in (slice(0, 70), slice(70, 150)):
        streams[0].add(cache.keys[:, block], cache.values[:, block])
        streams[1].add(cache.keys[:, block].double(), cache.values[:, block].double())
    found, exact = (stream.coreset() for stream in streams)
    assert torch.equal(found.indices, exact.indices)
    assert found.keys.dtype == dtype
    assert found.log_weights.dtype == torch.float32
    torch.testing.assert_close(found.log_weights.double(), exact.log_weights, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_body_and_a_tilt_see_the_bits(dtype: torch.dtype) -> None:
    cache = make_cache("clusters", n=30, d=4, seed=0).to(dtype)
    exact = cache.to(torch.float64)
    g = torch.Generator().manual_seed(0)
    body = QueryBody(torch.randn(4, generator=g).double(), torch.randn(4, 3, generator=g).double())
    view, other = body.view(cache), body.view(exact)
    assert view.keys.dtype == view.log_weights.dtype == torch.float32
    torch.testing.assert_close(view.keys.double(), other.keys, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(view.log_weights.double(), other.log_weights, rtol=1e-6, atol=1e-5)
    coreset = Coreset(torch.arange(5))
    back = body.outside(body.inside(coreset, cache), cache)
    torch.testing.assert_close(back.log_weights, torch.zeros(5), rtol=0, atol=1e-6)
    assert torch.equal(tilt(cache.keys, 2.0).p, tilt(exact.keys, 2.0).p)


def test_fitted_weights_are_not_rounded_to_the_caches_sixteen_bits():
    cache = make_cache("sphere", n=24, d=3, seed=0)
    half = Cache(cache.keys.bfloat16(), cache.values.bfloat16())
    wide = Cache(half.keys.double(), half.values.double())
    coreset = Coreset(torch.arange(0, 24, 3))
    for of in (half, Cache(half.keys, half.values * 2.0**60)):
        found, expected = (refit_log_weights(c, coreset, 2.0).log_weights for c in (of, wide))
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    one = make_coreset("gram_schmidt_walk", model="free", refinement="minimax")
    found, expected = (one(c, 8, 2.0, 3) for c in (half, wide))
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.log_weights.double(), expected.log_weights.double(), rtol=0, atol=1e-5)
    best, whole = (best_subset(c, 3, 2.0, model="free") for c in (half[..., :8, :], wide[..., :8, :]))
    torch.testing.assert_close(best.coreset.log_weights.double(), whole.coreset.log_weights, rtol=0, atol=1e-5)
