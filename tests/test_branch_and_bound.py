"""Branch and bound: no query of a box exceeds its ceiling, no query of the ball the upper bound, and the gap closes."""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from attention_coresets import Cache, Coreset, attention_error, make_cache, make_coreset, worst_query
from attention_coresets.adversary import boxes
from attention_coresets.adversary.boxes import _curvature, _moments, ceilings
from attention_coresets.adversary.enclosure import branch_and_bound
from attention_coresets.adversary.problem import Problem
from attention_coresets.adversary.search import contracted
from tables import FAMILIES, generators, small_cache

SHAPES = [(1, 1, 1, 1), (2, 1, 2, 3), (5, 2, 1, 2), (8, 3, 2, 1), (10, 9, 3, 5), (12, 4, 4, 2)]  # n, m, d, dv


def random_case(rng, n, m, d, dv, *, unit=False, weights=0.0, offset=0.0):
    """A cache and a coreset of it; `weights` is the scale of the log-weights, 0 for none."""
    keys, values = rng.standard_normal((n, d)), rng.standard_normal((n, dv))
    if unit:
        keys, values = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (keys, values))
    kept = torch.from_numpy(np.sort(rng.choice(n, m, replace=False)))
    log_weights = torch.from_numpy(weights * rng.standard_normal(m)) if weights else None
    return Cache(torch.from_numpy(keys + offset), torch.from_numpy(values + offset)), Coreset(kept, log_weights)


def numpy_errors(queries, cache, coreset):
    """|Attn - Attn_coreset| at queries ``[b, d]``, written apart from the package."""
    keys, values, kept = (x.numpy() for x in (cache.keys, cache.values, coreset.indices))
    weights = 0.0 if coreset.log_weights is None else coreset.log_weights.numpy()
    full = oracles.softmax(queries @ keys.T) @ values
    return np.linalg.norm(full - oracles.softmax(queries @ keys[kept].T + weights) @ values[kept], axis=-1)


def queries_of(low, high, rho, rng, count=3000):
    """Queries of one box and the ball: its corners, points of it, and points of it on the sphere."""
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
    points = np.concatenate([corners, rng.uniform(low, high, (count, len(low)))])
    onto = points * (rho / np.linalg.norm(points, axis=-1, keepdims=True).clip(1e-300))
    points = np.concatenate([points, onto])
    in_box = ((points >= low) & (points <= high)).all(-1)
    return points[in_box & (np.linalg.norm(points, axis=-1) <= rho * (1 + 1e-15))]


def random_boxes(rng, d, rho, count):
    """Boxes of all sizes about points of the ball, half of them about points of the sphere."""
    center = rng.standard_normal((count, d))
    radius = np.where(rng.random((count, 1)) < 0.5, 1.0, rng.random((count, 1)))
    center *= rho * radius / np.linalg.norm(center, axis=-1, keepdims=True)
    half = rho * 10.0 ** rng.uniform(-3, 0.2, (count, 1)) * rng.uniform(0.05, 1, (count, d))
    center = center + half * rng.uniform(-1, 1, (count, d))
    return center - half, center + half


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("rho", "kind"),
    [
        (0.3, {}),
        (2.0, {"unit": True}),
        (2.0, {"unit": True, "weights": 1.0}),
        (1.0, {"weights": 30.0, "offset": 5.0}),
        (6.0, {"weights": 2.0}),
    ],
)
def test_no_query_of_a_box_exceeds_its_ceiling(shape, rho, kind, rng):
    for _ in range(4):
        cache, coreset = random_case(rng, *shape, **kind)
        problem = Problem.of(cache, coreset, rho)
        low, high = (torch.from_numpy(x) for x in random_boxes(rng, shape[2], rho, 12))
        point, error, ceiling = ceilings(problem, low, high)
        shrunk = contracted(low, high, rho)
        _, _, shrunk_ceiling = ceilings(problem, *shrunk[:2])
        rotation = problem.rotation.numpy()
        np.testing.assert_allclose(numpy_errors(point.numpy() @ rotation.T, cache, coreset), error, atol=1e-11)
        assert (point.norm(dim=-1) <= rho * (1 + 1e-14)).all()
        for box in range(len(low)):
            queries = queries_of(low[box].numpy(), high[box].numpy(), rho, rng)
            if len(queries) == 0:
                continue
            worst = numpy_errors(queries @ rotation.T, cache, coreset).max()
            assert shrunk[2][box]
            assert worst <= ceiling[box] + 1e-12
            assert worst <= shrunk_ceiling[box] + 1e-12


