"""A stream's ceiling: no query exceeds it, it is near the error where rho is small; its sums are those of tokens."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from attention_coresets import Cache, Coreset, Stream, attention_error, make_cache, worst_query
from attention_coresets.adversary.running import RunningMoments, _rest
from tables import FAMILIES, generators, small_cache


def parameters(family: str) -> dict[str, Any]:
    """antipodal's keys are made for one rho."""
    return {"rho": 1.0} if family == "antipodal" else {}


def read(cache, rho, size=12, construct="kernel_halving", block=17):
    """A stream that has read a cache, and its coreset."""
    stream = Stream(construct, size, rho, generator=3, certify=True)
    for keys, values in zip(cache.keys.split(block, dim=-2), cache.values.split(block, dim=-2), strict=True):
        stream.add(keys, values)
    return stream, stream.coreset()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("rho", "construct"), [(0.3, "kernel_halving"), (1.0, "tilted_draws"), (3.0, "kernel_halving")]
)
def test_no_query_exceeds_the_ceiling(family, rho, construct):
    cache = small_cache(family, n=128, heads=2, **parameters(family))
    stream, coreset = read(cache, rho, construct=construct)
    found = Coreset(coreset.indices, coreset.log_weights)
    worst = worst_query(cache, found, rho, restarts=24, steps=30, polish=20)
    ceiling = stream.ceiling(coreset)
    assert (worst.error <= ceiling * (1 + 1e-9)).all()
    query = torch.randn(2, 200, cache.d, generator=torch.Generator().manual_seed(0)).to(cache.keys)
    query *= rho / query.norm(dim=-1, keepdim=True)
    assert (attention_error(query, cache, found) <= ceiling.unsqueeze(-1) * (1 + 1e-9)).all()


def test_it_holds_on_the_way_and_for_a_coreset_of_before():
    cache, rho = make_cache("clusters", n=400, d=6, seed=1), 1.0
    stream, old = Stream("greedy", 16, rho, certify=True), None
    for start in range(0, 400, 100):
        stream.add(cache.keys[start : start + 100], cache.values[start : start + 100])
        so_far = Cache(cache.keys[: start + 100], cache.values[: start + 100])
        for coreset in (stream.coreset(), old):
            if coreset is not None:
                found = Coreset(coreset.indices, coreset.log_weights)
                error = worst_query(so_far, found, rho, restarts=16, steps=20, polish=20).error
                assert error <= stream.ceiling(coreset)
        old = stream.coreset()


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_numbers_beyond_the_floats_leave_the_radius_of_the_values(scale, rng):
    """Keys of norm 900: nothing is known of the sums, and what is known of the values still holds."""
    keys = 300 * torch.from_numpy(rng.standard_normal((200, 8)))
    values = 1 + scale * torch.from_numpy(rng.standard_normal((200, 3)))
    stream, coreset = read(Cache(keys, values), 5.0)
    worst = worst_query(Cache(keys, values), Coreset(coreset.indices, coreset.log_weights), 5.0)
    assert worst.error - 1e-12 <= stream.ceiling(coreset) <= 2 * (values - values.mean(0)).norm(dim=-1).max() + 1e-12


@pytest.mark.parametrize(("rho", "most"), [(0.01, 1.05), (0.3, 1.6), (1.0, 4.0)])
def test_it_is_near_the_error_where_rho_is_small(rho, most):
    """Keys along 32 directions, tokens drawn: what degrees 0 to 2 leave out is little."""
    cache = make_cache("sphere", n=2000, d=32, seed=0)
    stream, coreset = read(cache, rho, size=100, construct="tilted_draws", block=300)
    found = Coreset(coreset.indices, coreset.log_weights)
    assert stream.ceiling(coreset) <= most * worst_query(cache, found, rho, restarts=16).error


