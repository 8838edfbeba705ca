"""Inputs as people have them: each gives what its plain form gives, or is refused in words."""

import re
import warnings

import numpy as np
import pytest
import torch

from attention_coresets import (
    CACHES,
    Cache,
    Coreset,
    QueryBody,
    Stream,
    WeightedCache,
    attend,
    attention_error,
    ellipsoid,
    make_cache,
    make_coreset,
    minimum_ellipsoid,
    structured_worst,
    tilt,
    worst_query,
)
from attention_coresets.coresets.catalogue import CONSTRUCTIONS
from attention_coresets.inputs import exact_unit
from attention_coresets.lower_bound import signed_clusters_bounds
from attention_coresets.theory import antipodal_minimum_size, exp
from attention_coresets.upper_bound import balancing_bound
from tables import small_cache

pytestmark = pytest.mark.usefixtures("unchecked")

N, SIZE, RHO = 24, 8, 1.5
CACHE = small_cache("spread_norms", n=N, d=3, seed=1)
INSTANCE = make_cache("signed_clusters", d=4, clusters=4)
QUERIES = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
EFFORT = {"restarts": 8, "steps": 3, "polish": 2}
NAMES = [name for name in CONSTRUCTIONS if name != "optimum"]  # which takes seconds


def built(name: str, keys=None, values=None, *, size=SIZE, rho=RHO, generator=0, queries=QUERIES, **extra) -> Coreset:
    """A coreset of CACHE, or of the instance that the construction is for, or of the keys and values given."""
    plain = INSTANCE if name == "coordinate_subset" else CACHE
    cache = Cache(plain.keys if keys is None else keys, plain.values if values is None else values)
    return make_coreset(name)(cache, size, rho, generator, queries, **extra)


def same(one: Coreset, other: Coreset) -> None:
    assert torch.equal(one.indices, other.indices)
    assert (one.log_weights is None) == (other.log_weights is None)
    if other.log_weights is not None:
        torch.testing.assert_close(one.log_weights, other.log_weights, rtol=1e-12, atol=1e-12)


def refuses(message: str, call, *args, **kwargs) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **kwargs)


def plain_of(name: str) -> Cache:
    return INSTANCE if name == "coordinate_subset" else CACHE


@pytest.mark.parametrize("name", NAMES)
def test_constructions_take_tensors_of_any_making(name: str) -> None:
    """With gradients, strides, in NumPy or under another default dtype: the coreset is that of the plain tensors."""
    cache, expected = plain_of(name), built(name)
    keys, values = cache.keys, cache.values
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = QUERIES.clone().requires_grad_()
        found = built(name, keys.clone().requires_grad_(), values.clone().requires_grad_(), queries=asked)
        same(found, expected)
        assert found.log_weights is None or not found.log_weights.requires_grad
    strided = [x.repeat_interleave(2, dim=0).t().contiguous().t()[::2] for x in (keys, values)]
    assert not strided[0].is_contiguous()
    same(built(name, *strided, queries=QUERIES.mT.contiguous().mT), expected)
    same(built(name, keys.numpy(), values.numpy(), queries=QUERIES.numpy()), expected)
    with torch.inference_mode():
        same(built(name, keys.clone(), values.clone()), expected)
    for dtype in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            same(built(name), expected)
        finally:
            torch.set_default_dtype(torch.float32)


