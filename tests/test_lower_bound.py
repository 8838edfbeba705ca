"""Lower bounds: every step of docs/lower_bound.md against attention evaluated directly, with no formula in between."""

import itertools
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from attention_coresets import Cache, Coreset, WeightedCache, attend, attention_error, make_cache
from attention_coresets.caches.signed_clusters import SignedClusters
from attention_coresets.lower_bound import (
    FLOORS,
    any_weights_floor,
    equal_weights_floor,
    signed_clusters_bounds,
    signed_clusters_layout,
)
from attention_coresets.study.cell import run_cell
from attention_coresets.theory import antipodal_minimum_size
from command_line import Shell
from signed_instances import WEIGHTS, Instance, instances, sharpened, signs, weights

# the steps of the proof ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WEIGHTS)
def test_attention_at_a_sharpened_query_spells_out_the_signs(rng, kind):
    for x in instances(rng, kind):
        q = torch.from_numpy(sharpened(x.centers, x.rho))
        np.testing.assert_allclose(q.norm(dim=1), x.rho, rtol=1e-12)
        np.testing.assert_allclose(attend(q, x.cache.keys, x.cache.values), x.level * x.S, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_error_at_a_query_is_equation_1(rng, kind):
    for x in instances(rng, kind):
        expected = x.level * x.S - (x.a * x.w * x.S + x.b) / x.z[:, None]
        np.testing.assert_allclose(x.errors(), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_sum_over_clusters_ties_b_to_the_errors(rng, kind):
    """Equations 2 and 3."""
    for x in instances(rng, kind):
        E, r = x.errors(), len(x.S)
        bias = x.S.T @ x.omega
        assert x.z.sum() == pytest.approx((r + x.a) * x.total, rel=1e-12)
        scale = x.z.max()
        np.testing.assert_allclose(
            (r + x.a) * x.b, x.a * x.level * bias - x.z @ E, rtol=0, atol=1e-12 * (r + x.a) * scale
        )
        epsilon = np.linalg.norm(E, axis=1).max()
        assert np.linalg.norm(x.b) <= x.gamma * x.level * np.linalg.norm(bias) + x.total * epsilon + 1e-12 * scale


@pytest.mark.parametrize("kind", WEIGHTS)
def test_dropped_tokens_are_answered_by_b(rng, kind):
    for x in instances(rng, kind):
        dropped = x.w == 0
        expected = x.errors() + x.b / x.z[:, None]
        np.testing.assert_allclose((x.level * x.S)[dropped], expected[dropped], rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_steps_to_ii(rng, kind):
    """The sums of g, its size on dropped tokens, and the expansion before and after B_l is minimised away."""
    for x in instances(rng, kind):
        E, r = x.errors(), len(x.S)
        g = x.z[:, None] * E + x.b
        scale = x.z.max()
        bias = x.S.T @ x.omega
        np.testing.assert_allclose(g, (x.level * x.z[:, None] - x.a * x.w) * x.S, rtol=0, atol=1e-12 * scale)
        np.testing.assert_allclose(g.sum(0), x.a * x.level * bias - x.a * x.b, rtol=0, atol=1e-11 * r * scale)
        left = (x.z[:, None] ** 2 * E**2).sum(0)
        expanded = (g**2).sum(0) - 2 * x.a * x.level * bias * x.b + (r + 2 * x.a) * x.b**2
        tolerance = 1e-11 * r * scale**2
        np.testing.assert_allclose(left, expanded, rtol=0, atol=tolerance)
        kept_out = x.level**2 * ((x.w == 0) * x.z[:, None] ** 2).sum(0)
        assert (left >= kept_out - (x.a * x.level * bias) ** 2 / (r + 2 * x.a) - tolerance).all()


def oracle(x: Instance) -> tuple[float, float, float, float]:
    """(i), (ii), (iv), (v) of the theorem, written out from its statement; (i) may be negative, (v) is at rho."""
    r, bias = len(x.S), np.linalg.norm(x.S.T @ x.omega)
    i = max(
        x.level * (math.sqrt(D) - x.gamma * bias / z) / (1 + x.total / z) for D, z in zip(x.dropped, x.z, strict=True)
    )
    inside = (x.dropped * x.z**2).sum() - x.a**2 * bias**2 / (r + 2 * x.a)
    ii = x.level * math.sqrt(max(0.0, inside) / (x.z**2).sum())
    K = x.d - x.dropped
    on_kept = sum(k * (x.level * z - x.a * o / k) ** 2 for k, z, o in zip(K, x.z, x.omega, strict=True) if k > 0)
    iv = math.sqrt(max(0.0, x.level**2 * inside + on_kept) / (x.z**2).sum())
    ratio = (x.w.size - x.size) / x.size
    kappa = 2 * x.gamma + x.gamma**2 * ratio
    v = x.level * math.sqrt(x.d * ratio * (1 - 2 * kappa) / (1 - kappa)) if kappa < 0.5 else 0.0
    return i, ii, iv, v


@pytest.mark.parametrize("kind", WEIGHTS)
def test_theorem(rng, kind):
    for x in instances(rng, kind):
        epsilon = np.linalg.norm(x.errors(), axis=1).max()
        assert epsilon >= max(oracle(x)) - 1e-13
        if kind == "equal_clusters":
            n, m = x.w.size, x.size
            assert epsilon >= x.level * math.sqrt(x.d * (n - m) / m) - 1e-13


@pytest.mark.parametrize(("d", "r", "k"), [(8, 2, 1), (8, 8, 4), (16, 8, 4), (12, 6, 5), (64, 16, 48)])
@pytest.mark.parametrize("rho", [0.3, 1.0, 3.0])
def test_the_same_coordinates_of_each_cluster_attain_iv_at_every_query(d, r, k, rho):
    """The kept signs balance where all of them do; (iv) and the floor of equal weights are met to the last digits."""
    cache = make_cache("signed_clusters", d=d, clusters=r, seed=k)
    layout = signed_clusters_layout(cache)
    coreset = Coreset((layout.coordinate < k).nonzero().flatten())
    errors = attention_error(torch.from_numpy(sharpened(layout.centers.numpy(), rho)), cache, coreset)
    floor = equal_weights_floor(d, r, r * k, rho)
    np.testing.assert_allclose(errors, floor, rtol=0, atol=1e-12 * floor + 1e-14)
    assert float(signed_clusters_bounds(cache, coreset, rho).iv) == pytest.approx(floor, rel=1e-12)


@pytest.mark.parametrize(("d", "r"), [(2, 2), (3, 2), (4, 2), (4, 4)])
@pytest.mark.parametrize("rho", [0.5, 1.0, 2.0, 4.0])
def test_every_subset(d, r, rho):
    """Unweighted, exhaustively (65,534 subsets of 16 tokens): (v) for all, A sqrt(d (n - m) / m) for equal counts,
    attained at m = n/2."""
    cache = make_cache("signed_clusters", d=d, clusters=r, seed=d)
    layout = signed_clusters_layout(cache)
    q = torch.from_numpy(sharpened(layout.centers.numpy(), rho))
    full = attend(q, cache.keys, cache.values)
    for m in range(1, r * d):
        chosen = torch.tensor(list(itertools.combinations(range(r * d), m)))
        answers = attend(q.expand(len(chosen), -1, -1), cache.keys[chosen], cache.values[chosen])
        errors = (full - answers).norm(dim=-1).amax(dim=-1)
        counts = torch.nn.functional.one_hot(layout.cluster[chosen], r).sum(dim=1)
        equal = (counts == counts[:, :1]).all(dim=1)
        floor = equal_weights_floor(d, r, m, rho)
        assert (errors[equal] >= floor - 1e-13).all()
        assert (errors >= any_weights_floor(d, r, m, rho) - 1e-13).all()
        if 2 * m == r * d and d % 2 == 0:
            assert errors.min() == pytest.approx(floor, rel=1e-12)  # attained


# the bounds of a coreset --------------------------------------------------------------------------------------------


def shuffled(x: Instance, order: np.ndarray) -> tuple[Cache, Coreset]:
    cache, flat = x.cache, x.w.ravel()[order]
    kept = np.flatnonzero(flat)
    token_order = torch.from_numpy(order)
    return Cache(cache.keys[token_order], cache.values[token_order]), Coreset(
        torch.from_numpy(kept), torch.from_numpy(np.log(flat[kept]))
    )


@pytest.mark.parametrize("kind", WEIGHTS)
def test_bounds_are_those_of_the_theorem_in_any_order(rng, kind):
    for x in instances(rng, kind):
        cache, coreset = shuffled(x, rng.permutation(x.w.size))
        found = signed_clusters_bounds(cache, coreset, x.rho)
        i, ii, iv, v = oracle(x)
        assert float(found.i) == pytest.approx(max(0.0, i), abs=1e-12)
        # where the bracket cancels to nothing its root has half of the digits
        assert float(found.ii) == pytest.approx(ii, abs=1e-8)
        assert float(found.iv) == pytest.approx(iv, abs=1e-6)
        assert float(found.iv) <= iv + 1e-8
        assert float(found.iv) >= float(found.ii)
        assert float(found.v) >= v - 1e-15
        assert float(found.v) == any_weights_floor(x.d, len(x.S), x.size, x.rho)


@pytest.mark.rounding
def test_bounds_of_a_batch_are_those_of_its_heads_and_ignore_the_scale_of_the_weights(rng):
    cache = make_cache("signed_clusters", d=6, clusters=4, seed=3, heads=5)
    indices = torch.stack([torch.from_numpy(np.sort(rng.permutation(24)[:9])) for _ in range(5)])
    logs = torch.from_numpy(rng.standard_normal((5, 9)))
    both = signed_clusters_bounds(cache, Coreset(indices, logs), 1.3)
    moved = signed_clusters_bounds(cache, Coreset(indices, logs + 500.0), 1.3)
    assert both.i.shape == (5,)
    for head in range(5):
        alone = signed_clusters_bounds(cache[head], Coreset(indices, logs)[head], 1.3)
        for name in ("i", "ii", "iv", "v"):
            torch.testing.assert_close(getattr(both, name)[head], getattr(alone, name), rtol=1e-12, atol=0)
            torch.testing.assert_close(getattr(moved, name), getattr(both, name))
    nested = Cache(cache.keys[:4].reshape(2, 2, 24, 6), cache.values[:4].reshape(2, 2, 24, 6))
    coreset = Coreset(indices[:4].reshape(2, 2, 9), logs[:4].reshape(2, 2, 9))
    inner = signed_clusters_bounds(nested, coreset, 1.3).ii.flatten()
    torch.testing.assert_close(inner, both.ii[:4], rtol=1e-12, atol=0)


def test_no_log_weights_are_equal_weights():
    cache = make_cache("signed_clusters", d=4, clusters=4)
    indices = torch.arange(0, 16, 2)
    bare, zero = Coreset(indices), Coreset(indices, torch.full((8,), -3.0).double())
    one, other = (asdict(signed_clusters_bounds(cache, c, 1.0)) for c in (bare, zero))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rho", [1e-6, 50.0, 400.0, 710.0, 1e6])
def test_extreme_radii_and_weights_give_finite_bounds(rng, rho):
    cache = make_cache("signed_clusters", d=4, clusters=4)
    for logs in ([0.0, -800.0, 800.0], [-1e5, 0.0, 3.0], [0.0, 0.0, 0.0]):
        coreset = Coreset(torch.tensor([0, 5, 9]), torch.tensor(logs, dtype=torch.float64))
        found = signed_clusters_bounds(cache, coreset, rho)
        floors = [float(x) for x in (found.i, found.ii, found.iv, found.v)]
        assert all(0 <= x <= 2 for x in floors)
        queries = torch.from_numpy(sharpened(signed_clusters_layout(cache).centers.numpy(), min(rho, 50.0)))
        if rho <= 50:
            assert float(attention_error(queries, cache, coreset).max()) >= max(floors) - 1e-13


def test_float32_caches_have_the_same_bounds():
    double, single = (make_cache("signed_clusters", d=8, clusters=8, dtype=t) for t in (torch.float64, torch.float32))
    coreset = Coreset(torch.arange(0, 64, 3))
    a, b = (signed_clusters_bounds(cache, coreset, 1.0) for cache in (double, single))
    assert b.ii.dtype == torch.float64
    for name in ("i", "ii", "iv", "v"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-6, atol=0)


def broken(kind: str) -> Cache:
    cache = make_cache("signed_clusters", d=4, clusters=4)
    keys, values = cache.keys.clone(), cache.values.clone()
    if kind == "size":
        values[3] *= 2
    elif kind == "sign":
        values[3] *= -1
    elif kind == "twice":
        mates = (keys == keys[0]).all(-1).nonzero().flatten()
        values[mates[1]] = values[mates[0]]
    elif kind == "turned":
        values = values @ torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    elif kind == "centres":
        keys = keys @ torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.9])).double()
    return Cache(keys, values)


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        (broken("size"), r"a value is not \+e_l or -e_l"),
        (broken("turned"), r"a value is not \+e_l or -e_l"),
        (broken("sign"), "signs of an e_l do not sum to 0"),
        (broken("twice"), "does not carry each e_l once"),
        (broken("centres"), "the centres are not orthonormal"),
        (make_cache("sphere", n=16, d=4), "this is no signed-clusters cache"),
        (make_cache("signed_clusters", d=4, clusters=6), "take clusters <= d, no bound is proven"),
    ],
    ids=["size", "turned", "sign", "twice", "centres", "sphere", "random"],
)
def test_other_caches_are_refused(cache, message):
    with pytest.raises(ValueError, match=message):
        signed_clusters_bounds(cache, Coreset(torch.arange(4)), 1.0)