def test_the_sums_are_those_of_the_tokens():
    rng = np.random.default_rng(0)
    keys, values, weights = rng.standard_normal((9, 3)), rng.standard_normal((9, 2)), rng.uniform(0.5, 2, 9)
    cache = Cache(torch.from_numpy(keys)[None], torch.from_numpy(values)[None])
    sums = RunningMoments.about(cache)
    for part in (slice(0, 4), slice(4, 9)):
        sums.add(Cache(cache.keys[:, part], cache.values[:, part]), torch.from_numpy(weights[part])[None])
    x, u = keys - keys.mean(0), values - values.mean(0)
    length = np.linalg.norm(u, axis=1)
    expected = {
        "total": weights.sum(),
        "mean_keys": np.einsum("i,ia->a", weights, x),
        "keys": np.einsum("i,ia,ib->ab", weights, x, x),
        "values": np.einsum("i,ic->c", weights, u),
        "first": np.einsum("i,ia,ic->ac", weights, x, u),
        "second": np.einsum("i,ia,ib,ic->abc", weights, x, x, u).reshape(9, 2),
        "lengths": np.einsum("i,i,ia,ib->ab", weights, length, x, x),
        "reach": np.linalg.norm(x, axis=1).max(),
        "radius": length.max(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(sums, name)[0].numpy(), value, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("reach", [1e-6, 0.3, 1.0, 1.0001, 4.0])
def test_the_rest_of_the_series_is_bounded_and_reached(reach):
    """|e^t - 1 - t - t^2 / 2| <= g |t|^3 for |t| <= T, with equality at t = T."""
    g = float(_rest(torch.tensor(reach, dtype=torch.float64)))
    t = np.linspace(-reach, reach, 1001)
    exact = np.array([math.fsum(s**j / math.factorial(j) for j in range(3, 60)) for s in t])
    assert (np.abs(exact) <= g * np.abs(t) ** 3 * (1 + 1e-9)).all()
    assert exact[-1] == pytest.approx(g * reach**3, rel=1e-9)


def test_a_stream_without_sums_says_how_to_have_them():
    cache = small_cache("sphere", n=40)
    stream = Stream("greedy", 4, 1.0, generator=generators(0)[0])
    stream.add(cache.keys, cache.values)
    with pytest.raises(ValueError, match="certify=True"):
        stream.ceiling(stream.coreset())


def test_values_bound_it_at_any_rho():
    """Two averages of values are no further apart than the two radii."""
    cache = small_cache("sphere", n=128)
    stream, coreset = read(cache, 50.0)
    centre = cache.values[:24].mean(0)  # the first buffer, 2 * size
    assert float(stream.ceiling(coreset)) <= 2 * float((cache.values - centre).norm(dim=-1).max()) * (1 + 1e-12)


def test_it_does_not_depend_on_how_blocks_are_cut():
    """Also where the first token is far from all others, as a sink's key is."""
    cache = small_cache("sphere", n=150, heads=2)
    cache.keys[:, 0] *= 20
    for n in (1, 11, 24, 150):
        found = [read(Cache(cache.keys[:, :n], cache.values[:, :n]), 0.5, block=block) for block in (1, 7, 24, 150)]
        ceilings = torch.stack([stream.ceiling(coreset) for stream, coreset in found])
        assert (ceilings == ceilings[0]).all()
    one_block = RunningMoments.about(Cache(cache.keys[:, :24], cache.values[:, :24]))
    one_block.add(cache)
    coreset = found[0][1]
    weights = coreset.log_weights.softmax(-1)
    torch.testing.assert_close(one_block.ceiling(Cache(coreset.keys, coreset.values), weights, 0.5), ceilings[0])


@pytest.mark.parametrize("exponent", [-565, -400, 400, 665])
def test_values_of_any_size(exponent):
    """A power of 2 times the values is the same power times the ceiling, where squares are no floats too."""
    cache, scale = small_cache("clusters", n=60), 2.0**exponent
    stream, coreset = read(cache, 1.0)
    moved, kept = read(Cache(cache.keys, cache.values * scale), 1.0)
    assert torch.equal(kept.indices, coreset.indices)
    torch.testing.assert_close(moved.ceiling(kept) / scale, stream.ceiling(coreset), rtol=1e-9, atol=0)


def test_values_that_are_tiny_beside_the_first_ones_leave_a_ceiling():
    """The first buffer's values are 0 and set the unit; squares of the later ones vanish in it."""
    cache = small_cache("sphere", n=60)
    cache.values.mul_(1e-170)
    cache.values[:24] = 0
    stream, coreset = read(cache, 1.0)
    found = Coreset(coreset.indices, coreset.log_weights)
    queries = torch.randn(50, cache.d, generator=torch.Generator().manual_seed(0)).double()
    error = attention_error(queries / queries.norm(dim=-1, keepdim=True), cache, found).max()
    assert 0 < error <= stream.ceiling(coreset)


def test_values_that_are_huge_beside_the_first_ones_leave_none():
    """Squares of 1e200 are no floats: nothing is known, and nothing fails."""
    cache = small_cache("sphere", n=60)
    cache.values[24:] *= 1e200
    stream, coreset = read(cache, 1.0)
    assert stream.ceiling(coreset) == torch.inf


def test_a_ceiling_is_of_a_coreset_that_holds_its_tokens():
    cache = small_cache("sphere", n=60, heads=2)
    stream, coreset = read(cache, 1.0)
    with pytest.raises(ValueError, match="needs a coreset of the stream, got Coreset"):
        stream.ceiling(Coreset(coreset.indices, coreset.log_weights))
    with pytest.raises(ValueError, match="coreset's keys"):
        stream.ceiling(coreset[0])
