"""The Gram-Schmidt walk against a dense NumPy walk, by enumeration of every path, and against its covariance bound."""

import itertools
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import oracles
from attention_coresets import make_cache, make_coreset
from attention_coresets.compiled import backend
from attention_coresets.coresets.walks import walk
from attention_coresets.coresets.walks.walk import walk_signs

RIDGE = 1e-2


def gram_of(seed, n, rank=None):
    """A random Gram matrix of n vectors of mixed lengths."""
    rng = np.random.default_rng(seed)
    f = rng.standard_normal((n, rank or n)) * rng.uniform(0.3, 2, (n, 1))
    return f @ f.T


def fractional(seed, n, exact):
    """x in (-1, 1)^n, with an integer sum of the parity of n if exact."""
    rng = np.random.default_rng(seed)
    while True:
        x = rng.uniform(-0.9, 0.9, n)
        if not exact:
            return x
        x += (np.round((x.sum() - n) / 2) * 2 + n - x.sum()) / n
        if np.abs(x).max() < 1:
            return x


def signs(gram, x, uniforms, **options):
    """walk_signs as +-1 floats for a batch of uniforms ``[H, n]`` over one Gram matrix and start."""
    heads = len(uniforms)
    grams = torch.from_numpy(gram).repeat(heads, 1, 1)
    kept = walk_signs(grams, torch.from_numpy(x).repeat(heads, 1), torch.as_tensor(uniforms), RIDGE, **options)
    return 2.0 * kept.double().numpy() - 1


def regular(gram):
    return gram + RIDGE * np.diag(gram).mean() * np.eye(len(gram))


@pytest.mark.rounding
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("n", "rank"), [(2, None), (7, 3), (24, None), (40, 5)])
def test_path_for_path_the_dense_walk(n, rank, exact, compiled):
    gram, x = gram_of(n, n, rank), fractional(n, n, exact)
    uniforms = np.random.default_rng(1).random((12, n))
    with backend("auto" if compiled else "torch"):
        paths = signs(gram, x, uniforms, exact=exact)
    for head, found in enumerate(paths):
        expected, _ = oracles.walk(gram, x, lambda step, p, h=head: uniforms[h, step] < p, RIDGE, exact)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.rounding
@pytest.mark.parametrize("exact", [True, False])
def test_every_block_size_takes_the_same_path(exact):
    gram, x = gram_of(3, 80, 20), fractional(3, 80, exact)
    uniforms = np.random.default_rng(2).random((3, 80))
    first, *rest = [signs(gram, x, uniforms, exact=exact, block=block) for block in (1, 8, 64)]
    for other in rest:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_the_exact_law_by_enumeration(n, exact):
    """Every path of choices: the mean is the start, the sum is kept, the covariance obeys the bound."""
    gram, x = gram_of(10 + n, n, 3), fractional(10 + n, n, exact)
    ends, chance = oracles.enumerate_walk(gram, x, RIDGE, exact)
    choices = np.array(list(itertools.product((True, False), repeat=n)))
    found = signs(gram, x, np.where(choices, 0.0, 1 - 1e-15), exact=exact)
    np.testing.assert_array_equal(found, ends)  # the package takes each path that the oracle takes
    assert chance.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(chance @ ends, x, atol=1e-9)
    if exact:
        np.testing.assert_allclose(ends.sum(-1), x.sum(), atol=1e-9)
    else:
        assert bound_ratio(ends - x, chance, gram) <= 1 + 1e-9


def bound_ratio(deviations, chance, gram):
    """Largest eigenvalue of Cov(B z) over the longest |b_i|^2, B^T B = G + ridge: at most 1 for a free-size walk.

    Harshaw, Savje, Spielman and Zhang: Cov(B z) <= B (B^T B)^{-1} B^T for vectors of norm at most 1.
    """
    covariance = (deviations * np.asarray(chance)[:, None]).T @ deviations
    root = np.linalg.cholesky(regular(gram))
    return np.linalg.eigvalsh(root.T @ covariance @ root)[-1] / regular(gram).diagonal().max()