def test_wrong_radius_and_indices_are_refused():
    cache = make_cache("signed_clusters", d=4, clusters=4)
    for rho in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="rho must be a positive finite number"):
            signed_clusters_bounds(cache, Coreset(torch.arange(4)), rho)
    with pytest.raises(ValueError, match=r"coreset indices must lie in 0\.\.15"):
        signed_clusters_bounds(cache, Coreset(torch.tensor([3, 16])), 1.0)


# what follows, and what breaks --------------------------------------------------------------------------------------


def test_one_whole_cluster_errs_by_at_most_two_over_root_d(rng):
    cache = make_cache("signed_clusters", d=8, clusters=8)
    cluster = signed_clusters_layout(cache).cluster
    coreset = Coreset((cluster == 0).nonzero().flatten())
    q = torch.from_numpy(rng.standard_normal((500, 8)))
    q = 6 * q / q.norm(dim=-1, keepdim=True)
    assert attend(q, cache.keys, cache.values).norm(dim=-1).max() <= 1 / math.sqrt(8) + 1e-12
    assert attention_error(q, cache, coreset).max() <= 2 / math.sqrt(8) + 1e-12


def test_with_equal_values_one_cluster_answers_for_all(rng):
    cache = make_cache("signed_clusters", d=4, clusters=4)
    layout = signed_clusters_layout(cache)
    same = Cache(cache.keys, torch.nn.functional.one_hot(layout.coordinate, 4).double())
    coreset = Coreset((layout.cluster == 2).nonzero().flatten())
    assert attention_error(torch.from_numpy(rng.standard_normal((50, 4))), same, coreset).max() < 1e-14


