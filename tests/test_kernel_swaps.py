"""Kernel swaps: against brute force, the compiled and the torch pass index for index, and what they do to a coreset."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_coresets import make_cache, make_coreset, worst_query
from attention_coresets.compiled import backend
from attention_coresets.coresets.balancing.buckets import Round, deal
from attention_coresets.coresets.balancing.recursion import Tokens, run_rounds
from attention_coresets.coresets.kernel import kernel_swaps as module
from attention_coresets.coresets.kernel import swaps_by_rows as rows_module
from attention_coresets.coresets.kernel.kernel_swaps import kernel_swaps
from attention_coresets.coresets.kernel.law import Law, balancing_features, balancing_gram, capped_marginals, law
from attention_coresets.coresets.kernel.swaps_by_rows import swaps_by_rows
from tables import FAMILIES, generators, small_cache


def brute_force(features, kept, whole, passes):
    """One pass after the other, each distance from the features themselves."""
    kept = set(np.flatnonzero(kept))
    for _ in range(passes):
        for token in sorted(kept):
            rest = kept - {token}
            distance = {
                i: np.square(whole - features[list(rest | {i})].sum(0)).sum() for i in set(range(len(features))) - rest
            }
            best = min(distance, key=lambda i: (distance[i], i))
            kept = rest | {token if distance[token] <= distance[best] + 1e-9 else best}
    return np.isin(np.arange(len(features)), list(kept))


def repeated(gram, kept, target, passes):
    """One pass of `kernel_swaps` after the other."""
    for _ in range(passes):
        kept = kernel_swaps(gram, kept, target)
    return kept


def problem(rng, heads, n, m, rank):
    """Gram matrix, a random start and inner products with a random target, from explicit features."""
    features = rng.standard_normal((heads, n, rank))
    whole = features.mean(1) * m + 0.3 * rng.standard_normal((heads, rank))
    kept = rng.random((heads, n)).argsort(-1) < m
    gram, target = features @ features.transpose(0, 2, 1), np.einsum("hnr,hr->hn", features, whole)
    return features, whole, kept, [torch.from_numpy(x) for x in (gram, kept, target)]


@pytest.mark.rounding
@pytest.mark.parametrize("compiled", [True, False])
@given(st.integers(2, 14), st.data())
def test_swaps_are_brute_forces(compiled, n, data):
    m, rank, passes = data.draw(st.integers(1, n - 1)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    features, whole, kept, arguments = problem(rng, 3, n, m, rank)
    with backend("auto" if compiled else "torch"):
        found = repeated(*arguments, passes)
    assert torch.equal(arguments[1], torch.from_numpy(kept))  # the input stays
    for h in range(3):
        np.testing.assert_array_equal(found[h], brute_force(features[h], kept[h], whole[h], passes))


@pytest.mark.rounding
@pytest.mark.skipif(module.swap is None, reason="needs numba")
@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_and_torch_passes_are_one(family):
    cache = small_cache(family, n=48, heads=3)
    arguments = weighted(cache, 12)
    fast = repeated(*arguments, 3)
    with backend("torch"):
        assert torch.equal(repeated(*arguments, 3), fast)
    for h in range(3):
        assert torch.equal(repeated(*(x[h : h + 1] for x in arguments), 3)[0], fast[h])


def weighted(cache, size, seed=0):
    """The tilted walk's coreset with the Gram matrix of its weights and the inner products with the whole cache."""
    measure = law(cache.keys, 2.0, "tilted", "auto")
    pi = capped_marginals(measure.log_p, size)
    gram = balancing_gram(cache.keys, cache.values, -pi.log(), measure)
    start = make_coreset("gram_schmidt_walk")(cache, size, 2.0, generators(*range(seed, seed + len(pi))))
    kept = torch.zeros_like(pi, dtype=torch.bool).scatter_(-1, start.indices, True)
    return gram, kept, (gram @ pi.unsqueeze(-1)).squeeze(-1)


def distances(gram, kept, target, pi):
    """|sum_j pi_j g_j - sum of g over the kept|^2, a head."""
    change = pi - kept.to(pi.dtype)
    return torch.einsum("hi,hij,hj->h", change, gram, change)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("block", [1, 7 * 2 * 96])
def test_swaps_by_rows_are_those_of_the_matrix(family, block, monkeypatch):
    """Rows one by one, and seven at once; the second head of a batch as its first."""
    monkeypatch.setattr(rows_module, "_NUMBERS", block)
    cache = small_cache(family, n=96, heads=2)
    measure = law(cache.keys, 2.0, "tilted", "auto")
    pi = capped_marginals(measure.log_p, 24)
    gram, kept, target = weighted(cache, 24, seed=3)
    features = balancing_features(cache.keys, cache.values, -pi.log(), measure)
    before = kept.clone()
    assert torch.equal(swaps_by_rows(features, kept, pi), kernel_swaps(gram, kept, target))
    assert torch.equal(kept, before)


