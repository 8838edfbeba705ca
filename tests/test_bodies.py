"""Query bodies: their views ask the same attention, and ellipsoids about queries are what they say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from attention_coresets import (
    Cache,
    Coreset,
    QueryBody,
    WeightedCache,
    attend,
    attention_error,
    ellipsoid,
    make_coreset,
    minimum_ellipsoid,
    tilt,
    worst_query,
)
from attention_coresets.geometry.loewner import enclosing_weights
from tables import generators


def random_cache(rng, heads, n, d, dv):
    return Cache(*(torch.from_numpy(rng.standard_normal((*heads, n, k))) for k in (d, dv)))


def random_body(rng, heads, d, r):
    return QueryBody(*(torch.from_numpy(rng.standard_normal((*heads, *shape))) for shape in ((d,), (d, r))))


def in_ball(rng, shape, rho):
    u = rng.standard_normal(shape)
    return torch.from_numpy(rho * u / np.linalg.norm(u, axis=-1, keepdims=True) * rng.random((*shape[:-1], 1)))


@settings(max_examples=12)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.integers(0, 10**6))
def test_a_view_asked_u_is_the_cache_asked_a_query_of_the_body(n, d, r, weighted, seed):
    rng = np.random.default_rng(seed)
    cache, body = random_cache(rng, (2,), n, d, 3), random_body(rng, (2,), d, r)
    base = torch.from_numpy(rng.standard_normal((2, n))) if weighted else None
    if base is not None:
        cache = WeightedCache(cache.keys, cache.values, base)
    u = in_ball(rng, (2, 6, r), 2.0)
    view = body.view(cache)
    found = attend(u, view.keys, view.values, view.log_weights)
    torch.testing.assert_close(found, attend(body.queries(u), cache.keys, cache.values, base))
    assert (body.radii(body.queries(u)) <= u.norm(dim=-1) * (1 + 1e-6) + 1e-9).all()
    tokens = torch.arange(0, n, 2).expand(2, -1)
    for weights in (None, torch.from_numpy(rng.standard_normal(tuple(tokens.shape)))):
        coreset = Coreset(tokens, weights)
        inside = body.inside(coreset, cache)
        expected = attention_error(body.queries(u), cache, coreset)
        torch.testing.assert_close(attention_error(u, view, inside), expected)
        torch.testing.assert_close(attention_error(body.queries(u), cache, body.outside(inside, cache)), expected)


def test_a_body_without_heads_serves_all_and_the_ball_is_the_plain_one(rng):
    cache = random_cache(rng, (2,), 30, 4, 3)
    coreset = make_coreset("uniform")(cache, 10, 2.0, generators(0, 1))
    plain, found = (worst_query(cache, coreset, 2.0, body=body) for body in (None, QueryBody.ball(4)))
    torch.testing.assert_close(found.error, plain.error, rtol=1e-5, atol=0)
    q = torch.from_numpy(rng.standard_normal((2, 5, 4)))
    torch.testing.assert_close(QueryBody.ball(4).radii(q), q.norm(dim=-1))


def test_the_worst_query_of_a_body(rng):
    """It lies in the body, shows its error, is no less than a dense grid, and no ceiling is below it."""
    rho, cache, body = 1.5, random_cache(rng, (2,), 40, 6, 3), random_body(rng, (2,), 6, 2)
    coreset = make_coreset("uniform")(cache, 10, 2.0, generators(0, 1))
    worst = worst_query(cache, coreset, rho, body=body, certify=True)
    assert (body.radii(worst.query.unsqueeze(-2)) <= rho * (1 + 1e-6)).all()
    at_query = attention_error(worst.query.unsqueeze(-2), cache, coreset).squeeze(-1)
    torch.testing.assert_close(at_query, worst.error)
    grid = attention_error(body.queries(in_ball(rng, (2, 4000, 2), rho)), cache, coreset).amax(-1)
    assert (worst.error >= 0.999 * grid).all()
    assert (worst.certificate >= worst.error).all()
    assert (worst.enclosure.upper - worst.enclosure.lower <= 1e-4).all()
    at_query = attention_error(worst.enclosure.query.unsqueeze(-2), cache, coreset).squeeze(-1)
    torch.testing.assert_close(at_query, worst.enclosure.lower)
    view = body.view(cache)
    torch.testing.assert_close(
        worst_query(view, body.inside(coreset, cache), rho).error, worst.error, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gram_schmidt_walk", "tilted"),
        ("gram_schmidt_walk", "unweighted"),
        ("kernel_halving", "tilted"),
        ("greedy", "tilted"),
    ],
)
def test_constructions_on_a_view(name, model, rng):
    """Far from 0, in a narrow shape: a coreset for the body errs less there than one for a ball that holds the body."""
    cache = random_cache(rng, (3,), 160, 4, 3)
    center = torch.from_numpy(rng.standard_normal((3, 4)))
    body = QueryBody(3 * center / center.norm(dim=-1, keepdim=True), 0.5 * random_body(rng, (3,), 4, 2).axes)
    construct, seeds = make_coreset(name, model=model), generators(0, 1, 2)
    view = body.view(cache)
    of_view = construct(view, 40, 1.0, seeds)
    coreset = body.outside(of_view, cache)
    worst = worst_query(cache, coreset, 1.0, body=body)
    torch.testing.assert_close(worst.error, worst_query(view, of_view, 1.0).error, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(attention_error(worst.query.unsqueeze(-2), cache, coreset).squeeze(-1), worst.error)
    if model == "tilted":
        reach = float(body.center.norm(dim=-1).max() + torch.linalg.matrix_norm(body.axes, 2).max())
        ball = construct(cache, 40, reach, generators(0, 1, 2))
        assert worst.error.mean() < worst_query(cache, ball, 1.0, body=body).error.mean()


def test_float32_caches_and_the_tilt_of_a_view(rng):
    cache, body = random_cache(rng, (2,), 50, 8, 3).to(torch.float32), random_body(rng, (2,), 8, 3)
    view = body.view(cache)
    assert {view.keys.dtype, view.values.dtype, view.log_weights.dtype} == {torch.float32}
    coreset = body.outside(make_coreset("gram_schmidt_walk")(view, 20, 1.0, generators(0, 1)), cache)
    assert coreset.log_weights.dtype == torch.float32
    found = tilt(view.keys, 1.0, view.log_weights)
    share = attend(body.queries(in_ball(rng, (2, 50, 3), 1.0).float()), cache.keys, torch.eye(50).expand(2, -1, -1))
    assert (share <= (found.sigma.exp().unsqueeze(-1) * found.p).unsqueeze(-2) * (1 + 1e-4) + 1e-9).all()


def test_queries_off_the_span_are_in_no_body(rng):
    body = random_body(rng, (), 5, 2)
    inside = body.queries(in_ball(rng, (4, 2), 3.0))
    off = inside + 0.1 * torch.from_numpy(rng.standard_normal((4, 5)))
    assert body.radii(inside).isfinite().all()
    assert body.radii(off).isinf().all()
    assert body.radii(inside.float()).isfinite().all()


def test_bodies_and_queries_that_do_not_fit_are_refused(rng):
    cache, body = random_cache(rng, (2,), 5, 4, 3), random_body(rng, (3,), 4, 2)
    for bad in (body, random_body(rng, (2,), 5, 2)):
        with pytest.raises(ValueError, match="does not fit"):
            bad.view(cache)
    with pytest.raises(ValueError, match="NaN"):
        QueryBody(torch.full((3,), math.nan), torch.zeros(3, 2))
    queries = torch.from_numpy(rng.standard_normal((7, 3)))
    for values in ({"coverage": 0.0}, {"coverage": 1.1}, {"ridge": -0.1}):
        with pytest.raises(ValueError, match="coverage must"):
            ellipsoid(queries, **values)
    with pytest.raises(ValueError, match="tolerance must"):
        minimum_ellipsoid(queries, 0.0)
    for construct in (ellipsoid, minimum_ellipsoid):
        with pytest.raises(ValueError, match="NaN"):
            construct(queries * math.nan)


@pytest.mark.parametrize("coverage", [0.5, 0.95, 1.0])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_an_ellipsoid_covers_what_it_says(coverage, ridge, rng):
    queries = torch.from_numpy(rng.standard_normal((2, 201, 5)) * np.array([3, 1, 0.3, 0.1, 0.02]) + 4)
    body = ellipsoid(queries, coverage, ridge)
    held = (body.radii(queries) <= 1).double().mean(-1)
    assert (held >= coverage).all()
    assert (held <= coverage + 2 / 201).all()
    if not ridge:  # affine equivariance, and the shape is the covariance
        matrix = torch.from_numpy(rng.standard_normal((5, 5)))
        moved = ellipsoid(queries @ matrix + 1.0, coverage, ridge)
        torch.testing.assert_close(moved.radii(queries @ matrix + 1.0), body.radii(queries))
        shape = body.axes[0] @ body.axes[0].mT
        scatter = torch.from_numpy(np.cov(queries[0].numpy().T))
        torch.testing.assert_close(shape / shape.trace(), scatter / scatter.trace())


def test_ellipsoids_of_equal_queries_and_of_few():
    one = torch.ones(2, 3, 4, dtype=torch.float64)
    for construct in (ellipsoid, minimum_ellipsoid):
        body = construct(one)
        assert (body.radii(one) == 0).all()
        assert body.radii(one + 1).isinf().all()
    pair = torch.tensor([[[0.0, 0, 0], [2, 0, 0]], [[0, 0, 0], [0, 0, 0]]], dtype=torch.float64)
    body = minimum_ellipsoid(pair)
    assert body.axes.shape == (2, 3, 1)
    torch.testing.assert_close(body.axes[0].norm(), torch.tensor(1.0).double())
    assert (body.radii(pair) <= 1).all()


def log_volume(body):
    return float(torch.linalg.slogdet(body.axes.mT @ body.axes)[1]) / 2


@pytest.mark.parametrize(("b", "d"), [(3, 2), (12, 2), (200, 3), (9, 8), (400, 16)])
def test_the_smallest_ellipsoid_is_certified(b, d, rng):
    """It holds all queries; the dual's value, computed here, is within the tolerance; an affine map goes with it."""
    points = torch.from_numpy(rng.standard_t(3, (b, d)))
    body = minimum_ellipsoid(points, 1e-3)
    assert body.radii(points).max() <= 1
    assert body.radii(points).max() > 1 - 1e-6
    weights = enclosing_weights(points, 1e-3)
    center = weights @ points
    scatter = (points - center).mT @ (weights.unsqueeze(-1) * (points - center))
    floor = d / 2 * math.log(d) + float(torch.logdet(scatter)) / 2  # no ellipsoid about the points is smaller
    assert floor - 1e-9 <= log_volume(body) <= floor + 2 * d * 1e-3
    matrix = torch.from_numpy(rng.standard_normal((d, d)))
    moved = minimum_ellipsoid(points @ matrix + 1.0, 1e-3)
    expected = log_volume(body) + float(torch.linalg.slogdet(matrix)[1])
    assert log_volume(moved) == pytest.approx(expected, abs=2 * d * 1e-3)