def test_the_covariance_bound_and_marginals_over_many_walks():
    n, walks = 8, 3_000
    gram, x = gram_of(5, n, 4), fractional(5, n, exact=False)
    ends = signs(gram, x, np.random.default_rng(3).random((walks, n)), exact=False)
    error = np.sqrt((1 - x**2) / walks)
    assert np.abs((ends.mean(0) - x) / error).max() < 4.5
    # an empirical covariance of `walks` samples exceeds its own by (1 + sqrt(n / walks))^2 at most, give or take
    assert bound_ratio(ends - x, np.full(walks, 1 / walks), gram) <= (1 + np.sqrt(n / walks)) ** 2 + 0.03


def test_exact_size_on_orthonormal_vectors_exceeds_the_bound_by_n_over_n_minus_one():
    n = 6
    ends, chance = oracles.enumerate_walk(np.eye(n), np.zeros(n), RIDGE, exact=True)
    ends = np.concatenate([ends[:, order] for order in itertools.permutations(range(n))])
    chance = np.tile(chance, 720) / 720  # a random order of the tokens, as the construction draws it
    covariance = (ends * chance[:, None]).T @ ends
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance)[1:], n / (n - 1), rtol=1e-9)


def test_exact_size_marginals_over_many_walks():
    n, walks = 8, 3_000
    gram, x = gram_of(6, n, 3), fractional(6, n, exact=True)
    ends = signs(gram, x, np.random.default_rng(4).random((walks, n)), exact=True)
    np.testing.assert_allclose(ends.sum(-1), x.sum(), atol=1e-9)
    assert np.abs((ends.mean(0) - x) / np.sqrt((1 - x**2) / walks)).max() < 4.5


def test_the_walk_balances():
    """Against independent signs: the discrepancy of a low-rank family is far smaller."""
    n, walks = 120, 20
    gram, rng = gram_of(7, n, 4), np.random.default_rng(5)
    walked = signs(gram, np.zeros(n), rng.random((walks, n)), exact=True)
    coins = rng.choice([-1.0, 1.0], (walks, n))
    norms = [np.einsum("wi,ij,wj->w", z, gram, z).mean() for z in (walked, coins)]
    assert norms[0] < 0.1 * norms[1]


@pytest.mark.parametrize("exact", [True, False])
def test_settled_tokens_stay_and_do_not_disturb_the_others(exact):
    gram = gram_of(8, 10)
    inner = fractional(8, 7, exact)
    x = np.concatenate([[1.0, -1.0], inner, [1.0]])
    uniforms = np.random.default_rng(6).random((20, 10))
    found = signs(gram, x, uniforms, exact=exact)
    assert (found[:, [0, 1, 9]] == [1, -1, 1]).all()
    alone = signs(gram[2:9, 2:9], inner, uniforms[:, :7], exact=exact)
    np.testing.assert_array_equal(found[:, 2:9], alone)


def test_a_start_that_is_settled_everywhere():
    x = np.array([1.0, -1.0, 1.0])
    np.testing.assert_array_equal(signs(gram_of(1, 3), x, np.full((2, 3), 0.5)), [x, x])


@pytest.mark.rounding
@pytest.mark.parametrize("exact", [True, False])
def test_heads_at_different_stages_do_not_disturb_each_other(exact):
    n = 30
    grams = np.stack([gram_of(s, n, 5) for s in range(4)])
    x = np.stack([fractional(s, n, exact) for s in range(4)])
    x[1, :20] = np.tile([1.0, -1.0], 10)  # one head has a third of its tokens to settle
    x[1, 20:] = 0
    uniforms = np.random.default_rng(7).random((4, n))
    arrays = [torch.from_numpy(a) for a in (grams.copy(), x, uniforms)]
    batch = 2.0 * walk_signs(*arrays, RIDGE, exact).double().numpy() - 1
    for h in range(4):
        np.testing.assert_array_equal(batch[h], signs(grams[h], x[h], uniforms[h : h + 1], exact=exact)[0])


