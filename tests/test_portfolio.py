"""The portfolio of starts: tabu search against exhaustive and slow searches, its kernel by definition, its errors."""

import itertools

import numpy as np
import pytest
import torch

from agreement import assert_agree
from attention_coresets import Cache, Coreset, WeightedCache, attend, attention_error, make_coreset, worst_query
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.minimax.heads import Heads, Minimax
from attention_coresets.coresets.minimax.minimax import minimax
from attention_coresets.coresets.minimax.portfolio import _anywhere, _kernel, best_start
from attention_coresets.coresets.minimax.tabu import tabu_search
from tables import generators, small_cache

QUICK = Minimax(rounds=1, random=128, restarts=24, steps=6, bank=160, portfolio=True)
FIXED = ("tilted", "unweighted")


def random_gram(n, seed):
    x = torch.randn(n, n // 2, generator=generators(seed)[0], dtype=torch.float64)
    return x @ x.T


def subsets(n, size, count, seed):
    order = torch.rand(count, n, generator=generators(seed)[0]).argsort(-1)
    return torch.zeros(count, n, dtype=torch.bool).scatter_(-1, order[:, :size], True)


def energies(gram, kept):
    return torch.einsum("si,ij,sj->s", kept.double(), gram, kept.double())


def search(gram, kept, moves, seed=0):
    uniforms = torch.rand(len(kept), 2, moves, generator=generators(seed)[0], dtype=torch.float64)
    found, energy = tabu_search(gram[None], kept[None], moves, uniforms[None])
    return (found[0], energy[0]), uniforms


# --- the search


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_some_searches_is_the_best_subset(seed):
    gram = random_gram(12, seed)
    (kept, found), _ = search(gram, subsets(12, 5, 32, seed), 300, seed)
    every = torch.zeros(792, 12, dtype=torch.bool)
    for row, chosen in zip(every, itertools.combinations(range(12), 5), strict=True):
        row[list(chosen)] = True
    torch.testing.assert_close(found.min(), energies(gram, every).min())
    torch.testing.assert_close(energies(gram, kept), found)


def slow_search(gram, kept, moves, uniforms):
    """The rule of tabu_search for one subset, every energy computed anew."""
    kept, n = set(np.flatnonzero(kept).tolist()), len(gram)
    energy = lambda chosen: float(gram[np.ix_(sorted(chosen), sorted(chosen))].sum())  # noqa: E731
    limits = [min(20, side // 2) for side in (len(kept) - 1, n - len(kept) - 1)]
    until, best = [0] * n, (energy(kept), kept)
    for move in range(moves):
        stay = [most // 2 + int((most - most // 2 + 1) * u) for u, most in zip(uniforms[:, move], limits, strict=True)]
        i = min((i for i in kept if until[i] <= move), key=lambda i: energy(kept - {i}))
        rest = kept - {i}
        j = min((j for j in range(n) if j not in kept and until[j] <= move), key=lambda j: energy(rest | {j}))
        kept, until[i], until[j] = rest | {j}, move + 1 + stay[1], move + 1 + stay[0]
        best = min(best, (energy(kept), kept), key=lambda pair: pair[0])
    return best[0]


@pytest.mark.parametrize(("n", "size"), [(40, 15), (30, 6), (14, 11), (6, 1), (6, 5), (2, 1)])
@pytest.mark.parametrize("moves", [1, 7, 60])
def test_a_search_is_the_slow_search(n, size, moves):
    gram, kept = random_gram(n, n), subsets(n, size, 3, moves)
    (_, found), uniforms = search(gram, kept, moves)
    expected = [slow_search(gram.numpy(), k.numpy(), moves, u.numpy()) for k, u in zip(kept, uniforms, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_search_goes_on_after_a_local_optimum():
    gram, kept = random_gram(60, 1), subsets(60, 20, 8, 2)
    descended, long = (search(gram, kept, moves)[0][1] for moves in (25, 600))
    assert bool((long <= descended).all())
    assert float((long / descended).mean()) < 0.8
    assert bool((search(gram, kept, 600)[0][0].sum(-1) == 20).all())


# --- the kernel and the subsets it begins with


def head_of(cache, rho=2.0):
    flat = cache[None] if cache.keys.dim() == 2 else cache
    return Heads(flat, rho, generators(3), QUICK)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_kernel_is_the_mean_square_of_the_weighted_sum(weighted):
    """x^T K x is |sum_S w_i f_i|^2 in the mean over the queries, up to one factor for all subsets."""
    g = generators(1)[0]
    keys, values = (torch.randn(1, 15, 3, generator=g, dtype=torch.float64) for _ in range(2))
    base = torch.randn(1, 15, generator=g, dtype=torch.float64)
    head = head_of(WeightedCache(keys, values, base) if weighted else Cache(keys, values))
    fixed = torch.randn(1, 15, generator=g, dtype=torch.float64)  # total, the cache's own in it
    queries = head.bank.queries[:, :40]
    own = base if weighted else torch.zeros_like(base)
    T = (queries @ head.cache.keys.mT + own).softmax(-1)[0]  # [b, n]
    A = attend(queries, head.cache.keys, head.cache.values, own)[0]
    f = T[..., None] * (head.cache.values[0] - A[:, None])  # [b, n, dv]
    kept = subsets(15, 6, 9, 0)
    sums = torch.einsum("si,bic->sbc", kept.double() * (fixed - own).exp(), f)
    ratio = energies(_kernel(head, queries, fixed)[0], kept) / sums.square().sum(-1).mean(-1)
    torch.testing.assert_close(ratio, ratio[:1].expand(9), rtol=1e-9, atol=0)


def test_starts_are_drawn_by_the_marginals():
    head = head_of(small_cache("sphere", 40, 3))
    fixed = torch.zeros(1, 40, dtype=torch.float64)
    fixed[:, :4], fixed[:, 36:] = -50.0, 50.0
    drawn = _anywhere(head, 400, fixed, 10)[0]
    assert bool((drawn.sum(-1) == 10).all())
    assert bool(drawn[:, :4].all())
    assert not bool(drawn[:, 36:].any())
    share = drawn[:, 4:36].double().mean(0)
    assert float((share - 6 / 32).abs().max()) < 4.5 * (0.15 / 400) ** 0.5


# --- the whole


@pytest.mark.parametrize("model", FIXED)
@pytest.mark.parametrize(
    "family", ["sphere", *(pytest.param(x, marks=pytest.mark.slow) for x in ("clusters", "cap_outliers"))]
)
def test_the_portfolio_errs_less_than_swaps_alone(family, model):
    caches = small_cache(family, 120, 4, seed=1, heads=2)
    plain, portfolio = (
        make_coreset("gram_schmidt_walk", model=model, refinement=refinement)(caches, 16, 2.0, generators(1, 2))
        for refinement in ("minimax", "portfolio")
    )
    before, after = (worst_query(caches, coreset, 2.0).error.log().mean() for coreset in (plain, portfolio))
    assert float((after - before).exp()) < 0.95
    assert (portfolio.log_weights is None) == (model == "unweighted")


@pytest.mark.slow
def test_close_to_the_best_subset_of_tiny_caches():
    angles = torch.linspace(0, 2 * torch.pi, 90, dtype=torch.float64)[:-1]
    ring = torch.stack([angles.cos(), angles.sin()], -1)
    queries = torch.cat([radius * ring for radius in (0.25, 0.5, 0.75, 1.0)])
    ratios = []
    for g in generators(*range(6)):
        cache = Cache(*(torch.randn(12, 2, generator=g, dtype=torch.float64) for _ in range(2)))
        error = lambda tokens: float(attention_error(queries, cache, Coreset(tokens)).max())  # noqa: B023, E731
        best = min(error(torch.tensor(subset)) for subset in itertools.combinations(range(12), 5))
        ratios.append(error(make_coreset("portfolio_unweighted")(cache, 5, 1.0, g).indices) / best)
    assert min(ratios) >= 1 - 1e-12
    assert np.exp(np.mean(np.log(ratios))) <= 1.2  # as of the swaps alone, on one such cache (test_minimax.py)


def test_a_start_is_no_worse_than_the_one_given():
    cache = small_cache("sphere", 80, 4, seed=2)
    given = make_coreset("portfolio_unweighted")(cache, 16, 2.0, generators(1)[0])
    head = head_of(cache)
    start = best_start(head, given.indices[None], torch.zeros(1, 80, dtype=torch.float64))
    before, after = (float(worst_query(cache, Coreset(x), 2.0).error) for x in (given.indices, start[0]))
    assert after <= 1.05 * before


@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize("model", FIXED)
def test_a_head_is_the_same_in_every_batch(model):
    caches = small_cache("clusters", 40, 3, heads=2)
    construct = make_coreset("gram_schmidt_walk", model=model, refinement="portfolio")
    together, alone = construct(caches, 8, 1.5, generators(5, 6)), construct(caches[1:], 8, 1.5, generators(6))
    assert_agree(Agreement.ERROR, together[1], alone[0], caches[1], 1.5)
    assert construct.agreement == Agreement.ERROR


@pytest.mark.parametrize(("n", "d", "m"), [(2, 1, 1), (3, 1, 2), (9, 3, 8), (12, 1, 4)])
@pytest.mark.parametrize("case", ["plain", "equal keys", "equal values"])
def test_small_and_degenerate_caches_come_out_no_worse(n, d, m, case):
    g = generators(n)[0]
    keys, values = (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    keys = keys[:1].repeat(n, 1) if case == "equal keys" else keys
    values = values[:1].repeat(n, 1) if case == "equal values" else values
    cache = Cache(keys, values)
    start = make_coreset("gram_schmidt_walk", model="unweighted")(cache, m, 2.0, generators(0)[0])
    found = minimax(cache, start, 2.0, "unweighted", None, generators(1)[0], QUICK)
    assert found.indices.unique().numel() == m
    before, after = (float(worst_query(cache, coreset, 2.0).error) for coreset in (start, found))
    assert after <= 1.05 * before + 1e-6


def test_free_weights_are_refused():
    with pytest.raises(ValueError, match="portfolio searches tokens of fixed weights; model must be tilted or unw"):
        make_coreset("gram_schmidt_walk", model="free", refinement="portfolio")
