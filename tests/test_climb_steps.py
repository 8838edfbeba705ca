"""The climb's fast parts: error and gradient against softmax in float64, compiled steps against torch, portions."""

import subprocess
import sys
import time

import pytest
import torch

from attention_coresets import Cache, Coreset, attend, make_cache, make_coreset, worst_query
from attention_coresets.adversary import portions, steps
from attention_coresets.adversary.ascent import _climb, climb
from attention_coresets.adversary.gradient import error_and_gradient, errors, rooms
from attention_coresets.adversary.sides import two_sides
from attention_coresets.adversary.starts import starts
from attention_coresets.compiled import backend
from tables import FAMILIES, generators, small_cache

LOOPS = ("auto", "torch")


def plain(query, cache, coreset):
    """The error and its gradient by softmax and autograd, float64."""
    query = query.detach().clone().double().requires_grad_()
    cache = cache.to(torch.float64)
    weights = None if coreset.log_weights is None else coreset.log_weights.double()
    keys, values = cache.take(coreset.indices)
    gap = attend(query, cache.keys, cache.values) - attend(query, keys, values, weights)
    (slope,) = torch.autograd.grad(0.5 * gap.square().sum(), query)
    return gap.norm(dim=-1).detach(), slope


def in_ball(heads, count, d, rho, dtype, seed=0):
    x = torch.randn(heads, count, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (rho * x / x.norm(dim=-1, keepdim=True)).to(dtype)


def measured(query, cache, coreset, rho):
    sides = two_sides(cache, coreset, rho)
    return error_and_gradient(query, sides, rooms(query, sides, 2))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_error_and_gradient_against_softmax(family, weighted, dtype, share):
    cache = small_cache(family, n=300, d=6, heads=3, dtype=dtype)
    name = "tilted_draws" if weighted else "uniform"
    coreset = make_coreset(name)(cache, 40, 1.0, *generators(0))
    for rho in (0.1, 1.0, 6.0):
        query = in_ball(3, 20, 6, rho, dtype)
        error, slope = measured(query, cache, coreset, rho)
        expected, expected_slope = plain(query, cache, coreset)
        size = cache.values.norm(dim=-1).max().item()
        torch.testing.assert_close(error.double(), expected, rtol=0, atol=share * size)
        reach = cache.keys.norm(dim=-1).max().item()
        torch.testing.assert_close(slope.double(), expected_slope, rtol=0, atol=share * size**2 * reach)


@pytest.mark.parametrize("reach", [35.0, 45.0, 300.0, 5000.0])
def test_logits_beyond_the_range_of_exponentials(reach):
    """float32 exponentials end at e^88: far logits are taken about their largest, near ones as they are."""
    cache = small_cache("sphere", n=60, d=3, heads=2, dtype=torch.float32)
    keys = cache.keys - cache.keys.mean(-2, keepdim=True)
    cache = Cache(keys * (reach / keys.norm(dim=-1).max()) + 7.0, cache.values)
    weights = torch.linspace(-200, 100, 20).expand(2, -1)
    for coreset in (Coreset(torch.arange(20).expand(2, -1)), Coreset(torch.arange(20).expand(2, -1), weights)):
        query = in_ball(2, 50, 3, 1.0, torch.float32)
        error, slope = measured(query, cache, coreset, 1.0)
        expected, expected_slope = plain(query, cache, coreset)
        assert error.isfinite().all()
        torch.testing.assert_close(error.double(), expected, rtol=0, atol=4e-6 * reach)
        torch.testing.assert_close(slope.double(), expected_slope, rtol=0, atol=1e-5 * reach**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 3, 16])
def test_compiled_steps_are_the_torch_steps(dtype, d):
    """The same path, step by step: from starts inside the ball, on it, and with a gradient of 0."""
    cache = small_cache("clusters", n=80, d=d, heads=2, dtype=dtype)
    coreset = make_coreset("tilted_draws")(cache, 20, 2.0, *generators(0))
    query = torch.cat([in_ball(2, 6, d, r, dtype, seed=int(9 * r)) for r in (0.3, 2.0)], dim=1)
    sides = two_sides(cache, coreset, 2.0)
    paths = []
    for name in LOOPS:
        with backend(name):
            paths.append([_climb(query, sides, 2.0, count) for count in (0, 1, 2, 6)])
    for (fast, fast_error), (slow, slow_error) in zip(*paths, strict=True):
        share = 1e-3 if dtype == torch.float32 else 1e-9
        torch.testing.assert_close(fast, slow, rtol=share, atol=share)
        torch.testing.assert_close(fast_error, slow_error, rtol=share, atol=share / 100)


@pytest.fixture(params=LOOPS)
def either(request):
    """In numba where it is there, and in torch."""
    with backend(request.param):
        yield


@pytest.mark.usefixtures("either")
def test_a_step_by_hand():
    """A gain is taken and turns the direction; a loss is not and restarts from the gradient, shorter."""

    def rows(*x):
        return torch.tensor([x], dtype=torch.float64)  # [1, 2, d]

    error, length = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([[0.5, 0.5]]).double()
    now = steps.Climbs(rows([0, 0], [0, 0]), error, rows([1, 0], [1, 0]), rows([0, 2], [0, 2]), length)
    tried = steps.trial(now, 10.0)
    torch.testing.assert_close(tried, rows([0, 0.5], [0, 0.5]))
    found = steps.judged(now, tried, torch.tensor([[2.0, 0.5]]).double(), rows([2, 1], [9, 9]), 10.0)
    turn = (2 * (2 - 1) + 1 * 1) / 1.0  # <g', g' - g> / |g|^2
    torch.testing.assert_close(found.query, rows([0, 0.5], [0, 0]))
    torch.testing.assert_close(found.error, torch.tensor([[2.0, 1.0]]).double())
    torch.testing.assert_close(found.gradient, rows([2, 1], [1, 0]))
    torch.testing.assert_close(found.direction, rows([2, 1 + turn * 2], [1, 0]))
    torch.testing.assert_close(found.length, torch.tensor([[0.8, 0.2]]).double())
    assert steps.trial(found, 0.3).norm(dim=-1).max() <= 0.3 * (1 + 1e-12)  # back into the ball