@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_a_long_cache_is_swapped_without_its_matrix(model, monkeypatch):
    cache = small_cache("clusters", n=96)
    make = make_coreset("kernel_halving", model=model, refinement="kernel_swaps")
    short = make(cache, 24, 2.0, generators(0)[0])

    def refuse(*_):
        raise AssertionError("no matrix")

    monkeypatch.setattr(rows_module, "DENSE", 95)
    monkeypatch.setattr(rows_module, "kernel_swaps", refuse)
    assert torch.equal(make(cache, 24, 2.0, generators(0)[0]).indices, short.indices)
    plain = make_coreset("kernel_halving", model=model)(cache, 24, 2.0, generators(0)[0])
    assert not torch.equal(plain.indices, short.indices)


def test_each_pass_lowers_the_distance_until_none_can():
    cache = small_cache("cap_outliers", n=96, d=6, heads=4)
    gram, kept, target = weighted(cache, 24)
    pi = capped_marginals(law(cache.keys, 2.0, "tilted", "auto").log_p, 24)
    passes = [kept, *(repeated(gram, kept, target, passes) for passes in (1, 2, 50))]
    found = torch.stack([distances(gram, k, target, pi) for k in passes])
    assert (found.diff(dim=0) <= 1e-9).all()
    assert (found[1] < 0.9 * found[0]).all()
    assert torch.equal(kernel_swaps(gram, passes[-1], target), passes[-1])
    assert (passes[-1].sum(-1) == 24).all()


def test_refusals():
    gram, target = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1), torch.ones(2, 4, dtype=torch.float64)
    kept = torch.tensor([[True, False, False, False], [True, True, False, False]])
    with pytest.raises(ValueError, match="one size for all heads, got \\[1, 2\\]"):
        kernel_swaps(gram, kept, target)
    with pytest.raises(ValueError, match="one size for all heads, got \\[1, 2\\]"):
        swaps_by_rows((gram[..., :2], gram[..., 2:], target), kept, target)


@pytest.mark.rounding
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("n", "target", "count"), [(24, 12, 1), (41, 17, 4), (30, 16, 5)])
def test_a_round_ends_with_swaps_in_each_of_its_buckets(n, target, count, dense, rng, monkeypatch):
    """Buckets of several sizes, which keep several numbers of tokens, against brute force on explicit features."""
    cache, step = small_cache("sphere", n=n, heads=2), Round(n, target, count)
    measure = law(cache.keys, 1.2, "tilted", "auto")
    tokens = Tokens(cache.keys, cache.values, measure)
    uniforms = torch.from_numpy(rng.random((2, 4, count * step.width)))
    walk = make_coreset("kernel_halving").walk(n, None)
    if not dense:
        monkeypatch.setattr(rows_module, "DENSE", 0)
    plain, swapped = (
        run_rounds(tokens, torch.zeros_like(measure.log_p), [step], [uniforms], walk, swaps) for swaps in (False, True)
    )
    if count == 1:
        members, real, targets = torch.arange(n).repeat(2, 1, 1), torch.ones(2, 1, n).bool(), torch.full((2, 1), target)
    else:
        members, real, targets = deal(measure.log_p, step, uniforms[:, 2:])
        assert len(real.sum(-1).unique()) + len(targets.unique()) > 2
    for h in range(2):
        wanted, log_pi = [], torch.empty(n).double()
        for bucket, true, size in zip(members[h], real[h], targets[h], strict=True):
            of = bucket[true]
            pi = capped_marginals(measure.log_p[h : h + 1, of], int(size))[0]
            gram = balancing_gram(
                cache.keys[h : h + 1, of], cache.values[h : h + 1, of], -pi.log()[None], part(measure, h, of)
            )
            features = np.linalg.cholesky(gram[0].numpy() + 1e-13 * np.eye(len(of)))
            kept = np.isin(of, plain[0][h])
            wanted += of[brute_force(features, kept, pi.numpy() @ features, 1)].tolist()
            log_pi[of] = pi.log()
        assert sorted(wanted) == swapped[0][h].tolist()
        torch.testing.assert_close(swapped[1][h], log_pi[swapped[0][h]], rtol=0, atol=1e-12)
    assert not torch.equal(plain[0], swapped[0])


def part(measure, head, tokens):
    """The law of some tokens of a head."""
    return Law(measure.log_p[head : head + 1, tokens], measure.center[head : head + 1], measure.scale[head : head + 1])


def test_swaps_each_round_halve_the_error_of_compress():
    """As goodpoints' have it (docs/benchmarks.md); the worst of few climbs is enough to see that."""
    cache = make_cache("sphere", n=1024, d=8)
    errors = [
        np.mean(
            [
                float(worst_query(cache, construct(cache, 128, 2.0, seed), 2.0, restarts=8, generator=0).error)
                for seed in range(4)
            ]
        )
        for construct in (
            make_coreset("kernel_halving", recursion="compress", refinement=r) for r in ("none", "round_swaps")
        )
    ]
    assert errors[1] < 0.7 * errors[0], errors