def parts_of_the_rest(problem, c, s):
    """What boxes.py bounds, at steps s ``[b, d]`` from c, token by token: |M - D - J s - T[s,s]/2|, |J's|,
    |A'(c+s) - A' - J's|, |<dk,s>|, |sum (P - P')(e^a - 1 - a)| and the part of the first that is sum [..] psi_3.
    """
    keys, values, kept = (x.numpy() for x in (problem.keys, problem.values, problem.kept))
    p, other = oracles.softmax(keys @ c), np.zeros(len(keys))
    other[kept] = oracles.softmax(keys[kept] @ c + problem.log_weights.numpy())
    a_full, a_core = p @ values, other @ values
    signed = p[:, None] * (values - a_full) - other[:, None] * (values - a_core)
    a = s @ (keys - p @ keys).T  # [b, n]
    moved = oracles.softmax((c + s) @ keys[kept].T + problem.log_weights.numpy()) @ values[kept] - a_core
    slope = s @ np.einsum("i,il,iv->lv", other, keys, values - a_core)
    dk = s @ keys.T @ (p - other)
    m = np.exp(a) @ signed - moved * (np.exp(a) @ (p - other))[:, None]
    whole = m - (a + a**2 / 2) @ signed + dk[:, None] * slope
    third = (np.exp(a) - 1 - a - a**2 / 2) @ signed
    vectors = [np.linalg.norm(x, axis=-1).max() for x in (whole, slope, moved - slope, third)]
    return *vectors[:3], np.abs(dk).max(), np.abs((np.exp(a) - 1 - a) @ (p - other)).max(), vectors[3]


@pytest.mark.parametrize(("d", "dv", "cases"), [(1, 1, 400), (2, 2, 60), (4, 3, 30)])
def test_every_part_of_the_rest_is_covered(d, dv, cases, rng, monkeypatch):
    """A few tokens on a line come near each bound; boxes with their centre outside the ball too."""
    seen = {}
    for name in ("_rest", "_alphas", "_betas"):
        inner = getattr(boxes, name)
        monkeypatch.setattr(
            boxes, name, lambda *a, name=name, inner=inner: seen.update({name: inner(*a)}) or seen[name]
        )
    for _ in range(cases):
        n = int(rng.integers(2, 5))
        cache, coreset = random_case(rng, n, int(rng.integers(1, n + 1)), d, dv, weights=2.0)
        problem = Problem.of(cache, coreset, 1.0)
        center, half = 1.5 * rng.standard_normal((1, d)) / math.sqrt(d), 10.0 ** rng.uniform(-1, 0.3)
        low, high = center - half, center + half
        point, _, _ = ceilings(problem, torch.from_numpy(low), torch.from_numpy(high))
        ends = np.array(list(itertools.product(*zip(low[0], high[0], strict=True))))
        steps = np.concatenate([ends, rng.uniform(low, high, (40, d))]) - point.numpy()
        whole, *pieces, third = parts_of_the_rest(problem, point[0].numpy(), steps)
        (alpha_1, alpha_2), (beta_1, beta_2) = seen["_alphas"], seen["_betas"]
        for piece, bound in zip(pieces, (alpha_1, alpha_2, beta_1, beta_2), strict=True):
            assert piece <= bound * (1 + 1e-9) + 1e-12
        products = alpha_2 * (beta_1 + beta_2) + alpha_1 * beta_2
        assert max(whole, third + products.item()) <= seen["_rest"].item() * (1 + 1e-9) + 1e-12


def test_a_weight_that_underflows_is_not_taken_for_zero():
    """exp(-708) may be flushed to 0 at the centre of a box whose other end gives that token half the weight."""
    cache = Cache(torch.tensor([[0.0], [1417.0]]).double(), torch.tensor([[-1.0], [1.0]]).double())
    problem = Problem.of(cache, Coreset(torch.tensor([0])), 1.0)
    flushed = torch.set_flush_denormal(True)
    try:
        ceiling = ceilings(problem, *torch.tensor([[[-1.0]], [[0.0]]]).double())[2]
    finally:
        torch.set_flush_denormal(False)
    assert ceiling >= 1.0, f"flush to zero was {'on' if flushed else 'not supported'}"


