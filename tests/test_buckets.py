"""Recursions in buckets: their rounds, how tokens are dealt, unbiased weights at exact size, near-linear cost."""

import itertools
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_coresets import Cache, make_cache, make_coreset, tilt, worst_query
from attention_coresets.coresets.balancing import base as balancing_base
from attention_coresets.coresets.balancing import buckets
from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.balancing.buckets import (
    BUCKETED,
    RECURSIONS,
    Round,
    conditional_marginals,
    deal,
    rounds,
)
from attention_coresets.coresets.balancing.paired_coin import _Coin
from attention_coresets.coresets.kernel.law import capped_marginals
from attention_coresets.coresets.walks.pairs import pair_signs
from tables import generators, repeated, small_cache


@given(st.integers(2, 10**6), st.data(), st.sampled_from(RECURSIONS), st.integers(0, 5))
def test_rounds_lead_from_n_to_the_size(n, data, name, g):
    size = data.draw(st.integers(1, n - 1))
    made = rounds(n, size, name, g)
    assert made[0].tokens == n
    assert made[-1].target == size
    for step, after in itertools.pairwise(made):
        assert step.target == after.tokens
        assert after.buckets <= step.buckets  # buckets merge
    for step in made:
        assert 1 <= step.buckets <= step.target < step.tokens
        assert step.target * 2 >= step.tokens or name == "one_walk"


