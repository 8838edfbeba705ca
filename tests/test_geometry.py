"""Geometry of a head: every number against its definition, every certificate against a search for a counterexample."""

import importlib.util
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from attention_coresets.attention import Cache
from attention_coresets.geometry.coverage import coverage, subsample, total_sensitivity
from attention_coresets.geometry.enclosing_ball import enclosing_ball
from attention_coresets.geometry.factorisation import balancing_constant
from attention_coresets.geometry.linear_map import best_linear_map
from attention_coresets.models.capture import capture
from attention_coresets.models.captured import Model, load_head, read_layer
from attention_coresets.models.head_geometry import geometry
from attention_coresets.models.heads import RealHead, calibration_weights
from attention_coresets.theory import tilt

N = 48
TINY = Model(model="tiny-random", n=N, queries=10, calibration=7)


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_CORESETS_CAPTURES", str(tmp_path_factory.mktemp("captures")))
        capture(TINY.source, progress=False)
        yield


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(*shape, seed=0, scale=3.0):
    return (scale * randn(*shape, seed=seed)).softmax(-1)


def smallest_circle(points):
    """Radius of the smallest circle around points of the plane, over all circles through two or three of them."""
    best = math.inf
    for chosen in itertools.chain(itertools.combinations(points, 2), itertools.combinations(points, 3)):
        a = chosen[0]
        edges = np.stack([p - a for p in chosen[1:]])  # the centre solves <edge, c - a> = |edge|^2 / 2
        center = a + np.linalg.lstsq(edges, (edges**2).sum(1) / 2, rcond=None)[0]
        best = min(best, np.linalg.norm(points - center, axis=1).max())
    return best


@pytest.mark.parametrize("seed", range(8))
def test_enclosing_ball_against_every_circle(seed):
    points = np.random.default_rng(seed).standard_normal((9, 2)) * [3, 1]
    center, found = enclosing_ball(torch.from_numpy(points))
    assert found == pytest.approx(smallest_circle(points), rel=2e-4)
    assert (torch.from_numpy(points) - center).norm(dim=-1).max() <= found * (1 + 1e-12)


def test_enclosing_ball_of_equal_keys_is_a_point():
    assert enclosing_ball(torch.ones(5, 3, dtype=torch.float64))[1] == 0


@pytest.mark.parametrize("center", [False, True])
@settings(max_examples=5, deadline=None)
@given(b=st.integers(1, 30), n=st.integers(2, 60), d=st.integers(1, 8), seed=st.integers(0, 99))
def test_linear_map_keeps_logits_and_is_shorter_than_the_ball(center, b, n, d, seed):
    queries, keys = randn(b, d, seed=seed), randn(n, d, seed=seed + 1) ** 3
    found = best_linear_map(queries, keys, center=center)
    logits = (queries - found.query_center) @ (keys - found.key_center).mT
    assert torch.allclose(found.queries @ found.keys.mT, logits, atol=1e-8 * float(logits.abs().max() + 1))
    assert found.rho == pytest.approx(float(found.queries.norm(dim=-1).max() * found.keys.norm(dim=-1).max()))
    assert center or not found.query_center.any()
    radius = enclosing_ball(queries)[1] if center else float(queries.norm(dim=-1).max())
    assert found.lower <= found.rho * (1 + 1e-9)
    assert found.rho <= 1.0101 * radius * enclosing_ball(keys)[1] + 1e-9


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_linear_map_against_a_search_over_maps_and_centres(center, seed):
    queries, keys = randn(7, 2, seed=seed) + 1, randn(12, 2, seed=seed + 9) * torch.tensor([4.0, 1.0])
    found = best_linear_map(queries, keys, center=center, tolerance=1e-3)
    q, k = queries.numpy(), keys.numpy()

    def rho(x):
        m, c = x[:4].reshape(2, 2), x[4:6]
        q0 = x[6:] if center else np.zeros(2)
        if abs(np.linalg.det(m)) < 1e-6:
            return 1e6
        mapped = (q - q0) @ np.linalg.inv(m), (k - c) @ m.T
        return np.linalg.norm(mapped[0], axis=1).max() * np.linalg.norm(mapped[1], axis=1).max()

    starts = [np.r_[np.eye(2).ravel(), k.mean(0), q.mean(0)] + 0.3 * randn(8, seed=s).numpy() for s in range(3)]
    options = {"maxiter": 2000, "maxfev": 2000, "xatol": 1e-8, "fatol": 1e-8}
    searched = min(minimize(rho, start, method="Nelder-Mead", options=options).fun for start in starts)
    assert found.lower <= searched * (1 + 1e-9)
    assert found.rho <= searched * 1.03  # of few points the best centre is found to some per cent only