def test_slope_and_curvature_are_the_derivatives_of_the_difference(rng):
    cache, coreset = random_case(rng, 9, 4, 3, 2, weights=1.0)
    problem = Problem.of(cache, coreset, 2.0)

    def difference(q):
        logits = problem.keys @ q
        kept = (logits[problem.kept] + problem.log_weights).softmax(0) @ problem.values[problem.kept]
        return logits.softmax(0) @ problem.values - kept

    q = torch.from_numpy(rng.standard_normal(3))
    logits = problem.keys @ q
    weights = logits.softmax(0), (logits[problem.kept] + problem.log_weights).softmax(0)
    raw = [
        (p @ f).reshape(1, 13, 3)
        for p, f in zip(weights, (problem.features, problem.features[problem.kept]), strict=True)
    ]
    full, core = (_moments(r, raw[0][:, 1:4, -1]) for r in raw)
    slope = torch.autograd.functional.jacobian(difference, q).T
    torch.testing.assert_close((full.slope - core.slope)[0], slope, rtol=0, atol=1e-12)
    for v in range(2):
        second = torch.autograd.functional.hessian(lambda x, v=v: difference(x)[v], q)
        torch.testing.assert_close(_curvature(full, core)[0, :, :, v], second, rtol=0, atol=1e-12)


def test_ceilings_are_of_second_order_also_at_the_sphere():
    """At a maximum on the sphere, halving the box quarters what the ceiling lies above it: without the cut, halves."""
    cache = small_cache("sphere", n=40, d=3)
    coreset = make_coreset("uniform")(cache, 12, 2.0, *generators(1))
    problem = Problem.of(cache, coreset, 2.0)
    worst = worst_query(cache, coreset, 2.0)
    assert worst.query.norm() > 2.0 - 1e-9  # on the sphere
    center = (worst.query @ problem.rotation).unsqueeze(0)
    above = [ceilings(problem, center - h, center + h)[2].item() - worst.error.item() for h in (0.1, 0.05, 0.025)]
    assert above[0] / above[1] > 3.5
    assert above[1] / above[2] > 3.5


def test_contraction_loses_no_query_and_drops_only_boxes_outside(rng):
    for d in (1, 2, 4):
        low, high = random_boxes(rng, d, 1.5, 60)
        tight_low, tight_high, meets = (x.numpy() for x in contracted(*map(torch.from_numpy, (low, high)), 1.5))
        assert not contracted(torch.full((1, d), 1.6).double(), torch.full((1, d), 1.7).double(), 1.5)[2].any()
        for box in range(60):
            queries = queries_of(low[box], high[box], 1.5, rng)
            assert meets[box] or len(queries) == 0
            assert ((queries >= tight_low[box] - 1e-14) & (queries <= tight_high[box] + 1e-14)).all()


def check_enclosure(found, cache, coreset, rho, gap):
    """What holds for every enclosure of one head that closed."""
    assert found.lower.dtype == found.upper.dtype == found.query.dtype == torch.float64
    assert found.lower <= found.upper <= found.lower + gap
    assert torch.equal(found.gap, found.upper - found.lower)
    assert found.query.norm() <= rho * (1 + 1e-12)
    there = numpy_errors(found.query.numpy()[None], cache, coreset)[0]
    assert there == pytest.approx(found.lower.item(), abs=1e-10)


def grid(d, rho):
    """A dense grid of the ball in one or two dimensions."""
    t = np.linspace(-rho, rho, 4001 if d == 1 else 201)
    q = np.stack(np.meshgrid(*[t] * d), axis=-1).reshape(-1, d)
    angle = np.linspace(0, 2 * math.pi, 2000)
    sphere = rho * np.stack([np.cos(angle), np.sin(angle)], axis=-1) if d == 2 else q[:0]
    return np.concatenate([q[np.linalg.norm(q, axis=-1) <= rho], sphere])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rho", [0.5, 3.0])
def test_two_dimensions_against_a_dense_grid(family, rho):
    cache = small_cache(family, d=2)
    for name in ("uniform", "tilted_draws"):
        coreset = make_coreset(name)(cache, 12, 1.0, *generators(3))
        found = branch_and_bound(cache, coreset, rho, gap=1e-3)
        check_enclosure(found, cache, coreset, rho, 1e-3)
        on_grid = numpy_errors(grid(2, rho), cache, coreset).max()
        assert on_grid <= found.upper.item() + 1e-12
        assert found.lower.item() <= on_grid + 1e-2 * rho  # slopes are at most 1 here, the step is rho / 100