@pytest.mark.parametrize("clusters", [16, 64])
def test_random_centres_do_not_spell_out_their_signs(clusters):
    """Attention at rho c_j is off A s_j by tens of per cent."""
    d, rho = 8, 2.0
    cache = make_cache("signed_clusters", d=d, clusters=clusters)
    layout = signed_clusters_layout(cache)
    A = math.expm1(rho) / (clusters * d + d * math.expm1(rho))
    off = (attend(rho * layout.centers, cache.keys, cache.values) - A * layout.signs).norm(dim=-1) / (A * d**0.5)
    assert 0.2 < off.median() < 2


def test_a_regular_simplex_keeps_the_identity(rng):
    """r = d + 1 centres with products -1/d: attention at rho c_j is A s_j with a = e^{rho (1 + 1/d)} - 1."""
    d, rho = 5, 1.7
    corners = np.eye(d + 1) - 1 / (d + 1)
    centers = corners @ np.linalg.svd(corners)[2][:d].T
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    np.testing.assert_allclose(centers @ centers.T, np.eye(d + 1) * (1 + 1 / d) - 1 / d, atol=1e-12)
    S = signs(rng, d, d + 1)
    x = Instance(centers, S, weights(rng, "spread", d, d + 1), rho)
    a = math.expm1(rho * (1 + 1 / d))
    A, z = a / (d * (d + 1 + a)), x.total + a * x.omega
    np.testing.assert_allclose(x.errors(), A * S - (a * x.w * S + x.b) / z[:, None], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("n", "rho"), [(40, 0.7), (64, 1.0), (200, 2.0)])