def test_linear_map_of_axes_and_under_a_change_of_basis():
    a, b = torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64), torch.tensor([0.5, 2.0, 9.0], dtype=torch.float64)
    queries, keys = (torch.cat([x.diag(), -x.diag()]) for x in (a, b))
    assert best_linear_map(queries, keys, tolerance=1e-4).rho == pytest.approx(float((a * b).max()), rel=2e-4)
    queries, keys, m = randn(40, 3), randn(50, 3, seed=1), randn(3, 3, seed=2)
    moved = best_linear_map(queries @ m.inverse(), keys @ m.mT + 7, tolerance=1e-3)
    assert moved.rho == pytest.approx(best_linear_map(queries, keys, tolerance=1e-3).rho, rel=2e-3)


@pytest.mark.parametrize("center", [False, True])
def test_linear_map_is_certified_within_its_tolerance_where_points_are_many(center):
    queries, keys = randn(600, 16) @ randn(16, 16, seed=1) + 3, randn(800, 16, seed=2) @ randn(16, 16, seed=3)
    found = best_linear_map(queries, keys, center=center)
    assert found.lower <= found.rho <= 1.01 * found.lower
    assert found.rho < 0.8 * float((queries - found.query_center).norm(dim=-1).max()) * enclosing_ball(keys)[1]