def test_the_smallest_ellipsoid_against_scipy(rng):
    """min -log det B with |B x_i + c| <= 1, B lower triangular, solved by SLSQP."""
    x = rng.standard_normal((15, 2))

    def parts(z):
        return np.array([[z[0], 0], [z[1], z[2]]]), z[3:]

    def slack(z):
        B, c = parts(z)
        return 1 - np.square(x @ B.T + c).sum(-1)

    start = np.array([0.2, 0, 0.2, 0, 0])
    found = minimize(
        lambda z: -np.log(np.abs(z[0] * z[2]) + 1e-12),
        start,
        constraints={"type": "ineq", "fun": slack},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert log_volume(minimum_ellipsoid(torch.from_numpy(x), 1e-5)) == pytest.approx(found.fun, abs=1e-3)


def test_the_smallest_ellipsoid_of_points_in_a_plane(rng):
    """Rank 2 in R^5: the ellipse of the plane, in 2 axes; beside a head of full rank, with columns of 0."""
    plane, basis = torch.from_numpy(rng.standard_normal((30, 2))), torch.from_numpy(rng.standard_normal((5, 2)))
    basis = torch.linalg.qr(basis).Q
    queries = plane @ basis.mT + 2.0
    body = minimum_ellipsoid(queries, 1e-4)
    assert body.axes.shape == (5, 2)
    assert log_volume(body) == pytest.approx(log_volume(minimum_ellipsoid(plane, 1e-4)), abs=1e-3)
    assert (body.radii(queries) <= 1 + 1e-9).all()
    both = minimum_ellipsoid(torch.stack([queries, torch.from_numpy(rng.standard_normal((30, 5)))]), 1e-2)
    assert both.axes.shape == (2, 5, 5)
    assert (both.radii(torch.stack([queries, queries]))[0] <= 1 + 1e-9).all()


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_an_ellipsoid_of_queries_in_a_plane_has_two_axes_in_any_unit(unit, rng):
    basis = torch.linalg.qr(torch.from_numpy(rng.standard_normal((5, 2)))).Q
    queries = unit * torch.from_numpy(rng.standard_normal((30, 2))) @ basis.mT
    assert (ellipsoid(queries, ridge=0.0).axes.norm(dim=-2) > 0).tolist() == [True, True, False, False, False]


def test_a_coreset_of_the_view_weighs_absolutely_outside():
    """Everything kept, from the view and back: log-weights 0, whatever was taken off for digits."""
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(7, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    body = QueryBody(3 * torch.randn(3, generator=generator, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    cache = Cache(keys, values)
    whole = Coreset(torch.arange(7), body.view(cache).log_weights)
    torch.testing.assert_close(body.outside(whole, cache).log_weights, torch.zeros(7, dtype=torch.float64))