def test_antipodal_subsets_against_direct_attention(n, rho):
    """t of the rounded instance, and m >= e^{2 rho} (1 - e - t) / (1 + e + t) for every pair of counts."""
    cache = make_cache("antipodal", n=n, d=3, rho=rho, values="keys")
    plus = round(n / (1 + math.exp(2 * rho)))
    u = torch.unique(cache.keys, dim=0)
    u = next(k for k in u if int((cache.keys == k).all(-1).sum()) == plus)
    side = cache.keys @ u
    q = rho * u[None]
    t = float((attend(q, cache.keys, cache.values) @ u)[0])
    assert t == pytest.approx(math.tanh(rho + 0.5 * math.log(plus / (n - plus))), abs=1e-13)
    up, down = (side > 0).nonzero().flatten(), (side < 0).nonzero().flatten()
    for m_plus, m_minus in itertools.product(range(plus + 1), range(0, n - plus + 1, 3)):
        if m_plus + m_minus in (0, n):
            continue
        chosen = torch.cat([up[:m_plus], down[:m_minus]]).sort().values
        error = float(attention_error(q, cache, Coreset(chosen))[0])
        if error < 1 - abs(t) - 1e-9:
            assert m_plus + m_minus >= antipodal_minimum_size(rho, error + t) - 1e-6