@pytest.mark.parametrize("g", [0, 1, 2])
def test_compress_has_the_papers_buckets(g):
    """n = 4^8 to 2^g sqrt(n): leaves of 4^(g+1), then four halved buckets merge, and the last halving is of one."""
    n = 4**8
    made = rounds(n, 2**g * 2**8, "compress", g)
    assert [step.width for step in made] == [4 ** (g + 1) * 2**r for r in range(8 - g)]
    assert [step.buckets for step in made] == [n // 4 ** (g + 1) // 4**r for r in range(8 - g)]


def test_merge_reduce_merges_two_and_compress_pp_ends_with_halvings():
    assert [(s.width, s.buckets) for s in rounds(64, 4, "merge_reduce")] == [(8, 8), (8, 4), (8, 2), (8, 1)]
    made = rounds(2**14, 2**4, "compress_pp", 3)
    assert made[-3:] == [Round(2**7, 2**6, 1), Round(2**6, 2**5, 1), Round(2**5, 2**4, 1)]
    assert made[:-3] == rounds(2**14, 2**7, "compress", 3)


@pytest.mark.parametrize(("n", "size"), [(512, 32), (512, 64), (512, 128), (1024, 64), (1024, 128), (1024, 256)])
def test_compress_pp_has_buckets_at_the_sizes_of_the_experiments(n, size):
    """A g of 3 would leave it without any there: halving, under another name."""
    assert rounds(n, size, "compress_pp")[0].buckets > 1
    assert rounds(64, 40, "compress_pp") == rounds(64, 40, "halving")
    assert rounds(n, n // 2, "compress_pp") == rounds(n, n // 2, "halving")
    assert rounds(n, n // 2 - 1, "compress_pp")[0].buckets > 1


@given(st.integers(2, 300), st.data(), st.integers(0, 10**6))
def test_every_token_is_dealt_once_and_buckets_are_alike(n, data, seed):
    count = data.draw(st.integers(1, n // 2))
    target = data.draw(st.integers(count, n - 1))
    rng = np.random.default_rng(seed)
    log_p = torch.from_numpy(rng.standard_normal((2, n)))
    step = Round(n, target, count)
    members, real, targets = deal(log_p, step, torch.from_numpy(rng.random((2, 2, count * step.width))))
    for h in range(2):
        assert sorted(members[h][real[h]].tolist()) == list(range(n))
        rank = log_p[h].argsort(descending=True).argsort()
        for row, true in zip(members[h], real[h], strict=True):
            assert (row[true].diff() > 0).all()  # the order of the tokens is kept
            ranks = rank[row[true]].sort().values // count
            assert ranks.tolist() == list(range(len(ranks)))  # one of each row of equal probability
    counts = real.sum(-1)
    assert counts.max() - counts.min() <= 1
    assert (targets.sum(-1) == target).all()
    assert (targets <= counts).all()
    marginals = conditional_marginals(log_p[0][members[0]], real[0], targets[0])
    assert marginals[~real[0]].eq(0).all()
    for row, true, wanted, found in zip(members[0], real[0], targets[0], marginals, strict=True):
        alone = capped_marginals(log_p[:1, row[true]], int(wanted))[0]
        torch.testing.assert_close(found[true], alone, rtol=0, atol=1e-9)


def test_dealing_does_not_see_rounding():
    n, rng = 200, np.random.default_rng(0)
    log_p = torch.zeros(1, n).double()
    uniforms = torch.from_numpy(rng.random((1, 2, n)))
    noisy = log_p + 1e-12 * torch.from_numpy(rng.standard_normal((1, n)))
    first, second = (deal(p, Round(n, 100, 10), uniforms)[0] for p in (log_p, noisy))
    assert torch.equal(first, second)
    places = (first[0] == 0).nonzero()[:, 0]
    others = torch.cat(
        [
            (deal(log_p, Round(n, 100, 10), torch.from_numpy(rng.random((1, 2, n))))[0][0] == 0).nonzero()[:, 0]
            for _ in range(40)
        ]
    )
    assert len({int(places), *others.tolist()}) > 5  # the first token is dealt anywhere


class Coins(Balancing):
    """A fair coin in buckets, which PairedCoin refuses: where tokens are dealt does not matter to it."""

    def signs(self, vectors, x, uniforms):
        return pair_signs(None, x, uniforms[:, 0], _Coin())

    def vectors(self, *_):
        return None


@pytest.mark.parametrize("name", BUCKETED)
@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_inclusion_is_unbiased_and_sizes_exact(name, model, monkeypatch):
    """By a rule that keeps the mean: over many runs a token's weight, 0 where it was dropped, has mean 1."""
    monkeypatch.setattr(balancing_base, "rounds", lambda n, size, kind: rounds(n, size, kind, 0))
    monkeypatch.setattr(buckets, "BUCKET", 8)
    n, size, runs = 30, 4, 3000
    cache = repeated(small_cache("cap_outliers", n=n, d=4, seed=1), runs)
    assert max(step.buckets for step in rounds(n, size, name, 0)) > 1
    coreset = Coins(model=model, recursion=name)(cache, size, 2.0, *generators(3))
    assert coreset.indices.shape == (runs, size)
    weights = torch.full((runs, size), n / size) if model == "unweighted" else coreset.log_weights.exp()
    counts = torch.zeros(runs, n).double().scatter_(-1, coreset.indices, weights.double())
    error = counts.std(0) / runs**0.5
    assert ((counts.mean(0) - 1).abs() <= 4.5 * error + 1e-9).all()
    total = counts.sum(-1)
    assert abs(total.mean() - n) <= 4.5 * total.std() / runs**0.5 + 1e-9


@pytest.mark.parametrize("name", ["merge_reduce", "compress_pp"])
def test_a_last_round_of_one_bucket_evens_the_weights_out(name, monkeypatch):
    """pi is proportional to p* where no round capped a token, whatever its buckets were."""
    monkeypatch.setattr(balancing_base, "rounds", lambda n, size, kind: rounds(n, size, kind, 1))
    cache = make_cache("sphere", n=600, d=4, seed=2)
    coreset = make_coreset("kernel_halving", recursion=name)(cache, 20, 1.0, *generators(0))
    ratio = coreset.log_weights + tilt(cache.keys, 1.0).log_p[coreset.indices]
    assert ratio.max() - ratio.min() < 1e-9


@pytest.mark.rounding
@pytest.mark.parametrize("name", BUCKETED)
@pytest.mark.parametrize("rule", ["kernel_halving", "greedy", "self_balancing_walk", "gram_schmidt_walk"])
def test_every_rule_at_odd_sizes_head_by_head(name, rule, monkeypatch):
    monkeypatch.setattr(balancing_base, "rounds", lambda n, size, kind: rounds(n, size, kind, 1))
    cache = small_cache("clusters", n=203, heads=2)
    construct = make_coreset(rule, recursion=name)
    for size in (1, 13, 50, 111, 202):
        coreset = construct(cache, size, 2.0, generators(0, 1))
        assert coreset.indices.shape == (2, size)
        assert (coreset.indices.diff(dim=-1) > 0).all()
        alone = construct(cache[1], size, 2.0, *generators(1))
        assert torch.equal(alone.indices, coreset.indices[1])
        torch.testing.assert_close(alone.log_weights, coreset.log_weights[1])


@pytest.mark.rounding
def test_one_bucket_a_round_is_halving():
    cache = small_cache("sphere", n=60)
    found = [
        make_coreset("kernel_halving", recursion=r)(cache, 7, 2.0, *generators(4)) for r in ("halving", "compress")
    ]
    assert torch.equal(found[0].indices, found[1].indices)


@pytest.mark.parametrize("name", BUCKETED)
def test_error_near_that_of_halving(name):
    """Geometric mean over caches of worst errors: within 1.6 of halving's, where uniform draws are far above."""
    logs = {}
    for label, kind, options in (
        ("buckets", "kernel_halving", {"recursion": name}),
        ("halving", "kernel_halving", {}),
        ("uniform", "uniform", {}),
    ):
        cache = make_cache("sphere", n=2048, d=2, seed=0, heads=3)
        coreset = make_coreset(kind, **options)(cache, 64, 1.0, *generators(0))
        logs[label] = worst_query(cache, coreset, rho=1.0).error.log().mean().item()
    assert logs["buckets"] - logs["halving"] < np.log(1.6)
    assert logs["uniform"] - logs["buckets"] > np.log(1.5)


def kernel_values(n, size, name):
    """Numbers of the Gram matrices of all rounds."""
    return sum(step.buckets * step.width**2 for step in rounds(n, size, name))


def test_cost_is_near_linear():
    for name in BUCKETED:
        ratio = kernel_values(2**20, 256, name) / kernel_values(2**16, 256, name)
        assert ratio < 16 * 1.5
    assert kernel_values(2**20, 256, "halving") / kernel_values(2**16, 256, "halving") > 200


@pytest.mark.slow
def test_time_is_near_linear():
    """Processor time of one thread, so that what else the machine does hardly counts."""
    seconds, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for n in (2**13, 2**16):
            cache = make_cache("sphere", n=n, d=16, dtype=torch.float32)
            construct = make_coreset("kernel_halving", recursion="compress")
            construct(Cache(cache.keys[:4096], cache.values[:4096]), 256, 2.0, *generators(0))
            start = time.process_time()
            construct(cache, 256, 2.0, *generators(0))
            seconds[n] = time.process_time() - start
    finally:
        torch.set_num_threads(threads)
    slope = np.log(seconds[2**16] / seconds[2**13]) / np.log(8)
    print("seconds", seconds, "exponent of n", slope)
    assert slope < 1.35


@pytest.mark.parametrize(("flops", "within"), [(0.0, 2), (1e300, 1)])
def test_small_rounds_run_on_one_thread_and_give_the_others_back(monkeypatch, flops, within):
    """To the same tokens."""
    seen, play, before = [], balancing_base.run_rounds, torch.get_num_threads()
    monkeypatch.setattr(balancing_base, "run_rounds", lambda *a: (seen.append(torch.get_num_threads()), play(*a))[1])
    monkeypatch.setattr(balancing_base, "_WORTH_THREADS", flops)
    construct = make_coreset("kernel_halving", recursion="compress")
    cache = make_cache("sphere", n=600, d=4)
    usual = construct(cache, 40, 2.0, *generators(0))
    torch.set_num_threads(2)
    try:
        found = construct(cache, 40, 2.0, *generators(0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen[-1] == within
    assert torch.equal(found.indices, usual.indices)


def test_leaves_have_256_tokens_unless_asked_otherwise():
    """4^(g + 1) at the g = 3 that was chosen by measurement."""
    assert rounds(4**8, 2**11, "compress")[0].width == 256
    assert rounds(4**8, 2**4, "compress_pp")[0].width == 256