@pytest.mark.parametrize("exact", [True, False])
def test_duplicate_tokens_and_a_tiny_ridge(exact):
    features = np.repeat(np.random.default_rng(8).standard_normal((10, 3)), 8, axis=0)
    grams = torch.from_numpy(features @ features.T).repeat(20, 1, 1)
    uniforms = torch.from_numpy(np.random.default_rng(9).random((20, 80)))
    kept = walk_signs(grams, torch.zeros(20, 80).double(), uniforms, 1e-10, exact)
    discrepancy = ((2.0 * kept.double().numpy() - 1) @ features) ** 2
    assert discrepancy.sum(-1).max() < 4 * (features**2).sum(-1).max() * 3
    if exact:
        assert (kept.sum(-1) == 40).all()


def test_no_vector_at_all_is_a_fair_shuffle():
    kept = walk_signs(torch.zeros(3, 6, 6).double(), torch.zeros(3, 6).double(), torch.rand(3, 6).double(), 1e-4)
    assert (kept.sum(-1) == 3).all()


def test_a_matrix_that_is_no_gram_matrix_is_refused():
    gram = -torch.eye(4).double().unsqueeze(0)
    with pytest.raises(RuntimeError, match=r"not positive definite with ridge 0\.0001; raise the ridge"):
        walk_signs(gram + torch.eye(4).double().roll(1, 0), torch.zeros(1, 4).double(), torch.rand(1, 4).double())


@pytest.mark.rounding
@pytest.mark.parametrize("compiled", [True, False])
def test_places_are_a_reordering_of_the_tokens(compiled):
    n, rng = 60, np.random.default_rng(12)
    gram, x, uniforms = gram_of(12, n, 9), fractional(12, n, True), rng.random((4, n))
    places = np.stack([rng.permutation(n) for _ in range(4)])
    with backend("auto" if compiled else "torch"):
        found = signs(gram, x, uniforms, place=torch.from_numpy(places))
        for h, order in enumerate(places.argsort(-1)):
            expected = signs(gram[np.ix_(order, order)], x[order], uniforms[h : h + 1])[0]
            np.testing.assert_array_equal(found[h, order], expected)


@pytest.mark.rounding
def test_as_many_heads_at_once_as_threads_leaves_the_thread_count_alone():
    grams, x, uniforms = gram_of(13, 50, 8), fractional(13, 50, True), np.random.default_rng(13).random((5, 50))
    expected, before = signs(grams, x, uniforms), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(signs(grams, x, uniforms), expected)
        assert torch.get_num_threads() == 2
        with pytest.raises(RuntimeError, match="not positive definite"):
            signs(np.full_like(grams, np.nan), x, uniforms)
        with ThreadPoolExecutor(1) as pool:  # a new thread starts from what any thread set last
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