@given(st.integers(2, 12), st.integers(1, 3), st.sampled_from([0.0, 1.0, 40.0]), st.integers(0, 10**6))
def test_one_dimension_against_a_dense_grid(n, dv, weights, seed):
    rng = np.random.default_rng(seed)
    cache, coreset = random_case(rng, n, int(rng.integers(1, n)), 1, dv, weights=weights)
    found = branch_and_bound(cache, coreset, 4.0, gap=1e-5)
    check_enclosure(found, cache, coreset, 4.0, 1e-5)
    on_grid = numpy_errors(grid(1, 4.0), cache, coreset).max()
    assert on_grid - 1e-12 <= found.upper.item() <= on_grid + 1e-3


@given(
    st.integers(1, 14),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([0.0, 1.0, 300.0]),
    st.booleans(),
    st.floats(0.05, 3),
    st.integers(0, 10**6),
)
def test_random_small_caches_against_the_ascent(n, d, dv, weights, unit, rho, seed):
    rng = np.random.default_rng(seed)
    cache, coreset = random_case(rng, n, int(rng.integers(1, n + 1)), d, dv, weights=weights, unit=unit)
    found = branch_and_bound(cache, coreset, rho, gap=0.02)
    check_enclosure(found, cache, coreset, rho, 0.02)
    ascent = worst_query(cache, coreset, rho, restarts=16).error
    assert found.lower - 0.02 <= ascent <= found.upper + 1e-12


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("d", "gap"), [(3, 1e-3), (4, 5e-3)])
def test_more_dimensions_against_the_ascent(family, d, gap):
    cache = small_cache(family, d=d)
    for name in ("uniform", "gram_schmidt_walk"):
        coreset = make_coreset(name)(cache, 16, 1.0, *generators(0))
        found = branch_and_bound(cache, coreset, 2.0, gap=gap)
        check_enclosure(found, cache, coreset, 2.0, gap)
        ascent = worst_query(cache, coreset, 2.0).error
        assert found.lower - gap <= ascent <= found.upper + 1e-12


@pytest.mark.parametrize("d", [1, 2, 3])
def test_it_needs_no_ascent_to_find_the_worst_query(d, monkeypatch):
    """Started at the centre of the ball it ends in the same enclosure: the ascent only spares boxes."""
    cache = Cache(*(x[..., -d:] for x in vars(small_cache("clusters", d=3, n=30)).values()))
    coreset = make_coreset("uniform")(cache, 8, 2.0, *generators(2))
    usual = branch_and_bound(cache, coreset, 3.0, gap=1e-4)

    def at_zero(problems):
        zero = torch.zeros(1, problems[0].keys.shape[1], dtype=torch.float64)
        return zero, torch.zeros(1, dtype=torch.float64)

    monkeypatch.setattr("attention_coresets.adversary.enclosure._starts", at_zero)
    alone = branch_and_bound(cache, coreset, 3.0, gap=1e-4)
    check_enclosure(alone, cache, coreset, 3.0, 1e-4)
    assert alone.lower <= usual.upper
    assert usual.lower <= alone.upper


@pytest.mark.parametrize(("plus", "minus"), [(1, 40), (4, 4), (3, 10)])
def test_the_known_error_of_unweighted_antipodal_subsets(plus, minus):
    """Along u the two sides are tanh(t + log-ratio / 2): a problem of one variable, solved on a grid."""
    cache = make_cache("antipodal", n=400, d=3, rho=1.5, values="keys", seed=4)
    u = cache.keys[0]
    groups = [torch.nonzero(sign * (cache.keys @ u) > 0).squeeze(-1) for sign in (1, -1)]
    few, many = sorted(groups, key=len)
    kept = torch.cat([few[:plus], many[:minus]]).sort().values
    found = branch_and_bound(cache, Coreset(kept), 1.5, gap=1e-6)
    t = np.linspace(-1.5, 1.5, 200_001)
    full, subset = (math.log(a / b) / 2 for a, b in ((len(few), len(many)), (plus, minus)))
    exact = np.abs(np.tanh(t + full) - np.tanh(t + subset)).max()
    assert found.lower.item() - 1e-9 <= exact <= found.upper.item() + 1e-9
    assert found.nodes < 2000  # keys on a line: only one axis is ever halved