def test_uniform_subsets_of_equal_keys_have_the_stated_mean_square(rng):
    """The relative standard error of 40,000 draws is 0.3 %."""
    cache, draws = make_cache("equal_keys", n=60, d=5), 40_000
    kept = torch.from_numpy(np.sort(rng.random((draws, 60)).argsort(1)[:, :12]))
    many = Cache(*(x.expand(draws, -1, -1) for x in (cache.keys, cache.values)))
    errors = attention_error(many.keys[:, :1], many, Coreset(kept))
    v = cache.values.mean(0)
    assert float(errors.square().mean()) == pytest.approx((1 / 12 - 1 / 60) * (1 - float(v @ v)) * 60 / 59, rel=0.015)


# in the study -------------------------------------------------------------------------------------------------------


def configuration(cache: dict, sizes: list[int], coreset: dict | None = None) -> dict:
    return {
        "cache": cache,
        "coreset": coreset or {"name": "uniform", "sinks": 0},
        **{"rho": 1.5, "seed": 3, "heads": 2, "sizes": sizes},
        "adversary": {"restarts": 16, "steps": 20, "polish": 10, "certify": False},
        "compute": {"device": "cpu", "dtype": "float64", "threads": None},
    }


@pytest.mark.parametrize("coreset", [None, {"name": "uniform", "sinks": 4}])
def test_rows_hold_the_bounds_and_no_error_is_below_them(coreset):
    cache = {"name": "signed_clusters", "n": None, "d": 8, "clusters": 4}
    rows = run_cell(configuration(cache, [8, 16, 24, 32], coreset))
    for row in rows:
        assert row["error"] >= max(row[name] for name in FLOORS) * (1 - 1e-9)
        assert row["floor_v"] == any_weights_floor(8, 4, row["size"], 1.5)
        assert (row["floor_ii"] > 0) == (row["floor_iv"] > 0) == (row["floor_v"] > 0) == (row["size"] < 32)


@pytest.mark.parametrize("cache", [{"name": "signed_clusters", "d": 4, "clusters": 8}, {"name": "sphere", "d": 4}])
def test_rows_hold_no_bounds_where_none_is_proven(cache):
    for row in run_cell(configuration(cache | {"n": 32}, [8])):
        assert all(math.isnan(row[name]) for name in FLOORS)


def test_orthonormal_is_what_the_centres_are():
    for d, clusters in [(4, 2), (4, 4), (4, 6)]:
        family = SignedClusters(d=d, clusters=clusters)
        centers = signed_clusters_layout(make_cache("signed_clusters", d=d, clusters=clusters)).centers
        gram = centers @ centers.T
        assert family.orthonormal == bool((gram - torch.eye(clusters)).abs().max() < 1e-12)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch, capfd) -> Shell:
    return Shell(tmp_path, monkeypatch, capfd)


@pytest.mark.parametrize(
    "arguments",
    [
        ("cache=signed_clusters", "cache.d=4", "cache.clusters=3", "sizes=[4]"),
        ("cache=signed_clusters", "cache.d=4", "cache.n=12", "sizes=[4]"),
        ("experiment=lower_bound_orthonormal", "tier=smoke", "at.shape=[8,3]"),
    ],
)
def test_an_odd_number_of_clusters_is_refused_on_the_command_line(shell, arguments):
    outcome = shell.sweep(*arguments)
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 1
    assert "clusters must be even, so that the signs balance, got 3" in outcome.err
    assert not shell.cells


@pytest.mark.parametrize("name", ["orthonormal", "random", "antipodal", "controls"])
def test_experiments_run_at_the_smoke_tier(shell, name):
    outcome = shell.sweep(f"experiment=lower_bound_{name}", "tier=smoke", "arm=uniform,walk_tilted")
    assert outcome.code == 0
    assert "0 failed" in outcome.summary
    assert shell.collect("--tier", "smoke").code == 0


def test_bounds_of_a_weighted_cache_are_refused():
    cache = make_cache("signed_clusters", d=4, clusters=4, seed=0)
    weighted = WeightedCache(cache.keys, cache.values, torch.zeros(cache.n))
    with pytest.raises(ValueError, match="got a WeightedCache"):
        signed_clusters_bounds(weighted, Coreset(torch.arange(8)), 1.0)
