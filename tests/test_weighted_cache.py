"""A cache whose tokens stand for many: the tilt, the ascent and every ceiling, against repeated tokens and oracles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from agreement import assert_agree
from attention_coresets import Cache, Coreset, WeightedCache, attend, attention_error, tilt, worst_query
from attention_coresets.adversary import CERTIFICATES, ascend, branch_and_bound, climb
from attention_coresets.adversary.difference import differences
from attention_coresets.adversary.gradient import error_and_gradient, rooms
from attention_coresets.adversary.sides import two_sides
from attention_coresets.compiled import backend
from attention_coresets.coresets import CORESETS, make_coreset
from attention_coresets.coresets.arms import ARMS
from attention_coresets.coresets.kernel.law import balancing_gram, capped_marginals, law
from attention_coresets.coresets.kernel.refit import kernel_weights, refit_log_weights
from attention_coresets.coresets.kernel.unit_kernel import unit_kernel
from tables import generators

BALANCED = ["gram_schmidt_walk", "self_balancing_walk", "kernel_halving", "greedy", "paired_coin", "tilted_draws"]
WEIGHTED = [*BALANCED, "herding", "two_stage"]
MASKED = ["walk_tilted", "halving_unweighted", "walk_unweighted_kernel_swaps", "herding_tilted", "minimax_free"]


def weighted_cache(rng, heads, n, d, dv, spread=2.0):
    keys, values = (torch.from_numpy(rng.standard_normal((*heads, n, k))) for k in (d, dv))
    return WeightedCache(keys, values, torch.from_numpy(spread * rng.standard_normal((*heads, n))) + 7.0)


def random_coreset(rng, heads, n, m):
    indices = [np.sort(rng.choice(n, m, replace=False)) for _ in range(math.prod(heads))]
    weights = torch.from_numpy(2 * rng.standard_normal((*heads, m)))
    return Coreset(torch.from_numpy(np.array(indices)).reshape(*heads, m), weights)


def repeated(cache, times, coreset):
    """Every token of one head as often as it counts, and the coreset that keeps all copies of what `coreset` keeps."""
    token = torch.arange(cache.n).repeat_interleave(times)
    kept = torch.isin(token, coreset.indices).nonzero().squeeze(-1)
    place = torch.searchsorted(coreset.indices, token[kept])
    weights = coreset.log_weights[place] - times[token[kept]].double().log()
    return Cache(cache.keys[token], cache.values[token]), Coreset(kept, weights), token


def queries_in_ball(rng, count, d, rho):
    q = rng.standard_normal((count, d))
    return torch.from_numpy(q * rho * (rng.random((count, 1)) ** (1 / d)) / np.linalg.norm(q, axis=1, keepdims=True))


def test_heads_slices_and_dtypes_keep_the_weights(rng):
    cache = weighted_cache(rng, (2, 3), 5, 2, 2)
    assert torch.equal(cache[1].log_weights, cache.log_weights[1])
    assert torch.equal(cache[1, 2].keys, cache.keys[1, 2])
    small = cache.to(torch.float32)
    assert (small.keys.dtype, small.log_weights.dtype) == (torch.float32, torch.float64)
    assert torch.equal(small.log_weights, cache.log_weights)
    assert small.to(torch.float64).keys.dtype == torch.float64
    assert torch.equal(cache.flat().log_weights, cache.log_weights.reshape(6, 5))


@pytest.mark.parametrize("shift", [0.0, 500.0])
def test_the_error_has_the_log_weights_on_the_full_side(rng, shift):
    cache, queries = weighted_cache(rng, (), 9, 3, 2), torch.from_numpy(rng.standard_normal((4, 3)))
    coreset = random_coreset(rng, (), 9, 4)
    moved = WeightedCache(cache.keys, cache.values, cache.log_weights + shift)
    arrays = [x.numpy() for x in (cache.keys, cache.values)]
    kept = coreset.indices.numpy()
    for q, found in zip(queries.numpy(), attention_error(queries, moved, coreset), strict=True):
        full = oracles.attention(q, *arrays, cache.log_weights.numpy())
        part = oracles.attention(q, *(x[kept] for x in arrays), coreset.log_weights.numpy())
        assert found.item() == pytest.approx(np.linalg.norm(full - part), abs=1e-12)


@settings(max_examples=25)
@given(
    n=st.integers(1, 12),
    d=st.integers(1, 4),
    rho=st.floats(0.05, 30.0),
    spread=st.floats(0.0, 60.0),
    seed=st.integers(0, 10**6),
)
def test_the_tilt_lemma_with_weights(n, d, rho, spread, seed):
    """softmax_i(q) <= e^{rho sigma} p*_i, at random queries and at those that point away from the centre at a token."""
    rng = np.random.default_rng(seed)
    cache = weighted_cache(rng, (), n, d, 1, spread)
    found = tilt(cache.keys, rho, cache.log_weights)
    apart = cache.keys - found.center
    aimed = rho * apart / apart.norm(dim=-1, keepdim=True).clamp_min(1e-300)
    queries = torch.cat([aimed, -aimed, queries_in_ball(rng, 50, d, rho)])
    log_share = (queries @ cache.keys.T + cache.log_weights).log_softmax(-1)
    assert (log_share <= rho * found.sigma + found.log_p + found.gap + 1e-8).all()
    assert found.p.sum().item() == pytest.approx(1)


@settings(max_examples=5)
@given(
    n=st.integers(1, 7), d=st.integers(1, 3), dv=st.integers(1, 3), rho=st.floats(0.1, 2.0), seed=st.integers(0, 10**6)
)
def test_a_token_of_weight_w_is_w_tokens(n, d, dv, rho, seed):
    """The tilt, the errors, every ceiling and the worst query."""
    rng = np.random.default_rng(seed)
    keys, values = (torch.from_numpy(rng.uniform(-1, 1, (n, k))) for k in (d, dv))
    times = torch.from_numpy(rng.integers(1, 6, n))
    cache = WeightedCache(keys, values, times.double().log() - 3.0)
    coreset = random_coreset(rng, (), n, int(rng.integers(1, n + 1)))
    plain, core, token = repeated(cache, times, coreset)
    one, many = tilt(keys, rho, times.double().log()), tilt(plain.keys, rho)
    torch.testing.assert_close(one.p, torch.zeros_like(one.p).index_add(0, token, many.p), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(one.sigma, many.sigma, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(one.entropy, many.entropy, rtol=1e-5, atol=1e-7)
    queries = queries_in_ball(rng, 20, d, rho)
    torch.testing.assert_close(attention_error(queries, cache, coreset), attention_error(queries, plain, core))
    for certificate in CERTIFICATES.values():
        if certificate is not CERTIFICATES["values"]:  # it asks for the mean of the values
            found, expected = certificate(cache, coreset, rho), certificate(plain, core, rho)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    if d > 2:
        return  # the boxes of repeated tokens take long
    found, expected = (branch_and_bound(*pair, rho, gap=1e-2) for pair in ((cache, coreset), (plain, core)))
    assert found.upper >= expected.lower - 1e-12
    assert expected.upper >= found.lower - 1e-12
    torch.testing.assert_close(found.upper, expected.upper, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("n", "m", "d", "dv", "rho", "spread"),
    [(2, 1, 1, 1, 1.0, 1.0), (6, 3, 2, 1, 3.0, 4.0), (20, 5, 4, 3, 2.0, 1.0), (12, 11, 3, 3, 6.0, 30.0)],
)
def test_no_ceiling_is_below_the_ascent(n, m, d, dv, rho, spread):
    """40 heads a case, some with nearly all of the weight on one token."""
    rng, heads = np.random.default_rng(n), (40,)
    cache, coreset = weighted_cache(rng, heads, n, d, dv, spread), random_coreset(rng, heads, n, m)
    worst = worst_query(cache, coreset, rho, restarts=16, steps=30)
    at_query = attention_error(worst.query.unsqueeze(-2), cache, coreset).squeeze(-1)
    torch.testing.assert_close(worst.error, at_query, rtol=1e-9, atol=1e-12)
    for name, certificate in CERTIFICATES.items():
        assert (certificate(cache, coreset, rho) >= worst.error).all(), name


@settings(max_examples=6)
@given(
    n=st.integers(2, 10),
    d=st.integers(1, 3),
    dv=st.integers(1, 3),
    rho=st.floats(0.1, 4.0),
    spread=st.floats(0.0, 5.0),
    seed=st.integers(0, 10**6),
)
def test_both_sides_agree_on_random_weighted_caches(n, d, dv, rho, spread, seed):
    """Random queries and the ascent are below branch and bound's ceiling, within the gap, and every certificate."""
    rng, gap = np.random.default_rng(seed), 1e-3
    keys, values = (rng.standard_normal((n, k)) for k in (d, dv))
    keys = keys * rng.uniform(0, 1, (n, 1)) / np.linalg.norm(keys, axis=1, keepdims=True)
    cache = WeightedCache(*(torch.from_numpy(x) for x in (keys, values, spread * rng.standard_normal(n))))
    coreset = random_coreset(rng, (), n, int(rng.integers(1, n + 1)))
    worst = worst_query(cache, coreset, rho, certify=True, gap=gap)
    grid = attention_error(queries_in_ball(rng, 500, d, rho), cache, coreset).max()
    found = worst.enclosure
    assert found.upper - found.lower <= gap
    assert found.upper >= grid
    assert found.upper >= worst.error >= found.lower - gap
    assert all(ceiling >= max(found.lower, grid) for ceiling in worst.ceilings.values())
    at_query = attention_error(found.query[None], cache, coreset)[0]
    torch.testing.assert_close(at_query, found.lower, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("law", [0, 1, 2])
@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_the_quotient_and_its_floor(law, spread, rng):
    """The difference of the attentions is the quotient, and the floor is under its denominator, about each law."""
    rho, n = 2.0, 30
    cache, coreset = weighted_cache(rng, (), n, 3, 2, spread), random_coreset(rng, (), n, 8)
    found = list(differences(cache, coreset, rho))[law]
    q = queries_in_ball(rng, 400, 3, rho)
    ours = attend(q, *cache.take(coreset.indices), coreset.log_weights)
    output = ours - found.p[0] @ cache.values
    e = (q @ found.x[0].T).exp()
    z = e @ found.weights[0]
    quotient = ((e * found.c[0]) @ found.u[0] - output * (e @ found.c[0]).unsqueeze(-1)) / z.unsqueeze(-1)
    whole = attend(q, cache.keys, cache.values, cache.log_weights)
    torch.testing.assert_close(quotient, whole - ours, rtol=1e-8, atol=1e-9)
    assert found.weights.sum().item() == pytest.approx(n)
    edges = torch.linspace(0, rho, 9, dtype=torch.float64)
    floor = found.log_floor(edges[:-1], edges[1:])[0]
    shell = torch.searchsorted(edges, q.norm(dim=-1)).clamp(1, 8) - 1
    assert ((z / n).log() >= floor[shell] - 1e-10).all()


@given(st.integers(1, 10), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
def test_the_gradient_with_weights_on_both_sides(n, d, dv, seed):
    rng = np.random.default_rng(seed)
    cache, coreset = weighted_cache(rng, (2,), n, d, dv), random_coreset(rng, (2,), n, int(rng.integers(1, n + 1)))
    query = torch.from_numpy(rng.standard_normal((2, 3, d))).requires_grad_()
    keys, values = cache.take(coreset.indices)
    full = attend(query, cache.keys, cache.values, cache.log_weights)
    gap = full - attend(query, keys, values, coreset.log_weights)
    (expected,) = torch.autograd.grad(0.5 * gap.square().sum(), query)
    sides = two_sides(cache, coreset, rho=4.0)
    error, slope = error_and_gradient(query.detach(), sides, rooms(query.detach(), sides, 2))
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(error, gap.norm(dim=-1).detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rho", [2.0, 40.0])
def test_compiled_and_torch_climbs_agree(rho, rng):
    """Also where logits are far from 0 (rho = 40)."""
    cache, coreset = weighted_cache(rng, (3,), 40, 5, 4), random_coreset(rng, (3,), 40, 9)
    first = torch.from_numpy(rng.standard_normal((3, 6, 5)))
    _, compiled = climb(cache, coreset, rho, first, 5)
    with backend("torch"):
        slow = climb(cache, coreset, rho, first, 5)[1]
    torch.testing.assert_close(slow, compiled, rtol=1e-6, atol=1e-9)


@pytest.mark.rounding
def test_equal_log_weights_change_nothing(rng):
    cache = weighted_cache(rng, (2,), 30, 6, 4, 0.0)
    coreset = random_coreset(rng, (2,), 30, 9)
    plain = Cache(cache.keys, cache.values)
    found, expected = (worst_query(c, coreset, 2.0, certify=True) for c in (cache, plain))
    torch.testing.assert_close(found.error, expected.error, rtol=1e-5, atol=0)
    for name, ceiling in found.ceilings.items():
        torch.testing.assert_close(ceiling, expected.ceilings[name], rtol=1e-5, atol=1e-9)


@pytest.mark.rounding
def test_heads_float32_and_leading_axes(rng):
    cache, coreset = weighted_cache(rng, (2, 2), 50, 5, 4, 10.0), random_coreset(rng, (2, 2), 50, 9)
    found = ascend(cache, coreset, 3.0)
    alone = ascend(cache[1, 0], coreset[1, 0], 3.0)
    assert alone.error.item() == pytest.approx(found.error[1, 0].item(), rel=1e-6)
    coarse = ascend(cache.to(torch.float32), coreset, 3.0)
    torch.testing.assert_close(coarse.error, found.error, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", WEIGHTED)
def test_balanced_coresets_of_a_weighted_cache_carry_its_weights(name, rng):
    cache = weighted_cache(rng, (2,), 40, 3, 2, 1.0)
    construct = make_coreset(name)
    full = construct(cache, 40, 2.0, generators(0, 1))
    assert attention_error(torch.zeros(2, 1, 3).double(), cache, full).max() < 1e-12
    coreset = construct(cache, 20, 2.0, generators(0, 1))
    lone = Coreset(coreset.indices)
    q = torch.from_numpy(rng.standard_normal((2, 50, 3)))
    assert attention_error(q, cache, coreset).mean() < attention_error(q, cache, lone).mean()


def test_a_construction_says_whether_it_takes_a_weighted_cache():
    """By this a cell hands over a query body's view."""
    assert {name for name, construct in CORESETS.items() if construct.takes_weights} == {*WEIGHTED}


@pytest.mark.parametrize("name", sorted(CORESETS.keys() - {*WEIGHTED}))
def test_constructions_that_know_no_weights_refuse_them(name, rng):
    cache = weighted_cache(rng, (2,), 20, 3, 2)
    for size in (10, 20):
        with pytest.raises(ValueError, match="log-weights"):
            make_coreset(name)(cache, size, 2.0, generators(0, 1))


def test_herding_completes_the_weighted_sum_of_features(rng):
    """Against the same greedy choice by distances of explicit sums, from the dense kernel."""
    cache = weighted_cache(rng, (1,), 30, 3, 2, 1.0)
    found = make_coreset("herding", model="tilted")(cache, 12, 2.0)
    base, measure = cache.log_weights, law(cache.keys, 2.0, "tilted", "auto", cache.log_weights)
    pi = capped_marginals(measure.log_p + base, 12)
    gram = balancing_gram(cache.keys, cache.values, base - pi.log(), measure)[0]  # of g_i = w_i phi_i / pi_i
    certain = (pi[0] >= 1).double()
    order = [int(i) for i in certain.nonzero()]
    for t in range(len(order) + 1, 13):
        share = (t - certain.sum()) / (12 - certain.sum())
        left = certain + share * (pi[0] - certain)
        left[order] -= 1
        tried = left - torch.eye(30, dtype=torch.float64)
        cost = ((tried @ gram) * tried).sum(-1)
        cost[order] = torch.inf
        order.append(int(cost.argmin()))
    assert sorted(order) == found.indices[0].tolist()
    torch.testing.assert_close(found.log_weights[0], (base - pi.log())[0, found.indices[0]], rtol=0, atol=1e-9)


def test_fitted_weights_of_repeated_tokens(rng):
    """The law, and the free model's weights for given tokens, are those of a cache that repeats its tokens."""
    times = torch.from_numpy(rng.integers(1, 6, (1, 12)))
    keys, values = (torch.from_numpy(rng.standard_normal((1, 12, k))) for k in (3, 2))
    token = torch.arange(12).repeat_interleave(times[0])
    base, kept = times.double().log(), torch.tensor([[0, 3, 4, 8, 11]])
    one = unit_kernel(keys, values, law(keys, 2.0, "tilted", "auto", base))
    many = unit_kernel(keys[:, token], values[:, token], law(keys[:, token], 2.0, "tilted", "auto"))
    first = torch.searchsorted(token, kept[0])[None]
    found, expected = kernel_weights(one, kept, base + 5.0), kernel_weights(many, first)
    torch.testing.assert_close(found, expected + 5.0, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("label", [label for label, arm in ARMS.items() if make_coreset(label).takes_weights])
def test_log_weights_are_those_of_the_cache(label, rng):
    """Tokens kept stand for all of the cache's weight: others may join them with weights of their own."""
    keys, values = (torch.from_numpy(rng.standard_normal((1, 96, 3))) / 2 for _ in range(2))
    old = torch.where(torch.arange(96) < 48, math.log(8), 0.0).double()[None]
    queries = queries_in_ball(rng, 40, 3, 1.0)
    found = []
    for shift in (0.0, 300.0):
        cache = WeightedCache(keys, values, old + shift)
        coreset = make_coreset(label)(cache, 24, 1.0, generators(0))
        found.append(Coreset(coreset.indices, coreset.log_weights - shift))
        kept = queries @ cache.take(coreset.indices)[0].mT + coreset.log_weights.unsqueeze(-2)
        whole = queries @ keys.mT + cache.log_weights.unsqueeze(-2)
        mean = (kept.logsumexp(-1) - whole.logsumexp(-1)).exp().mean()
        assert 0.8 < mean < 1.25
        assert 0.98 < mean < 1.02 or make_coreset(label).model != "free"
        if label.startswith("certificate"):  # whose weights sum to the cache's own
            torch.testing.assert_close(found[-1].log_weights.logsumexp(-1), old.logsumexp(-1), rtol=0, atol=1e-9)
    assert_agree(make_coreset(label).agreement, found[1], found[0], WeightedCache(keys, values, old), 1.0)


@pytest.mark.parametrize("label", ["walk_tilted", "halving_unweighted", "certificate_free", "minimax_free"])
@pytest.mark.parametrize("low", [-50.0, -1e30, torch.finfo(torch.float64).min])
def test_tokens_may_be_masked_by_log_weights(label, low, rng):
    """Half of the tokens weigh nothing; fewer and more are asked for than the other half."""
    keys, values = (torch.from_numpy(rng.standard_normal((60, 3))) / 2 for _ in range(2))
    weights = torch.zeros(60).double()
    weights[30:] = low
    cache = WeightedCache(keys, values, weights)
    for size in (8, 40):
        coreset = make_coreset(label)(cache, size, 1.0, generators(0)[0])
        if not label.endswith("free"):  # whose fitted weights may revive a token
            assert int((coreset.indices < 30).sum()) == min(size, 30)
        worst = worst_query(cache, coreset, 1.0, certify=True)
        assert worst.error <= worst.certificate
        assert worst.error < (1e-6 if size == 40 else 1)


@pytest.mark.parametrize("label", MASKED)
def test_masked_tokens_are_as_if_they_were_not_there(label, rng):
    """Far keys and large values, masked: the first head has none, the third keeps fewer than are asked for."""
    n, size, rho = 40, 12, 2.0
    keys, values, weights = (torch.from_numpy(rng.standard_normal(x)) for x in ((3, n, 3), (3, n, 2), (3, n)))
    masked = torch.from_numpy(rng.random((3, n)).argsort(-1)) >= torch.tensor([[n], [25], [7]])
    keys[masked], values[masked], weights[masked] = 1000 + 100 * keys[masked], 50.0, -1e30
    cache, construct = WeightedCache(keys, values, weights), make_coreset(label)
    found = construct(cache, size, rho, generators(0, 1, 2))
    for head in range(3):
        live = (~masked[head]).nonzero()[:, 0]
        kept = WeightedCache(keys[head, live], values[head, live], weights[head, live])
        alone = construct(kept, size, rho, generators(head)[0])
        held = torch.isin(found.indices[head], live)
        assert torch.equal(found.indices[head][held], live[alone.indices])
        torch.testing.assert_close(found.log_weights[head][held], alone.log_weights, rtol=0, atol=1e-9)
        assert int((~held).sum()) == (size - len(live) if head == 2 else 0)
        assert (found.log_weights[head][~held] == -1e30).all()


@pytest.mark.parametrize("far", [1.0, 1000.0])
def test_ceilings_do_not_see_masked_tokens(far, rng):
    """Nor where the coreset has one too, masked; a coreset that counts it is judged by its key and value."""
    cache, coreset = weighted_cache(rng, (), 40, 3, 2, 1.0), random_coreset(rng, (), 30, 12)
    keys, values = cache.keys / 4, cache.values
    keys[30:], values[30:], cache.log_weights[30:] = far, 50.0, -1e30
    masked, live = WeightedCache(keys, values, cache.log_weights), slice(30)
    more = Coreset(
        torch.cat([coreset.indices, torch.tensor([33])]), torch.cat([coreset.log_weights, torch.tensor([-1e30])])
    )
    expected = worst_query(masked[live], coreset, 1.0, certify=True)
    for kept in (coreset, more):
        found = worst_query(masked, kept, 1.0, certify=True)
        torch.testing.assert_close(found.error, expected.error, rtol=1e-5, atol=0)
        for name, ceiling in found.ceilings.items():
            assert expected.ceilings[name] * 0.5 < ceiling < 3 * expected.ceilings[name], name
    counted = Coreset(more.indices, torch.cat([coreset.log_weights, coreset.log_weights.amax(0, keepdim=True)]))
    found = worst_query(masked, counted, 1.0, certify=True)
    queries = queries_in_ball(rng, 300, 3, 1.0)
    assert attention_error(queries, masked, counted).max() <= found.certificate
    assert found.error > 5


@pytest.mark.parametrize(("far", "rho"), [(1000.0, 10.0), (100.0, 100.0), (30.0, 600.0)])
@pytest.mark.parametrize("name", ["kernel_halving", "tilted_draws", "herding"])
def test_no_query_revives_a_masked_token(name, far, rho):
    """Its logit would be 10^4 to 2 * 10^4 above others: without its mask it would be all of the output."""
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(60, 2, generator=generator).double() for _ in range(2))
    keys, values = (x / x.norm(dim=-1, keepdim=True) for x in (keys, values))
    keys[-1], values[-1] = torch.tensor([far, 0.0]), torch.tensor([50.0, 0.0])
    cache = WeightedCache(keys, values, torch.where(torch.arange(60) == 59, -1e30, 0.0).double())
    coreset = make_coreset(name)(cache, 20, rho, 0)
    assert attention_error(torch.tensor([[rho, 0.0]]).double(), cache, coreset) <= 2


def test_a_token_of_tiny_weight_that_a_query_sees_is_not_masked():
    """e^-20000, and a logit of up to 30000: it keeps its weight, which half of the outputs turn on."""
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(40, 2, generator=generator).double() for _ in range(2))
    keys /= keys.norm(dim=-1, keepdim=True)
    keys[-1] = torch.tensor([3000.0, 0.0])
    cache = WeightedCache(keys, values, torch.where(torch.arange(40) == 39, -2e4, 0.0).double())
    for name in ("gram_schmidt_walk", "tilted_draws"):
        coreset = make_coreset(name)(cache, 20, 10.0, 0)
        assert coreset.indices[-1] == 39
        assert float(coreset.log_weights[-1]) == pytest.approx(-2e4, abs=1)


@pytest.mark.parametrize("spread", [3.0])
def test_refinements_of_a_weighted_cache(spread, rng):
    """Kernel swaps and minimax keep the model's weights, b - log pi; minimax errs less than what it starts from."""
    cache, rho, size = weighted_cache(rng, (1,), 80, 3, 3, spread), 2.0, 16
    marginals = capped_marginals(tilt(cache.keys, rho, cache.log_weights).log_p, size)
    wanted = cache.log_weights - marginals.log()
    error = {}
    for model in ("tilted", "unweighted", "free"):
        for refinement in ("none", "kernel_swaps", "minimax"):
            construct = make_coreset("gram_schmidt_walk", model=model, refinement=refinement)
            coreset = construct(cache, size, rho, generators(1))
            assert (coreset.size, coreset.log_weights.isfinite().all()) == (size, True)
            error[model, refinement] = worst_query(cache, coreset, rho).error
            if model == "tilted":
                torch.testing.assert_close(
                    coreset.log_weights, wanted.gather(-1, coreset.indices), rtol=1e-9, atol=1e-9
                )
        assert (error[model, "minimax"] < 0.95 * error[model, "none"]).all()
    assert (error["free", "minimax"] < error["tilted", "minimax"]).all()


@pytest.mark.rounding
def test_equal_log_weights_refine_alike(rng):
    plain = Cache(*(torch.from_numpy(rng.standard_normal((1, 30, 3))) for _ in range(2)))
    cache = WeightedCache(plain.keys, plain.values, torch.full((1, 30), 2.5, dtype=torch.float64))
    construct = make_coreset("greedy", model="free", refinement="minimax")
    found, expected = (construct(c, 8, 1.0, generators(3)) for c in (cache, plain))
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.log_weights, expected.log_weights + 2.5, rtol=0, atol=1e-2)
    assert_agree(construct.agreement, found, expected, cache, 1.0)


def test_refitted_weights_refuse_a_weighted_cache(rng):
    with pytest.raises(ValueError, match="log-weights"):
        refit_log_weights(weighted_cache(rng, (), 9, 3, 2), Coreset(torch.arange(3)), 1.0)


@pytest.mark.parametrize(("log_weight", "rho"), [(-310.0, 1000.0), (-400.0, 2000.0), (-800.0, 3000.0)])
def test_a_token_of_little_weight_may_carry_everything(log_weight, rho):
    """Five equal keys are kept; the sixth weighs nothing near 0 and everything at the query that points at it."""
    keys, values = torch.zeros(6, 2).double(), torch.zeros(6, 1).double()
    keys[5, 0], values[5] = 1.0, 1.0
    cache = WeightedCache(keys, values, torch.tensor([0.0, 0, 0, 0, 0, log_weight]))
    coreset = Coreset(torch.arange(5), torch.zeros(5))
    for name, certificate in CERTIFICATES.items():
        assert float(certificate(cache, coreset, rho)) >= 0.99, name


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_log_weights_are_not_rounded_before_they_are_compared(shift, rng):
    """Keys of 32 bits: the coreset has the weights rounded to these, and neither bound misses what that does."""
    keys, values = (torch.from_numpy(rng.standard_normal((128, 4))).float() / 2 for _ in range(2))
    weights = torch.arange(128) / 2 + torch.from_numpy(0.1 * rng.random(128)) + shift
    cache, coreset = WeightedCache(keys, values, weights), Coreset(torch.arange(128), weights.float())
    wide = WeightedCache(keys.double(), values.double(), weights)
    error = float(attention_error(torch.zeros(1, 4).double(), wide, coreset))
    found = worst_query(cache, coreset, 1.0, certify=True)
    assert error > 1e-9
    assert found.certificate >= found.error
    assert found.error >= 0.99 * error - 1e-7  # that of 32-bit logits


def test_a_constant_in_log_weights_changes_no_error(rng):
    cache = Cache(*(torch.from_numpy(rng.standard_normal((12, 3))).float() for _ in range(2)))
    weights, queries = torch.from_numpy(rng.standard_normal(5)), torch.from_numpy(rng.standard_normal((4, 3))).float()
    plain = attention_error(queries, cache, Coreset(torch.arange(5), weights))
    for shift in (1e6, 1e7, 1e12):
        found = attention_error(queries, cache, Coreset(torch.arange(5), weights + shift))
        torch.testing.assert_close(found, plain, rtol=1e-4 * max(1, shift / 1e11), atol=1e-6)