MEMORY = """
import torch
from attention_coresets import make_cache, make_coreset
from attention_coresets.coresets.walks import walk
from attention_coresets.coresets.walks.walk import walk_signs

def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024**2 * 2**30

n = 2048
generator = torch.Generator().manual_seed(0)
walk_signs(torch.eye(64).double()[None], torch.zeros(1, 64).double(), torch.rand(1, 64).double())
cache = make_cache("sphere", n=n, d=8)
construct = make_coreset("gram_schmidt_walk")
construct(cache[:512], 64, 2.0, generator)
before = resident("VmRSS")
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
construct(cache, 512, 2.0, generator)
print((resident("VmHWM") - before) / (8 * n * n))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_at_most_four_matrices_at_once():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 4.0


@pytest.mark.slow
def test_time_within_twice_cholesky_and_inverse():
    """The least of three times over the least of the other's, measured in turn after the compiler's first call."""
    n = 4096
    cache = make_cache("sphere", n=n, d=16)
    generator = torch.Generator().manual_seed(0)
    make_coreset("gram_schmidt_walk")(cache[:256], 64, 2.0, generator)
    times = []
    for _ in range(3):
        gram = (cache.keys @ cache.keys.T).exp_()
        uniforms = torch.rand(1, n, dtype=torch.float64, generator=generator)
        dense = gram.clone()
        dense.diagonal().add_(1e-4)
        start = time.perf_counter()
        torch.cholesky_inverse(torch.linalg.cholesky(dense))
        middle = time.perf_counter()
        walk_signs(gram.unsqueeze(0), torch.zeros(1, n, dtype=torch.float64), uniforms)
        times.append((middle - start, time.perf_counter() - middle))
    reference, walked = (min(t) for t in zip(*times, strict=True))
    print(f"walk / (Cholesky + inverse): {walked:.3f} s / {reference:.3f} s")
    assert walked <= 2 * reference


@pytest.mark.slow
def test_a_batch_of_heads_at_seven_tenths_of_one_large_problems_rate():
    """Flops go as n^3 a head; 32 heads of 1024 against one of 4096, the least of three times each."""
    times = []
    for _ in range(3):
        for n, heads in ((4096, 1), (1024, 32)):
            keys = make_cache("sphere", n=n, d=16, heads=heads).keys
            gram, start = (keys @ keys.mT).exp_(), torch.zeros(heads, n, dtype=torch.float64)
            uniforms = torch.rand(heads, n, dtype=torch.float64)
            begin = time.perf_counter()
            walk_signs(gram, start, uniforms)
            times.append((time.perf_counter() - begin) / (heads * n**3))
    large, batch = min(times[::2]), min(times[1::2])
    print(f"rate of the batch / rate of one large problem: {large / batch:.2f}")
    assert large / batch >= 0.7


@pytest.mark.rounding
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("block", [3, 64])
@pytest.mark.parametrize("kind", ["generic", "duplicates", "frozen", "fair"])
def test_compiled_steps_take_the_same_path_as_the_torch_loop(exact, block, kind, monkeypatch):
    pytest.importorskip("numba")
    n, heads = 150, 4
    grams = np.stack([gram_of(s, n, 40) for s in range(heads)])
    x = np.stack([fractional(s, n, exact) for s in range(heads)])
    if kind == "duplicates":
        grams = np.stack([gram_of(s, n // 2, 5) for s in range(heads)]).repeat(2, axis=1).repeat(2, axis=2)
    if kind == "frozen":
        x[:, 74:] = np.tile([1.0, -1.0], 38)
        x[:, :74] = [fractional(s, 74, exact) for s in range(heads)]
    if kind == "fair":
        x[:] = 0
    uniforms = np.random.default_rng(11).random((heads, n))
    paths = []
    for blocked in (walk.blocked_walk, None):
        monkeypatch.setattr(walk, "blocked_walk", blocked)
        arrays = [torch.from_numpy(a.copy()) for a in (grams, x, uniforms)]
        paths.append(walk_signs(*arrays, 1e-3, exact, block))
    assert paths[0].sum() not in (0, paths[0].numel())
    assert torch.equal(*paths)


def test_the_construction_shuffles_its_pivots():
    """Two equal caches in another order keep statistically the same tokens: no place in the order is special."""
    cache = make_cache("sphere", n=8, d=3)
    keys, values = (x.unsqueeze(0).repeat(1500, 1, 1) for x in (cache.keys, cache.values))
    construct = make_coreset("gram_schmidt_walk", model="unweighted")
    batch = type(cache)(keys, values)
    kept = [torch.zeros(1500, 8), torch.zeros(1500, 8)]
    for place, (order, seed) in enumerate([(slice(None), 0), (torch.arange(7, -1, -1), 1)]):
        shuffled = type(cache)(batch.keys[:, order], batch.values[:, order])
        coreset = construct(shuffled, 4, 2.0, torch.Generator().manual_seed(seed))
        kept[place].scatter_(1, coreset.indices, 1.0)
    pairs = [k.T @ k / 1500 for k in (kept[0], kept[1].flip(1))]  # how often two tokens are kept together
    assert (pairs[0] - pairs[1]).abs().max() < 4.5 * (0.5 / 1500) ** 0.5