def test_linear_map_of_points_that_coincide():
    keys, queries = randn(9, 4), torch.ones(3, 4, dtype=torch.float64)
    assert best_linear_map(queries, torch.ones_like(keys)).rho == pytest.approx(0, abs=1e-9)
    assert best_linear_map(queries, keys, center=True).rho == pytest.approx(0, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(b=st.integers(1, 20), n=st.integers(1, 60), seed=st.integers(0, 99), scale=st.sampled_from([0.1, 3.0, 20.0]))
def test_factorisation_is_one_and_gamma_between_its_bounds(b, n, seed, scale):
    weights = softmax(b, n, seed=seed, scale=scale)
    found = balancing_constant(weights)
    assert torch.allclose(found.left @ found.right, weights, atol=1e-9)
    wanted = found.left.norm(dim=-1).max() * found.right.norm(dim=0).sum()
    assert found.gamma == pytest.approx(float(wanted), rel=1e-12)
    assert total_sensitivity(weights) <= found.lower * (1 + 1e-12)
    assert found.lower <= found.gamma * (1 + 1e-9)
    assert found.gamma <= 1.05 * found.lower
    assert found.gamma <= 1.01 * math.sqrt(min(b, n)) * total_sensitivity(weights)  # F = I: |g_i| <= sqrt(b) max_q


@pytest.mark.parametrize("seed", range(5))
def test_no_other_factorisation_is_below_the_lower_bound(seed):
    weights = softmax(4, 9, seed=seed)
    found = balancing_constant(weights, iterations=200, tolerance=1e-3)

    def gamma(x):
        left = x.reshape(4, 4)
        if abs(np.linalg.det(left)) < 1e-9:
            return 1e6
        right = np.linalg.solve(left, weights.numpy())
        return np.linalg.norm(left, axis=1).max() * np.linalg.norm(right, axis=0).sum()

    starts = [found.left.numpy().ravel(), *(randn(16, seed=s).numpy() for s in range(3))]
    options = {"maxiter": 4000, "maxfev": 4000}
    searched = min(minimize(gamma, start, method="Nelder-Mead", options=options).fun for start in starts)
    assert found.lower <= searched * (1 + 1e-9)
    assert found.gamma <= searched * 1.002


def test_gamma_is_the_sensitivity_for_separate_tokens_and_one_for_equal_queries():
    eye = torch.eye(12, dtype=torch.float64)
    assert balancing_constant(eye).gamma == pytest.approx(12)
    assert balancing_constant(softmax(1, 30).expand(8, 30)).gamma == pytest.approx(1, rel=1e-4)
    late = torch.zeros(4, 6, dtype=torch.float64)
    late[:, :3] = softmax(4, 3)  # tokens that no query sees
    assert balancing_constant(late).gamma == pytest.approx(balancing_constant(late[:, :3]).gamma, rel=1e-2)
    with pytest.raises(ValueError, match="weights hold NaN or Inf"):
        balancing_constant(eye * torch.nan)


def test_gamma_is_far_above_the_sensitivity_for_random_sign_keys():
    """theory.md, section 7: queries that ask for two signs at once; T stays below 5 as n grows, Gamma does not."""
    ratios = []
    for d in (8, 14, 20):
        n = d * d // 8
        keys = randn(n, d).sign()
        pairs = list(itertools.combinations(range(d), 2))
        queries = torch.zeros(4 * len(pairs), d, dtype=torch.float64)
        for row, ((a, b), signs) in enumerate(itertools.product(pairs, itertools.product((-1.0, 1.0), repeat=2))):
            queries[row, a], queries[row, b] = signs
        asked = queries[subsample(len(queries), 400)]
        weights = (6 * asked @ keys.mT).softmax(-1)
        ratios.append(balancing_constant(weights).lower / total_sensitivity(weights))
    assert ratios == sorted(ratios)
    assert ratios[-1] > 1.2


def test_coverage_pair_by_pair():
    calibration, heldout = softmax(6, 20), softmax(9, 20, seed=1)
    found = coverage(calibration, heldout, recent=5)
    pairs = [
        (float(heldout[q, i] / calibration[:, i].max()), float(heldout[q, i]) / 9, i)
        for q, i in itertools.product(range(9), range(20))
    ]
    pairs.sort()
    assert found["coverage_100"] == pytest.approx(pairs[-1][0])
    for at in (50, 90, 99):
        below = sum(share for ratio, share, _ in pairs if ratio < found[f"coverage_{at}"])
        upto = sum(share for ratio, share, _ in pairs if ratio <= found[f"coverage_{at}"])
        assert below - 1e-5 <= at / 100 <= upto + 1e-5
    for limit in (2, 10):
        uncovered = sum(share for ratio, share, _ in pairs if ratio > limit)
        assert found[f"uncovered_{limit}"] == pytest.approx(uncovered, abs=1e-5)
    recent = sum(share for ratio, share, i in pairs if ratio > 2 and i >= 15)
    assert found["uncovered_2_recent"] == pytest.approx(recent, abs=1e-5)
    itself = coverage(heldout, heldout, recent=5)
    assert itself["coverage_100"] == pytest.approx(1)
    assert itself["uncovered_2"] == 0


def test_subsample_is_in_order_and_all_where_there_are_few():
    assert subsample(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert subsample(100, 10).tolist() == sorted(set(subsample(100, 10).tolist()))
    assert len(subsample(100, 10)) == 10


@pytest.mark.parametrize("kv_head", [0, 1])
def test_geometry_agrees_with_its_definitions(captured, kv_head):
    head = load_head(Model(model="tiny-random", n=N, queries=10, calibration=7, kv_head=kv_head))
    found = geometry(head)
    held = read_layer(TINY.source, 0)
    own = slice(2 * kv_head, 2 * kv_head + 2)
    queries = torch.cat([held.moved[own], held.queries[own]], dim=1).double().flatten(0, 1)
    keys = held.keys[kv_head].double()
    longest = float(queries.norm(dim=-1).max() * keys.norm(dim=-1).max())
    assert found["rho_uncentred"] == pytest.approx(longest * held.scaling, rel=1e-12)
    logits = queries @ keys.mT * held.scaling
    half = (logits.amax(-1) - logits.amin(-1)) / 2
    assert found["half_range"] == pytest.approx(float(half.max()), rel=1e-9)
    assert found["half_range_median"] == pytest.approx(float(half.median()), rel=1e-9)
    assert found["half_range"] <= found["rho_linear"] <= 1.01 * found["rho_ball"]
    assert found["rho_ball"] <= found["rho_centred"] <= 2 * found["rho_uncentred"]
    assert found["rho_query_linear"] <= 1.01 * min(found["rho_query_ball"], found["rho_linear"])
    assert found["rho_centred"] == pytest.approx(float(queries.norm(dim=-1).max()) * held.scaling * head.key_radius)
    assert found["rho_ball"] == pytest.approx(found["rho_centred"] * enclosing_ball(head.cache.keys)[1])
    assert found["exponent_centred"] == pytest.approx(head.rho * float(tilt(head.cache.keys, head.rho).sigma))
    assert found["radius"] == pytest.approx(1)
    weights = (head.moved @ head.cache.keys.mT).softmax(-1)
    assert found["total_sensitivity_causal"] == pytest.approx(total_sensitivity(calibration_weights(head)), rel=1e-12)
    assert found["total_sensitivity"] == pytest.approx(sum(float(weights[:, i].max()) for i in range(N)), rel=1e-12)
    assert found["gamma"] >= found["gamma_sensitivity"] * (1 - 1e-12)
    assert found["gamma_sensitivity"] == pytest.approx(found["total_sensitivity"], rel=1e-12)  # below GAMMA_QUERIES
    asked = (head.heldout @ head.cache.keys.mT).softmax(-1).numpy()
    assert found["log_total_sensitivity_heldout"] == pytest.approx(math.log(asked.max(0).sum()), rel=1e-12)
    assert found["sink_weight"] == pytest.approx(asked[:, 0].mean(), rel=1e-12)
    for name, each in {
        "effective_sample_size": 1 / (asked**2).sum(1),
        "entropy": -(asked * np.log(asked)).sum(1),
    }.items():  # torch's median is the lower one of the two in the middle
        assert found[name] == pytest.approx(np.sort(each)[(len(each) - 1) // 2], rel=1e-9)
    singular = np.linalg.svd(head.cache.keys.numpy(), compute_uv=False) ** 2
    assert found["effective_rank"] == pytest.approx(singular.sum() ** 2 / (singular**2).sum(), rel=1e-9)


@pytest.mark.parametrize("layer", [0, 1])
def test_every_exponent_bounds_the_sensitivity_of_all_queries(captured, layer):
    """The tilt lemma, in four coordinate systems: log T of any queries in the body is at most rho * sigma."""
    head = load_head(Model(model="tiny-random", n=N, queries=10, calibration=7, layer=layer))
    found = geometry(head)
    queries = torch.cat([head.moved, head.heldout])
    log_t = math.log(total_sensitivity((queries @ head.cache.keys.mT).softmax(-1)))
    for kind in ("centred", "linear", "query_ball", "query_linear"):
        assert log_t <= found[f"exponent_{kind}"] <= 2 * found[f"rho_{kind}"], kind


def test_sink_weight_of_a_head_with_a_sink():
    keys = torch.zeros(6, 2, dtype=torch.float64)
    keys[0, 0] = 1
    queries = torch.tensor([[50.0, 0.0], [40.0, 1.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    found = geometry(RealHead(Cache(keys, keys), queries, queries, queries, 1.0, zero, 1.0, zero, 1.0))
    assert found["sink_weight"] == pytest.approx(1)
    assert found["total_sensitivity"] == pytest.approx(1)
    assert found["gamma"] == pytest.approx(1)
    assert found["effective_sample_size"] == pytest.approx(1)


def test_script_writes_a_row_a_head(captured, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("heads_script", Path(__file__).parents[1] / "scripts" / "heads.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arguments = ["heads.py", "--tier", "smoke", "--results", str(tmp_path), "--workers"]
    monkeypatch.setattr("sys.argv", [*arguments, "1"])
    assert script.main() == 0
    table = pd.read_parquet(tmp_path / "smoke" / "heads.parquet")
    assert table[["text", "layer", "kv_head"]].values.tolist() == [["random", a, b] for a in (0, 1) for b in (0, 1)]
    assert table[["n", "queries", "calibration"]].drop_duplicates().values.tolist() == [[64, 32, 16]]
    assert table.notna().all(axis=None)
    page = (Path(__file__).parents[1] / "docs" / "results.md").read_text()
    assert set(table.columns) <= set(re.findall(r"`(\w+)`", page.partition("## heads.parquet")[2]))
    monkeypatch.setattr("sys.argv", [*arguments, "1", "--gemma"])  # at this tier the same model
    assert script.main() == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "smoke" / "heads_gemma.parquet"), table)
    monkeypatch.setattr("sys.argv", [*arguments, "0"])
    assert script.main() == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: workers must be at least 1, got 0"


def test_a_token_that_nobody_looks_at_is_covered():
    calibration, heldout = (torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]]) for _ in range(2))
    assert coverage(calibration, heldout, recent=1)["coverage_100"] == 1.0