@pytest.mark.usefixtures("either")
def test_on_the_sphere_the_outward_part_of_the_gradient_is_dropped():
    one = torch.ones(1, 3, dtype=torch.float64)
    zero = torch.zeros(1, 3, 2, dtype=torch.float64)
    query = torch.tensor([[[2.0, 0.0], [1.9, 0.0], [2.0, 0.0]]]).double()
    slope = torch.tensor([[[5.0, 3.0], [5.0, 3.0], [-5.0, 3.0]]]).double()
    expected = torch.tensor([[[0.0, 3.0], [5.0, 3.0], [-5.0, 3.0]]]).double()
    torch.testing.assert_close(steps.begin(query, one, slope, 2.0).gradient, expected)
    now = steps.Climbs(zero.clone(), 0 * one, zero.clone(), zero.clone(), one.clone())
    torch.testing.assert_close(steps.judged(now, query, one, slope.clone(), 2.0).gradient, expected)


@pytest.mark.parametrize("numbers", [1, 3000, 2**25])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_portions_and_threads_change_nothing(numbers, threads, monkeypatch):
    """Cut anywhere, in any number of threads: each query's result, at its own place; the thread count is kept."""
    cache = small_cache("sphere", n=50, d=3, heads=5)
    coreset = make_coreset("tilted_draws")(cache, 10, 2.0, *generators(0))
    sides, query = two_sides(cache, coreset, 2.0), in_ball(5, 150, 3, 2.0, torch.float64)
    sides_of_one = two_sides(cache[:1], coreset[:1], 2.0)
    expected, _ = plain(query, cache, coreset)
    monkeypatch.setattr(portions, "_NUMBERS", numbers)
    monkeypatch.setattr(portions, "_WORTH_THREADS", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.testing.assert_close(errors(query, sides), expected)
        torch.testing.assert_close(climb(cache, coreset, 2.0, query, 0), (query, expected))
        assert torch.get_num_threads() == threads
        torch.testing.assert_close(errors(query[:1], sides_of_one), expected[:1])  # fewer heads than threads
        for parts in ([(1,), (0,)], [(0,)]):
            with pytest.raises(ZeroDivisionError):
                portions.share(lambda x: 1 / x, parts, query.device)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_keys_that_require_gradients_and_far_means():
    """Whoever trains keys may ask for their worst query; a mean of 1e4 is taken off before float32 rounds."""
    cache = small_cache("sphere", n=60, d=3, heads=2)
    coreset = make_coreset("uniform")(cache, 10, 2.0, *generators(0))
    expected = worst_query(cache, coreset, 2.0, restarts=16).error
    trained = Cache(cache.keys.clone().requires_grad_(), cache.values)
    torch.testing.assert_close(worst_query(trained, coreset, 2.0, restarts=16).error, expected)
    moved = Cache(cache.keys + 1e4, cache.values)
    torch.testing.assert_close(worst_query(moved, coreset, 2.0, restarts=16).error, expected, rtol=1e-6, atol=0)


def test_without_numba_the_same_is_found():
    script = """
import sys
sys.modules["numba"] = None
import torch
from attention_coresets import make_cache, make_coreset, worst_query
from attention_coresets.adversary import steps
assert steps.compiled is None
cache = make_cache("sphere", n=100, d=4, seed=0)
coreset = make_coreset("tilted_draws")(cache, 20, 2.0, torch.Generator().manual_seed(0))
print(worst_query(cache, coreset, 2.0).error.item())
"""
    cache = make_cache("sphere", n=100, d=4, seed=0)
    coreset = make_coreset("tilted_draws")(cache, 20, 2.0, torch.Generator().manual_seed(0))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(worst_query(cache, coreset, 2.0).error.item(), rel=1e-6)


def least(f, repeats=4):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.slow
@pytest.mark.skipif(steps.compiled is None, reason="the rate is stated for the compiled steps")
def test_a_step_runs_at_two_fifths_of_the_rate_of_matrix_products(generator):
    """n = 8192, d = dv = 64, 256 restarts, float32; the best of interleaved repeats of either."""
    n, m, d, restarts, count = 8192, 512, 64, 256, 5
    cache = make_cache("sphere", n=n, d=d, seed=0, heads=1).to(torch.float32)
    coreset = make_coreset("uniform")(cache, m, 2.0, generator)
    first, sides = starts(cache, coreset, 2.0, restarts, generator), two_sides(cache, coreset, 2.0)
    square = torch.randn(4096, 4096, generator=generator)
    product, climbing = [], []
    for _ in range(4):
        product.append(least(lambda: square @ square, 2))
        climbing.append(least(lambda: _climb(first, sides, 2.0, count), 2))
    flops = (count + 1) * restarts * (n + m) * 8 * d
    assert flops / min(climbing) >= 0.4 * 2 * 4096**3 / min(product)