def test_exact_coresets_and_equal_keys_are_enclosed_at_once():
    cache = small_cache("sphere", d=3)
    for weights in (None, torch.full((cache.n,), 1e9, dtype=torch.float64)):
        found = branch_and_bound(cache, Coreset(torch.arange(cache.n), weights), 3.0)
        assert found.upper < 1e-11
    cache = small_cache("equal_keys", d=4)
    found = branch_and_bound(cache, Coreset(torch.arange(0, cache.n, 3)), 3.0, gap=1e-9)
    check_enclosure(found, cache, Coreset(torch.arange(0, cache.n, 3)), 3.0, 1e-9)
    assert found.nodes == 1


def test_changes_that_move_no_error(rng):
    """Shifts of keys, values and log-weights, an orthogonal map of the keys, keys halved and rho doubled."""
    cache, coreset = random_case(rng, 14, 5, 3, 2, weights=1.0)
    usual = branch_and_bound(cache, coreset, 2.0, gap=1e-4)
    turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((3, 3)))).Q
    same = [
        (Cache(cache.keys + 50.0, cache.values), coreset, 2.0),
        (Cache(cache.keys, cache.values - 20.0), coreset, 2.0),
        (cache, Coreset(coreset.indices, coreset.log_weights + 1000.0), 2.0),
        (Cache(cache.keys @ turn, cache.values), coreset, 2.0),
        (Cache(cache.keys / 2, cache.values), coreset, 4.0),
    ]
    for other, core, rho in same:
        found = branch_and_bound(other, core, rho, gap=1e-4)
        assert abs(found.lower - usual.lower) <= 1e-4
        assert found.lower - 1e-9 <= usual.upper
        assert usual.lower - 1e-9 <= found.upper


@pytest.mark.rounding
def test_a_batch_of_heads_is_its_heads():
    cache = small_cache("cap_outliers", d=3, n=40, heads=4)
    coreset = make_coreset("tilted_draws")(cache, 10, 2.0, generators(0, 1, 2, 3))
    batch = branch_and_bound(cache, coreset, 2.0)
    square = Cache(*(x.reshape(2, 2, *x.shape[1:]) for x in (cache.keys, cache.values)))
    folded = Coreset(coreset.indices.reshape(2, 2, -1), coreset.log_weights.reshape(2, 2, -1))
    shaped = branch_and_bound(square, folded, 2.0)
    assert shaped.nodes.shape == (2, 2)
    torch.testing.assert_close(shaped.query.flatten(0, 1), batch.query, rtol=0, atol=1e-4)  # flat at the worst query
    torch.testing.assert_close(shaped.lower.flatten(), batch.lower, rtol=1e-6, atol=0)
    torch.testing.assert_close(shaped.upper.flatten(), batch.upper, rtol=0, atol=1e-4)
    for h in range(4):
        alone = branch_and_bound(cache[h], coreset[h], 2.0)
        assert alone.lower.shape == ()
        assert alone.lower.item() == pytest.approx(batch.lower[h].item(), rel=1e-6)
        assert alone.upper.item() == pytest.approx(batch.upper[h].item(), abs=1e-4)
        check_enclosure(alone, cache[h], coreset[h], 2.0, 1e-3)


def test_float32_caches_are_enclosed_in_float64():
    cache = small_cache("sphere", d=2, dtype=torch.float32)
    coreset = make_coreset("tilted_draws")(cache, 12, 2.0, *generators(0))
    found = branch_and_bound(cache, coreset, 2.0, gap=1e-6)
    exact = Coreset(coreset.indices, coreset.log_weights.double())
    check_enclosure(found, cache.to(torch.float64), exact, 2.0, 1e-6)


@pytest.mark.parametrize("budget", [{"nodes": 1}, {"nodes": 2}, {"nodes": 300}, {"nodes": 1500}, {"seconds": 1e-9}])
def test_small_budgets_give_looser_but_valid_ceilings(budget):
    cache = small_cache("sphere", d=4, n=60)
    coreset = make_coreset("uniform")(cache, 20, 3.0, *generators(0))
    limited = branch_and_bound(cache, coreset, 3.0, gap=1e-6, **budget)
    assert limited.nodes <= budget.get("nodes", 1)
    assert limited.gap > 1e-6
    assert worst_query(cache, coreset, 3.0).error <= limited.upper + 1e-12
    assert limited.upper <= 2 * (cache.values - cache.values.mean(0)).norm(dim=-1).max() * (1 + 1e-12)
    more = branch_and_bound(cache, coreset, 3.0, gap=1e-6, nodes=4000)
    assert limited.lower <= more.upper
    assert more.upper <= limited.upper


