"""The minimax refinement: each step against dense or exhaustive computations, the whole by what it must keep."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, nnls

from agreement import assert_agree
from attention_coresets import Cache, Coreset, attend, attention_error, make_cache, make_coreset, worst_query
from attention_coresets.adversary import branch_and_bound
from attention_coresets.compiled import NUMBA_MISSING, backend
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.kernel.law import capped_marginals, law
from attention_coresets.coresets.minimax import best_pairs as pairs_module
from attention_coresets.coresets.minimax import minimax as minimax_module
from attention_coresets.coresets.minimax import supports as supports_module
from attention_coresets.coresets.minimax import swap_tables
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.minimax.minimax import Minimax, minimax
from attention_coresets.coresets.minimax.query_bank import Bank, bank_errors, bank_of, random_queries, second_moment
from attention_coresets.coresets.minimax.supports import Supports
from attention_coresets.coresets.minimax.swaps import minimax_swaps
from attention_coresets.coresets.minimax.weights import _derivatives, _state, minimax_weights
from tables import generators, small_cache

QUICK = Minimax(rounds=3, random=128, restarts=24, steps=6, bank=160)
MODELS = ("free", "tilted", "unweighted")


def random_cache(n, d, dv, seed=0, heads=1):
    g = torch.Generator().manual_seed(seed)
    shape = lambda width: torch.randn(heads, n, width, generator=g, dtype=torch.float64)  # noqa: E731
    return Cache(shape(d) / d**0.5, shape(dv))


def fixed_weights(cache, rho, model, size):
    """Log-weights of every token ``[*heads, n]`` in a model with fixed weights."""
    if model == "free":
        return None
    measure = law(cache.keys.flatten(0, -3) if cache.keys.dim() > 2 else cache.keys[None], rho, model, "auto")
    return -capped_marginals(measure.log_p, size).clamp_min(1e-300).log().reshape(cache.keys.shape[:-1])


def walk(cache, size, rho, model, seed=0):
    construct = make_coreset("gram_schmidt_walk", model="unweighted" if model == "unweighted" else "tilted")
    return construct(cache, size, rho, torch.Generator().manual_seed(seed))


def moments(n=9, d=3, dv=2, seed=0):
    """A second moment of a random cache with values of three dimensions, as NumPy arrays for the oracles."""
    cache = random_cache(n, d, dv, seed)
    queries = random_queries(generators(seed + 1), 40, d, 2.0)
    return second_moment(cache.keys, cache.values, queries, torch.full((1, 40), 1 / 40, dtype=torch.float64))


def tau(gram, total, tokens):
    """Weights and c^T G^-1 c of a subset, by a dense solve with the documented ridge."""
    g = gram[np.ix_(tokens, tokens)] + 1e-9 * np.diag(gram).mean() * np.eye(len(tokens))
    w = np.linalg.solve(g, total[list(tokens)])
    return w, float(w @ total[list(tokens)])


# --- the bank


def test_the_error_is_the_quotient_of_two_sums():
    cache = random_cache(20, 4, 3)
    queries = random_queries(generators(5), 30, 4, 3.0)
    tokens, log_weights = torch.tensor([[1, 4, 7, 19]]), torch.tensor([[0.3, -1.0, 0.0, 2.0]], dtype=torch.float64)
    T = (queries @ cache.keys.mT).softmax(-1)[0]
    f = T[..., None] * (cache.values - attend(queries, cache.keys, cache.values).mT.mT.transpose(0, 1))
    w = log_weights.exp()[0]
    quotient = (f[:, tokens[0]] * w[:, None]).sum(1).norm(dim=-1) / (T[:, tokens[0]] * w).sum(-1)
    expected = attention_error(queries, cache, Coreset(tokens, log_weights))[0]
    torch.testing.assert_close(quotient, expected)
    torch.testing.assert_close(bank_errors(cache, bank_of(cache, queries), tokens, log_weights)[0], expected)


def test_second_moment_by_the_definition():
    cache = random_cache(11, 3, 4, heads=2)
    queries = random_queries(generators(1, 2), 17, 3, 2.0)
    y = torch.rand(2, 17, dtype=torch.float64)
    gram, total = second_moment(cache.keys, cache.values, queries, y)
    T = (queries @ cache.keys.mT).softmax(-1) * 11
    A = attend(queries, cache.keys, cache.values)
    f = T[..., None] * (cache.values[:, None] - A[:, :, None])  # [H, b, n, dv]
    torch.testing.assert_close(gram, torch.einsum("hb,hbie,hbje->hij", y, f, f))
    torch.testing.assert_close(total, torch.einsum("hb,hbi->hi", y, T))


def test_second_moments_of_weighted_heads_do_not_mix():
    rng = np.random.default_rng(5)
    keys, values, queries = (
        torch.from_numpy(rng.standard_normal(shape)) for shape in ((3, 9, 4), (3, 9, 2), (3, 3, 4))
    )
    y, base = torch.from_numpy(rng.random((3, 3))), torch.from_numpy(rng.standard_normal((3, 9)))
    batch = second_moment(keys, values, queries, y, base)
    for head in range(3):
        alone = second_moment(keys[head], values[head], queries[head], y[head], base[head])
        for whole, part in zip(batch, alone, strict=True):
            torch.testing.assert_close(whole[head], part, rtol=1e-12, atol=1e-12)


def test_random_queries_lie_on_the_sphere_and_follow_their_head():
    both = random_queries(generators(3, 4), 50, 5, 1.7)
    torch.testing.assert_close(both.norm(dim=-1), torch.full((2, 50), 1.7, dtype=torch.float64))
    torch.testing.assert_close(random_queries(generators(4), 50, 5, 1.7)[0], both[1], rtol=1e-12, atol=1e-12)
    assert float(random_queries(generators(0), 4000, 5, 1.0).mean(-2).abs().max()) < 4.5 / (5 * 4000) ** 0.5


# --- exchanges


@pytest.fixture(params=["compiled", "torch"])
def either(request):
    """Both searches for the best pair; without numba there is one."""
    if request.param == "compiled" and NUMBA_MISSING:
        pytest.skip("needs numba")
    with backend("torch" if request.param == "torch" else "auto"):
        yield


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("seed", range(6))
def test_one_exchange_is_the_best_of_all_pairs(seed):
    gram, total = moments(seed=seed)
    g, c = gram[0].numpy(), total[0].numpy()
    # from a subset whose weights are all positive, so that nothing is repaired
    start = next(s for s in itertools.combinations(range(9), 3) if (tau(g, c, s)[0] > 0).all())
    best = tau(g, c, start)[1]
    for i, j in itertools.product(start, set(range(9)) - set(start)):
        w, value = tau(g, c, sorted({*start, j} - {i}))
        if (w > 0).all():
            best = max(best, value)
    tokens, weights = exchange(gram, total, torch.tensor([start]), moves=1)
    w, value = tau(g, c, tokens[0].tolist())
    assert value == pytest.approx(best, rel=1e-9)
    np.testing.assert_allclose(weights[0], w / value, rtol=1e-6)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(("n", "m", "seed"), [(9, 3, 0), (12, 5, 1), (30, 8, 2), (24, 12, 3), (16, 1, 4), (8, 7, 5)])
def test_exchanges_end_where_none_gains(n, m, seed):
    gram, total = moments(n, 3, 3, seed)
    g, c = gram[0].numpy(), total[0].numpy()
    tokens, weights = exchange(gram, total, torch.arange(m)[None], moves=200)
    chosen = tokens[0].tolist()
    assert bool((weights > 0).all())
    assert float(weights[0] @ total[0, tokens[0]]) == pytest.approx(1)
    used = [t for t, w in zip(chosen, weights[0].tolist(), strict=True) if w > 1e-9 * float(weights.max())]
    w, value = tau(g, c, used)
    np.testing.assert_allclose(weights[0][np.isin(chosen, used)], w / value, rtol=1e-5)
    for i, j in itertools.product(used, set(range(n)) - set(chosen)):
        others, found = tau(g, c, sorted({*used, j} - {i}))
        assert found <= value * (1 + 1.1e-6) or (others <= 0).any()
    # the same weights as non-negative least squares on the subset, and no better than on all tokens
    assert value <= _nnls_tau(g, c, range(n)) * (1 + 1e-9)
    assert value == pytest.approx(_nnls_tau(g, c, used), rel=1e-6)


@pytest.mark.rounding
@pytest.mark.skipif(supports_module.compiled is None, reason="needs numba")
@pytest.mark.parametrize(
    ("n", "m", "seed", "crowded"),
    [(60, 20, 0, False), (150, 70, 1, True), (150, 10, 2, True), (40, 1, 3, False), (40, 39, 4, False)],
)
def test_compiled_and_torch_exchanges_are_one(n, m, seed, crowded, monkeypatch):
    """Exchange for exchange: the same tokens and weights, also where the best pairs would make a weight negative."""
    gram, total = moments(n, 4, 3, seed)
    compiled, refused = supports_module.compiled, []
    keep = pairs_module._stay_positive

    def spy(*arguments):
        fine = keep(*arguments)
        refused.append(int(fine.to(torch.uint8).argmax()))  # better than the first that is not refused
        return fine

    monkeypatch.setattr(pairs_module, "_stay_positive", spy)
    found = []
    for search in (compiled, None):
        monkeypatch.setattr(supports_module, "compiled", search)
        found.append(exchange(gram, total, torch.arange(m)[None], moves=50))
    (tokens, weights), (others, expected) = found
    assert torch.equal(tokens, others)
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=0)
    assert (sum(refused) > 0) == crowded


def _nnls_tau(g, c, tokens):
    """Maximum of 2 c^T w - w^T G w over w >= 0: it is tau of the best support among `tokens`."""
    tokens = list(tokens)
    root = np.linalg.cholesky(g[np.ix_(tokens, tokens)] + 1e-9 * np.diag(g).mean() * np.eye(len(tokens)))
    w, _ = nnls(root.T, np.linalg.solve(root, c[tokens]), maxiter=1000)
    return float(c[tokens] @ w)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("seed", range(4))
def test_units_do_not_matter_to_exchanges(scale, seed):
    """c -> s c leaves the best tokens and makes weights 1 / s as large, also where empty slots are filled anew."""
    gram, total = moments(24, 3, 3, seed)
    tokens = torch.arange(12)[None]
    kept, weights = exchange(gram, total, tokens)
    other, scaled = exchange(gram, scale * total, tokens)
    assert torch.equal(kept, other)
    torch.testing.assert_close(scale * scaled, weights, rtol=1e-6, atol=0)


def test_more_exchanges_are_never_worse():
    gram, total = moments(40, 3, 3, 8)
    values = []
    for count in range(8):
        tokens, weights = exchange(gram, total, torch.arange(10)[None], moves=count)
        values.append(float(weights[0] @ gram[0][tokens[0]][:, tokens[0]] @ weights[0]))
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(values))
    assert values[-1] < 0.8 * values[0]


@pytest.mark.usefixtures("either")
def test_rank_one_updates_stay_accurate():
    gram, total = moments(120, 8, 6, 9)
    g = gram[0] / gram[0].diagonal().mean() + 1e-9 * torch.eye(120)
    support, every = Supports(g[None], total, torch.arange(40)[None]), torch.ones(1, dtype=torch.bool)
    support.repair(every)
    moves = 0
    while support.swap(1e-9, every)[1] and moves < 60:
        moves += 1
    assert moves >= 15
    updated = [getattr(support, name).clone() for name in ("P", "M", "w", "s", "r")]
    support.factor()
    for name, found in zip(("P", "M", "w", "s", "r"), updated, strict=True):
        expected = getattr(support, name)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


def test_duplicates_share_their_weight_and_no_error_is_no_trouble():
    cache = random_cache(6, 2, 2)
    cache = Cache(*(x.repeat(1, 2, 1) for x in (cache.keys, cache.values)))
    queries = random_queries(generators(0), 30, 2, 1.0)
    y = torch.full((1, 30), 1 / 30, dtype=torch.float64)
    gram, total = second_moment(cache.keys, cache.values, queries, y)
    tokens, weights = exchange(gram, total, torch.arange(11)[None])
    assert tokens.unique().numel() == 11
    assert bool((weights > 0).all())
    assert float(bank_errors(cache, bank_of(cache, queries), tokens, weights.log()).max()) < 1e-3
    flat, _ = exchange(torch.zeros_like(gram), total, torch.arange(4)[None])
    assert flat.tolist() == [[0, 1, 2, 3]]


# --- weights


def polished(seed=0, n=60, m=12, steps=12, heads=1):
    cache = random_cache(n, 4, 3, seed, heads)
    bank = bank_of(cache, random_queries(generators(*range(heads)), 200, 4, 2.0))
    tokens = torch.arange(m).repeat(heads, 1)
    zeros = torch.zeros(heads, m, dtype=torch.float64)
    return cache, bank, tokens, zeros, minimax_weights(cache, bank, tokens, zeros, steps=steps)


def norm16(errors):
    return float(errors.pow(16).sum() ** (1 / 16))


def test_slopes_are_those_of_autograd():
    cache, bank, tokens, x, _ = polished(heads=2)
    keys, values = cache.take(tokens)
    x = (x + torch.linspace(-1, 1, 12, dtype=torch.float64)).requires_grad_()
    state = _state(bank.queries @ keys.mT, values, bank.outputs, x, 8)
    (expected,) = torch.autograd.grad(state[0].sum(), x)
    with torch.no_grad():
        gradient, hessian = _derivatives(state, values, 8)
    torch.testing.assert_close(gradient, expected)
    assert float(torch.linalg.eigvalsh(hessian).min()) > -1e-9 * float(hessian.diagonal(dim1=-2, dim2=-1).max())


@pytest.mark.parametrize("seed", range(3))
def test_weights_reach_what_a_general_optimiser_reaches(seed):
    cache, bank, tokens, zeros, found = polished(seed, steps=60)

    def objective(x):
        return math.log(norm16(bank_errors(cache, bank, tokens, torch.from_numpy(x)[None])))

    other = minimize(objective, zeros[0].numpy(), method="BFGS", options={"maxiter": 300})
    assert objective(found[0].numpy()) <= other.fun + 0.01
    assert objective(found[0].numpy()) < objective(zeros[0].numpy()) - 0.3


@pytest.mark.rounding
def test_weights_never_raise_the_norm_and_heads_do_not_mix():
    cache, bank, tokens, zeros, found = polished(3, heads=3)
    for h in range(3):
        before, after = (bank_errors(cache, bank, tokens, x)[h] for x in (zeros, found))
        assert norm16(after) < norm16(before)
        alone = Bank(*(x[h : h + 1] for x in bank))
        weights = minimax_weights(cache[h : h + 1], alone, tokens[:1], zeros[:1])
        other = bank_errors(cache[h : h + 1], alone, tokens[:1], weights)[0]
        assert norm16(other) == pytest.approx(norm16(after), rel=1e-3)
    again = minimax_weights(cache, bank, tokens, found, steps=1)
    assert norm16(bank_errors(cache, bank, tokens, again)[0]) <= norm16(bank_errors(cache, bank, tokens, found)[0])


def test_no_weight_falls_out_of_sight():
    cache = small_cache("clusters", 120, 2, seed=5)
    cache = Cache(cache.keys[None], cache.values[None])
    bank = bank_of(cache, random_queries(generators(0), 200, 2, 6.0))
    found = minimax_weights(cache, bank, torch.arange(30)[None], torch.zeros(1, 30, dtype=torch.float64), steps=60)
    assert 20 < float(found.max() - found.min()) <= 30


# --- swaps


def swap_problem(seed, n=24, m=6, weights=False):
    cache = random_cache(n, 3, 2, seed)
    bank = bank_of(cache, random_queries(generators(seed), 60, 3, 2.0))
    kept = torch.zeros(1, n, dtype=torch.bool)
    kept[0, :m] = True
    log_weights = torch.randn(1, n, generator=generators(seed + 9)[0], dtype=torch.float64) * float(weights)
    return cache, bank, kept, log_weights, torch.rand(1, n, generator=generators(seed + 5)[0], dtype=torch.float64)


def power_sum(cache, bank, tokens, log_weights):
    """sum_b err_b^8 of a subset, by attention itself."""
    tokens = torch.tensor([sorted(tokens)])
    return float(bank_errors(cache, bank, tokens, log_weights[:, tokens[0]]).pow(8).sum())


def slow_pass(cache, bank, kept, log_weights, uniforms, gain):
    kept = set(kept[0].nonzero()[:, 0].tolist())
    for i in uniforms[0].argsort().tolist():
        if i in kept:
            now = power_sum(cache, bank, kept, log_weights)
            outside = [j for j in range(len(uniforms[0])) if j not in kept]
            sums = [power_sum(cache, bank, kept - {i} | {j}, log_weights) for j in outside]
            if min(sums) < (1 - gain) * now:
                kept = kept - {i} | {outside[int(np.argmin(sums))]}
    return sorted(kept)


@pytest.mark.parametrize(("m", "weights"), [(6, False), (6, True), (1, True), (23, False)])
@pytest.mark.parametrize("seed", range(3))
def test_a_pass_is_the_slow_pass(seed, m, weights, monkeypatch):
    monkeypatch.setattr(swap_tables, "TRIED", 100)  # every candidate on every query
    problem = swap_problem(seed, m=m, weights=weights)
    found = minimax_swaps(*problem)[0].nonzero()[:, 0].tolist()
    assert found == slow_pass(*problem, 1e-3)


def test_a_pass_with_few_candidates_tried_still_gains():
    cache, bank, kept, log_weights, uniforms = swap_problem(7, n=300, m=20)
    after = minimax_swaps(cache, bank, kept, log_weights, uniforms)
    start, end = (power_sum(cache, bank, x[0].nonzero()[:, 0].tolist(), log_weights) for x in (kept, after))
    assert int(after.sum()) == 20
    assert end < 0.1 * start


def test_weights_beyond_float32_do_no_harm():
    cache, bank, kept, log_weights, uniforms = swap_problem(1)
    log_weights = log_weights + torch.linspace(-400, 400, 24, dtype=torch.float64)
    after = minimax_swaps(cache, bank, kept, log_weights, uniforms)
    start, end = (power_sum(cache, bank, x[0].nonzero()[:, 0].tolist(), log_weights) for x in (kept, after))
    assert int(after.sum()) == 6
    assert end <= start * (1 + 1e-9)


# --- the loop


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("family", ["sphere", "clusters", "cap_outliers"])
def test_the_worst_query_is_less_bad(family, model):
    cache = small_cache(family, 160, 4, seed=1)
    start = walk(cache, 20, 2.0, model)
    weights = fixed_weights(cache, 2.0, model, 20)
    found = minimax(cache, start, 2.0, model, weights, generators(0)[0], QUICK)
    before, after = (float(worst_query(cache, c, 2.0).error) for c in (start, found))
    assert after < (0.7 if model == "free" else 0.9) * before
    assert (found.log_weights is None) == (model == "unweighted")
    if model == "tilted":
        torch.testing.assert_close(found.log_weights, weights[found.indices])


def run_of_heads(model):
    """A cache of three heads, and minimax of a slice of them by seeds of their own."""
    cache = small_cache("sphere", 40, 3, heads=3)
    start = walk(cache, 6, 1.5, model)
    weights = fixed_weights(cache, 1.5, model, 6)

    def run(h, *seeds):
        fixed = None if weights is None else weights[h]
        return minimax(cache[h], start[h], 1.5, model, fixed, generators(*seeds), QUICK)

    return cache, run


@pytest.mark.rounding
@pytest.mark.parametrize("model", MODELS)
def test_as_good_whatever_the_batch(model):
    cache, run = run_of_heads(model)
    together, alone = run(slice(0, 3), 5, 6, 7), run(slice(1, 2), 6)
    # tokens are not promised: a batch rounds otherwise, by which an ascent may reach another hill
    assert_agree(Agreement.ERROR, together[1], alone[0], cache[1], 1.5)


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seeds_give_the_same_tokens_again(model):
    """On one machine. Another rounding may send an ascent to another hill, and a head to other tokens."""
    _, run = run_of_heads(model)
    once, again = (run(slice(0, 3), 5, 6, 7) for _ in range(2))
    assert torch.equal(once.indices, again.indices)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("n", "d", "dv", "m"), [(2, 1, 1, 1), (3, 1, 2, 2), (5, 2, 1, 1), (9, 3, 2, 8), (12, 1, 1, 4), (6, 2, 2, 6)]
)
def test_odd_shapes_come_out_no_worse(n, d, dv, m, model):
    cache = random_cache(n, d, dv, seed=n)[0]
    start = walk(cache, m, 3.0, model)
    found = minimax(cache, start, 3.0, model, fixed_weights(cache, 3.0, model, m), generators(1)[0], QUICK)
    assert found.size == m
    before, after = (float(worst_query(cache, c, 3.0).error) for c in (start, found))
    assert after <= 1.05 * before + 1e-6


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("case", ["equal keys", "equal values", "duplicates", "one heavy token", "all equal"])
def test_degenerate_caches_come_out_no_worse(case, model):
    keys, values = (x[0] for x in (random_cache(16, 2, 3).keys, random_cache(16, 2, 3).values))
    if case in ("equal keys", "all equal"):
        keys = keys[:1].repeat(16, 1)
    if case in ("equal values", "all equal"):
        values = values[:1].repeat(16, 1)
    if case == "duplicates":
        keys, values = (x[:4].repeat(4, 1) for x in (keys, values))
    if case == "one heavy token":  # its marginal is capped at 1
        keys = keys + 8.0 * (torch.arange(16) == 5)[:, None]
    cache = Cache(keys, values)
    start = walk(cache, 5, 2.0, model)
    found = minimax(cache, start, 2.0, model, fixed_weights(cache, 2.0, model, 5), generators(1)[0], QUICK)
    assert found.size == 5
    before, after = (float(worst_query(cache, c, 2.0).error) for c in (start, found))
    assert after <= 1.05 * before + 1e-6


@pytest.mark.parametrize("model", MODELS)
def test_shifted_keys_give_as_good_a_coreset(model):
    cache = small_cache("sphere", 100, 3, seed=2)
    moved = Cache(cache.keys + 5.0, cache.values - 7.0)
    start = walk(cache, 12, 2.0, model)
    weights = fixed_weights(cache, 2.0, model, 12)
    first, second = (
        worst_query(c, minimax(c, start, 2.0, model, weights, generators(3)[0], QUICK), 2.0).error
        for c in (cache, moved)
    )
    assert float(second) == pytest.approx(float(first), rel=0.02)  # rounding may lead the free model another way: 0.8 %


def test_close_to_the_best_subset_of_a_tiny_cache():
    cache = random_cache(10, 2, 2, seed=4)[0]
    angles = torch.linspace(0, 2 * math.pi, 90, dtype=torch.float64)[:-1]
    ring = torch.stack([angles.cos(), angles.sin()], -1)
    queries = torch.cat([radius * ring for radius in (0.5, 1.0, 1.5, 2.0)])
    errors = {
        subset: float(attention_error(queries, cache, Coreset(torch.tensor(subset))).max())
        for subset in itertools.combinations(range(10), 4)
    }
    start = walk(cache, 4, 2.0, "unweighted")
    found = minimax(cache, start, 2.0, "unweighted", None, generators(0)[0], QUICK)
    assert errors[tuple(found.indices.tolist())] <= 1.2 * min(errors.values())


def test_flags_leave_out_their_step():
    cache = small_cache("sphere", 120, 3, seed=3)
    start = walk(cache, 14, 2.0, "tilted")

    def run(model="free", **flags):
        settings = Minimax(rounds=3, random=128, restarts=24, steps=6, bank=160, **flags)
        weights = fixed_weights(cache, 2.0, model, 14)
        return minimax(cache, start, 2.0, model, weights, generators(0)[0], settings)

    weights_only, exchange_only, whole = run(exchange=False), run(weights=False), run()
    queries = torch.nn.functional.normalize(cache.keys, dim=-1) * 2.0
    for coreset in (weights_only, exchange_only, whole):  # absolute: log 120 = 4.8 is what weights that sum to 1 miss
        kept = (queries @ cache.take(coreset.indices)[0].mT + coreset.log_weights.unsqueeze(-2)).logsumexp(-1)
        assert abs(float((kept - (queries @ cache.keys.mT).logsumexp(-1)).mean())) < 0.7
    assert torch.equal(weights_only.indices, start.indices)
    assert not torch.equal(exchange_only.indices, start.indices)
    errors = [float(worst_query(cache, c, 2.0).error) for c in (start, weights_only, exchange_only, whole)]
    assert errors[3] <= min(errors[1:3])
    assert max(errors[1:]) < errors[0]
    for model in ("free", "tilted"):
        random_only = run(model, ascents=False)
        assert float(worst_query(cache, random_only, 2.0).error) < errors[0]


def test_the_starts_tokens_serve_where_the_exchange_misleads(monkeypatch):
    cache = small_cache("sphere", 120, 3, seed=3)
    start = walk(cache, 14, 2.0, "free")
    bad = torch.arange(14)[None], torch.tensor([[1.0] + 13 * [1e-12]], dtype=torch.float64)
    monkeypatch.setattr(minimax_module, "exchange", lambda gram, total, tokens: bad)
    found = minimax(cache, start, 2.0, "free", None, generators(0)[0], QUICK)
    assert torch.equal(found.indices, start.indices)
    before, after = (float(worst_query(cache, c, 2.0).error) for c in (start, found))
    assert after < 0.9 * before


def test_everything_kept_is_returned_and_bad_input_is_refused():
    cache = small_cache("sphere", 8, 2)
    whole = Coreset(torch.arange(8))
    assert minimax(cache, whole, 1.0, "tilted", None, generators(0)[0], QUICK) is whole
    start = Coreset(torch.arange(3))
    with pytest.raises(ValueError, match="did you mean 'tilted'"):
        minimax(cache, start, 1.0, "tilde", None, generators(0)[0])
    with pytest.raises(ValueError, match="rho"):
        minimax(cache, start, -1.0, "free", None, generators(0)[0])
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        Minimax(rounds=0)


@pytest.mark.parametrize(("family", "d"), [("sphere", 3), ("cap_outliers", 3), ("clusters", 2)])
def test_branch_and_bound_encloses_the_error_found(family, d):
    """The ascent that the construction is fitted to does not overlook what it leaves."""
    cache = make_cache(family, n=192, d=d, seed=0)
    make = make_coreset("gram_schmidt_walk", model="free", refinement="minimax")
    coreset = make(cache, size=24, rho=2.0, generator=torch.Generator().manual_seed(0))
    found = worst_query(cache, coreset, 2.0).error
    enclosed = branch_and_bound(cache, coreset, 2.0, gap=0.05 * float(found))
    assert float(enclosed.upper) <= 1.06 * float(found)


def test_weights_do_not_run_away_at_a_large_radius():
    """A constant in all log-weights changes nothing, so nothing else holds it."""
    start, construct = (make_coreset("gram_schmidt_walk", model="free", refinement=r) for r in ("none", "minimax"))
    for seed in range(12):
        cache = make_cache("sphere", n=11, d=3, seed=seed)
        for rho in (50.0, 400.0):
            found = construct(cache, 5, rho, seed)
            assert float(found.log_weights.abs().max()) < 1e4
            before, after = (float(worst_query(cache, c, rho).error) for c in (start(cache, 5, rho, seed), found))
            assert after <= 1.1 * before  # its bank may pass by a narrow hill