def test_measures_take_tensors_of_any_making() -> None:
    coreset = built("gram_schmidt_walk")
    expected = worst_query(CACHE, coreset, RHO, certify=True, gap=0.05, **EFFORT)

    def measured(cache: Cache, kept: Coreset, queries) -> list[torch.Tensor]:
        worst = worst_query(cache, kept, RHO, certify=True, gap=0.05, **EFFORT)
        body = ellipsoid(queries)
        found = [worst.error, *worst.ceilings.values(), attention_error(queries, cache, kept)]
        found += [tilt(cache.keys, RHO).p, body.axes, minimum_ellipsoid(queries).center, body.radii(queries)]
        return [*found, attend(queries, cache.keys, cache.values), body.view(cache).keys]

    queries = QUERIES[0]
    plain = measured(CACHE, coreset, queries)
    assert float(plain[0]) == float(expected.error)
    keys, values = CACHE.keys, CACHE.values
    weights = coreset.log_weights
    learned = Cache(keys.clone().requires_grad_(), values.clone().requires_grad_())
    numpy = Cache(np.asfortranarray(keys.numpy()), values.numpy()[::-1].copy()[::-1])
    kept = Coreset(coreset.indices.numpy().astype(np.int32), weights.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        others = [measured(learned, Coreset(coreset.indices, weights.clone().requires_grad_()), queries)]
    others.append(measured(numpy, kept, queries.numpy()))
    for dtype in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            others.append(measured(CACHE, coreset, queries))
        finally:
            torch.set_default_dtype(torch.float32)
    for other in others:
        for found, wanted in zip(other, plain, strict=True):
            torch.testing.assert_close(found.detach(), wanted, rtol=1e-9, atol=1e-12)


def test_the_error_is_differentiated_through_the_cache() -> None:
    keys = CACHE.keys.clone().requires_grad_()
    coreset = built("uniform")

    def error(k: torch.Tensor) -> torch.Tensor:
        return attention_error(QUERIES[0], Cache(k, CACHE.values), coreset).sum()

    error(keys).backward()
    step = torch.zeros_like(CACHE.keys)
    step[3, 1] = 1e-6
    slope = (error(CACHE.keys + step) - error(CACHE.keys - step)) / 2e-6
    assert float(keys.grad[3, 1]) == pytest.approx(float(slope), rel=1e-6)


def test_instances_and_their_bounds_take_numpy() -> None:
    signs = CACHES["signed_clusters"](d=4, clusters=4).draw_signs(np.random.default_rng(0))
    weights = np.ones_like(signs)
    weights[:, 2:] = 0
    found = structured_worst(signs, weights, 2.0, restarts=4, steps=3, polish=3, generator=7)
    wanted = structured_worst(*map(torch.from_numpy, (signs, weights)), 2.0, restarts=4, steps=3, polish=3, generator=7)
    assert torch.equal(found.error, wanted.error)
    coreset = built("coordinate_subset")
    learned = Cache(INSTANCE.keys.clone().requires_grad_(), INSTANCE.values.clone().requires_grad_())
    bounds = signed_clusters_bounds(learned, coreset, 2.0)
    assert not bounds.iv.requires_grad
    assert float(bounds.iv) == float(signed_clusters_bounds(INSTANCE, coreset, 2.0).iv)


@pytest.mark.parametrize("change", ["read_only", "reversed", "big_endian", "float32"])
def test_numpy_arrays_of_any_making(change: str) -> None:
    keys, values = CACHE.keys.numpy().copy(), CACHE.values.numpy().copy()
    keys = {
        "read_only": lambda x: np.broadcast_to(x, x.shape),
        "reversed": lambda x: x[::-1].copy()[::-1],
        "big_endian": lambda x: x.astype(">f8"),
        "float32": lambda x: x.astype(np.float32),
    }[change](keys)
    cache = Cache(keys, values.astype(np.float32) if change == "float32" else values)
    torch.testing.assert_close(cache.keys.double(), CACHE.keys, rtol=1e-6, atol=1e-7)
    values[:] = 7.0  # a copy was taken
    torch.testing.assert_close(cache.values.double(), CACHE.values, rtol=1e-6, atol=1e-7)


def test_tensors_that_are_refused() -> None:
    keys, values = CACHE.keys, CACHE.values
    refuses("keys must have shape [*heads, n, d], got (24,): one row a token", Cache, keys[:, 0], values[:, 0])
    refuses("keys must be a tensor or a NumPy array, got list", Cache, keys.tolist(), values)
    layout = "values must be a dense tensor, got layout torch.sparse_coo; call .to_dense() first"
    refuses(layout, Cache, keys, values.to_sparse())
    masked = "keys is a masked array, and a mask would be ignored; fill it, or drop what is masked"
    refuses(masked, Cache, np.ma.masked_array(keys.numpy(), mask=False), values)
    message = "keys must hold numbers of at most 64 bits, got object; convert by .astype('float64')"
    refuses(message, Cache, keys.numpy().astype(object), values)
    message = "keys and values need one floating dtype, got torch.complex128 and torch.complex128"
    refuses(message, Cache, keys + 0j, values + 0j)
    eight = torch.float8_e4m3fn
    message = f"keys and values need one floating dtype, got {eight} and {eight}"
    refuses(message, Cache, keys.to(eight), values.to(eight))
    refuses("keys are on cpu, values on meta; move one with .to", Cache, keys, values.to("meta"))
    message = "coreset indices must be whole numbers, got torch.float64; convert by .long()"
    refuses(message, Coreset, torch.arange(3.0, dtype=torch.float64))
    refuses("coreset indices must have shape [*heads, m], got one number without axes", Coreset, torch.tensor(3))
    message = "log_weights must be floating numbers, got torch.int64; convert by .to(torch.float32)"
    refuses(message, Coreset, torch.arange(3), torch.arange(3))
    refuses(message, WeightedCache, keys, values, torch.arange(N))
    message = "positions must be whole numbers, got torch.float32; convert by .long()"
    refuses(message, built, "streaming_llm", positions=torch.arange(N).float())
    refuses("queries must be a tensor or a NumPy array, got list", built, "tova", queries=QUERIES.tolist())
    refuses("queries (5, 3) must have shape ('group', 'b', 3) for this cache", built, "tova", queries=QUERIES[0])
    whole = torch.zeros(3, dtype=torch.int64)
    message = "center and axes need one floating dtype, got torch.int64 and torch.int64"
    refuses(message, QueryBody, whole, whole[:, None])


WHOLE = [np.int64(SIZE), np.uint8(SIZE), torch.tensor(SIZE), np.array(SIZE)]
NOT_WHOLE = {
    "16.0 of type float; write 16": 16.0,
    "2.5 of type float": 2.5,
    "True of type bool": True,
    "'8' of type str": "8",
    "None of type NoneType": None,
    "tensor([8, 8]) of type Tensor": torch.tensor([8, 8]),
    "tensor(8.) of type Tensor; write 8": torch.tensor(8.0),
}


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_whole_numbers_of_any_library(name: str) -> None:
    expected = built(name)
    for size in WHOLE:
        same(built(name, size=size), expected)
    for text, size in NOT_WHOLE.items():
        refuses(f"size must be a whole number, got {text}", built, name, size=size)


def test_counts_and_parameters_are_whole_numbers_too() -> None:
    coreset = built("uniform")
    for key in EFFORT:
        wrong = f"{key} must be a whole number, got 4.0 of type float; write 4"
        refuses(wrong, worst_query, CACHE, coreset, RHO, **{**EFFORT, key: 4.0})
    one = worst_query(CACHE, coreset, RHO, **{key: np.int64(value) for key, value in EFFORT.items()})
    assert float(one.error) == float(worst_query(CACHE, coreset, RHO, **EFFORT).error)
    refuses("window must be a whole number, got True of type bool", make_coreset, "snapkv", window=True)
    refuses("n must be a whole number, got 64.0 of type float; write 64", make_cache, "sphere", n=64.0)
    refuses("heads must be a whole number, got 2.0 of type float; write 2", make_cache, "sphere", heads=2.0)
    refuses("seed must be a whole number, got '0' of type str", make_cache, "sphere", seed="0")
    refuses("ridge must be a number, got '1' of type str", make_coreset, "gram_schmidt_walk", ridge="1")
    made = make_cache("sphere", n=np.int64(8), d=torch.tensor(3), seed=np.int32(5), heads=np.int64(2))
    assert torch.equal(made.keys, make_cache("sphere", n=8, d=3, seed=5, heads=2).keys)
    assert make_coreset("snapkv", window=np.int64(8)) == make_coreset("snapkv", window=8)


@pytest.mark.parametrize("rho", [np.float64(1.5), np.float32(1.5), torch.tensor(1.5), np.array(1.5)])
def test_radii_are_numbers_of_any_library(rho) -> None:
    coreset = built("gram_schmidt_walk")
    same(built("gram_schmidt_walk", rho=rho), coreset)
    assert torch.equal(tilt(CACHE.keys, rho).p, tilt(CACHE.keys, RHO).p)
    found = worst_query(CACHE, coreset, rho, certify=True, gap=0.1, **EFFORT)
    assert float(found.certificate) == float(
        worst_query(CACHE, coreset, RHO, certify=True, gap=0.1, **EFFORT).certificate
    )


def test_radii_that_are_refused() -> None:
    for text, rho in {"'2'": "2", "True": True, "None": None}.items():
        refuses(f"rho must be a number, got {text} of type {type(rho).__name__}", built, "greedy", rho=rho)
    for rho in (1e-40, 1e40):
        refuses(f"rho must lie between 1e-30 and 1e+30, got {rho}; scale the keys instead", built, "greedy", rho=rho)


def test_generators_of_any_making() -> None:
    seeded = built("kernel_halving", generator=torch.Generator().manual_seed(7))
    for seed in (7, np.int64(7), torch.tensor(7)):
        same(built("kernel_halving", generator=seed), seeded)
    many = make_cache("sphere", n=N, d=3, heads=2)
    construct = make_coreset("kernel_halving")
    gens = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    same(construct(many, SIZE, RHO, [3, 4]), construct(many, SIZE, RHO, gens))
    fresh = {tuple(built("uniform", generator=None).indices.tolist()) for _ in range(6)}
    assert len(fresh) > 1  # six equal ones of 735471 are no chance
    start = "generator must be a torch.Generator, a list of them, None or a seed, which must be a whole number, got "
    refuses(f"{start}1.0 of type float; write 1", built, "uniform", generator=1.0)
    refuses(f"{start}'0' of type str", built, "uniform", generator="0")
    with pytest.raises(ValueError, match=f"^{re.escape(start)}.*of type Generator$"):
        built("uniform", generator=np.random.default_rng(0))
    message = f"a seed given as generator must lie in 0..2^64 - 1, got {2**64}"
    refuses(message, built, "uniform", generator=2**64)
    coreset = built("uniform")
    one, other = (
        worst_query(CACHE, coreset, RHO, generator=g, **EFFORT) for g in (5, torch.Generator().manual_seed(5))
    )
    assert torch.equal(one.query, other.query)


@pytest.mark.filterwarnings("ignore:random numbers are drawn on the CPU")
def test_generators_of_another_device(device: str) -> None:
    """On a GPU a generator of either device serves, the same numbers each time."""
    cache = CACHE.to(device)
    construct = make_coreset("kernel_halving")
    for kind in {"cpu", device}:
        one, other = (construct(cache, SIZE, RHO, torch.Generator(kind).manual_seed(3)) for _ in range(2))
        same(one, other)
        assert one.indices.device.type == device
        found = worst_query(cache, one, RHO, generator=torch.Generator(kind).manual_seed(3), **EFFORT)
        assert float(found.error) > 0


SCALES = (1e200, 2.0**300, 1e-200)


@pytest.mark.parametrize("name", NAMES)
def test_values_may_have_any_size(name: str) -> None:
    """The power of 2 changes no digit, so that tokens are those of the plain values."""
    if name == "coordinate_subset":
        pytest.skip("its values are +-1")
    same(built(name, values=CACHE.values * 2.0**300), built(name, values=CACHE.values * 2.0**60))
    for scale in SCALES:
        assert built(name, values=CACHE.values * scale).size == SIZE
    assert built(name, values=torch.zeros_like(CACHE.values)).size == SIZE
    assert built(name, values=torch.ones_like(CACHE.values)).size == SIZE
    assert built(name, values=torch.ones_like(CACHE.values), queries=1e3 * QUERIES).size == SIZE
    assert built(name, keys=torch.ones_like(CACHE.keys)).size == SIZE


@pytest.mark.parametrize("scale", SCALES)
def test_errors_of_values_of_any_size(scale: float) -> None:
    coreset = built("gram_schmidt_walk")
    found, plain = (
        worst_query(Cache(CACHE.keys, v), coreset, RHO, certify=True, gap=0.05 * s, **EFFORT)
        for v, s in ((CACHE.values * scale, scale), (CACHE.values, 1.0))
    )
    assert float(found.error) / scale == pytest.approx(float(plain.error), rel=1e-6)
    for name, ceiling in plain.ceilings.items():
        assert float(found.ceilings[name]) / scale == pytest.approx(float(ceiling), rel=1e-6), name
    assert float(found.enclosure.lower) / scale == pytest.approx(float(plain.enclosure.lower), rel=1e-6)
    errors = attention_error(QUERIES[0], Cache(CACHE.keys, CACHE.values * scale), coreset)
    torch.testing.assert_close(errors / scale, attention_error(QUERIES[0], CACHE, coreset), rtol=1e-9, atol=0)


def test_the_unit_of_values_is_a_power_of_two() -> None:
    values = CACHE.values * torch.tensor([1e300, 1.0, 1e-300, 0.0], dtype=torch.float64)[:, None, None]
    unit = exact_unit(values)
    assert torch.equal(unit.log2(), unit.log2().round())
    assert unit.flatten()[1] == unit.flatten()[3] == 1
    assert torch.equal(values / unit * unit, values)
    assert 1 <= float((values / unit)[2].abs().max()) < 2
    assert float((values / unit).abs().max()) < 2


def test_keys_and_radii_beyond_all_bounds() -> None:
    message = (
        "keys reach 1e+20, above the 1e+15 whose squares can be summed; divide keys by a constant, and multiply "
        "queries and rho by it"
    )
    far = CACHE.keys / CACHE.keys.abs().max() * 1e20
    refuses(message, built, "greedy", far)
    refuses(message, worst_query, Cache(far, CACHE.values), built("uniform"), RHO)
    refuses(message, tilt, far, RHO)
    with pytest.raises(
        ValueError, match=r"is 1e\+08 nats, and the tilt is found up to 1e\+05; from 710 on e\^\(rho sig"
    ):
        tilt(make_cache("sphere", n=50, d=3).keys, 1e8)
    for rho in (800.0, 2e4):  # e^(rho sigma) is no float
        coreset = built("gram_schmidt_walk", rho=rho)
        found = worst_query(CACHE, coreset, rho, **EFFORT)
        assert float(found.error) == pytest.approx(float(attention_error(found.query[None], CACHE, coreset)), abs=1e-9)
    assert balancing_bound(8, 8, 64, 800.0, 1.0, values=3.0) == 6.0
    assert antipodal_minimum_size(400.0, 0.1) == exp(710.0) == np.inf
    assert exp(2.0) == np.exp(2.0)
    features = make_coreset("gram_schmidt_walk", form="random_features", rank=8)
    assert features(make_cache("sphere", n=32, d=4), 12, 400.0, 0).size == 12  # features of 1e-150


def test_blocks_of_a_stream_may_be_empty() -> None:
    cache = make_cache("sphere", n=100, d=4, heads=2)
    plain, gaps = (Stream("greedy", 8, 2.0, generator=3) for _ in range(2))
    nothing = cache.keys[:, :0], cache.values[:, :0]
    gaps.add(*nothing)
    assert gaps.n == 0
    with pytest.raises(ValueError, match="the stream has read no token"):
        gaps.coreset()
    for a, b in ((0, 30), (30, 100)):
        plain.add(cache.keys[:, a:b], cache.values[:, a:b])
        gaps.add(cache.keys[:, a:b].numpy(), cache.values[:, a:b].clone().requires_grad_())
        gaps.add(*nothing)
    same(gaps.coreset(), plain.coreset())
    assert gaps.n == 100
    message = "keys (2, 0, 3) must have the first block's shape (2, 'b', 4)"
    refuses(message, gaps.add, nothing[0][..., :3], nothing[1])
    refuses("memory must be a whole number, got 64.0 of type float; write 64", Stream, "greedy", 8, 2.0, 64.0)