def test_seconds_end_a_head_that_would_go_on():
    cache = small_cache("sphere", d=4, n=60, heads=2)
    coreset = make_coreset("uniform")(cache, 20, 8.0, generators(0, 1))
    begun = time.perf_counter()
    found = branch_and_bound(cache, coreset, 8.0, gap=1e-9, seconds=0.3)
    assert time.perf_counter() - begun < 5
    assert (found.gap > 1e-9).all()
    assert (found.nodes > 1).all()


def test_progress_is_told_every_round_and_only_improves():
    cache = small_cache("clusters", d=3, heads=2)
    coreset = make_coreset("uniform")(cache, 10, 2.0, generators(0, 1))
    told = []
    found = branch_and_bound(cache, coreset, 2.0, gap=1e-4, progress=lambda *state: told.append(state))
    first = [i for i, (nodes, _, _) in enumerate(told) if nodes == 1]
    assert len(first) == 2  # one root a head
    for head, rounds in enumerate((told[: first[1]], told[first[1] :])):
        for before, after in itertools.pairwise(rounds):
            assert before[0] < after[0]
            assert before[1] <= after[1]
            assert before[2] >= after[2]
        assert rounds[-1] == (found.nodes[head], found.lower[head], found.upper[head])


@pytest.mark.parametrize("rho", [50.0, 1e4, 1e30])
def test_a_large_rho_is_answered_without_overflow(rho):
    cache = small_cache("sphere", d=2)
    coreset = make_coreset("uniform")(cache, 12, 2.0, *generators(0))
    found = branch_and_bound(cache, coreset, rho, nodes=3000)
    assert found.lower.isfinite()
    assert worst_query(cache, coreset, min(rho, 50.0)).error <= found.upper
    assert found.upper <= 2.2


def test_a_gap_below_rounding_ends_at_rounding():
    cache = small_cache("sphere", d=1, n=10)
    coreset = make_coreset("uniform")(cache, 4, 1.0, *generators(0))
    found = branch_and_bound(cache, coreset, 1.0, gap=1e-300)
    assert 0 < found.gap < 1e-11
    assert found.nodes < 10**6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gap": 0.0}, "gap must be above 0, got 0.0"),
        ({"gap": math.nan}, "gap must be above 0, got nan"),
        ({"nodes": 0}, "nodes must be above 0, got 0"),
        ({"seconds": -1.0}, "seconds must be above 0, got -1.0"),
        ({"rho": -2.0}, "rho must be a positive finite number"),
        ({"rho": math.inf}, "rho must be a positive finite number"),
    ],
)
def test_bad_values_are_refused(change, message):
    cache = small_cache("sphere", d=2)
    arguments = {"rho": 2.0, **change}
    with pytest.raises(ValueError, match=message):
        branch_and_bound(cache, Coreset(torch.arange(4)), **arguments)


def test_five_dimensions_and_foreign_coresets_are_refused():
    with pytest.raises(ValueError, match="d <= 4, got keys of dimension 5"):
        branch_and_bound(small_cache("sphere", d=5), Coreset(torch.arange(4)), 2.0)
    with pytest.raises(ValueError, match="coreset heads"):
        branch_and_bound(small_cache("sphere", d=2, heads=2), Coreset(torch.arange(4)), 2.0)


TIMED = ("sphere", "clusters", "cap_outliers", "low_rank", "antipodal")


@pytest.mark.slow
@pytest.mark.parametrize("family", TIMED)
@pytest.mark.parametrize("construction", ["uniform", "gram_schmidt_walk"])
@pytest.mark.parametrize(("d", "budget"), [(2, 10.0), (3, 120.0)])
def test_512_tokens_to_a_thousandth_within_the_budget(family, construction, d, budget):
    """One thread, seconds of wall time."""
    cache = small_cache(family, n=512, d=d)
    coreset = make_coreset(construction)(cache, 128, 2.0, *generators(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = branch_and_bound(cache, coreset, 2.0, gap=1e-3, seconds=budget)
    finally:
        torch.set_num_threads(threads)
    check_enclosure(found, cache, coreset, 2.0, 1e-3)
    assert attention_error(found.query[None], cache, coreset) == pytest.approx(found.lower.item(), abs=1e-10)
    assert worst_query(cache, coreset, 2.0).error <= found.upper + 1e-12
