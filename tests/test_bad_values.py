"""What the library refuses: one line that names the value, the limit and, for a name, the nearest known one."""

import dataclasses
import math
import re

import pytest
import torch

from attention_coresets import (
    CACHES,
    CORESETS,
    Cache,
    Coreset,
    WeightedCache,
    attention_error,
    make_cache,
    make_coreset,
    tilt,
    worst_query,
)
from attention_coresets.adversary import kernel_certificate
from attention_coresets.coresets import catalogue
from attention_coresets.coresets.balancing.refinement import REFINEMENTS
from tables import CONSTRUCTIONS, build, generators, label, small_cache

KEYS, VALUES = torch.zeros(5, 3), torch.zeros(5, 2)
BAD_RADII = [0.0, -1.0, math.inf, -math.inf, math.nan]


def refuses(message, call, *args, **kwargs):
    """The call raises ValueError with exactly this message: one line."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*args, **kwargs)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["keys", "values"])
def test_a_cache_without_finite_numbers(bad, part):
    arrays = {"keys": KEYS.clone(), "values": VALUES.clone()}
    arrays[part][3, 1] = bad
    refuses(f"{part} hold NaN or Inf; clean the cache before building a coreset", Cache, **arrays)


@pytest.mark.usefixtures("unchecked")
def test_a_cache_whose_parts_do_not_match():
    refuses("keys (5, 3) and values (4, 2) must agree but for the last axis", Cache, KEYS, VALUES[:4])
    refuses("keys (2, 5, 3) and values (5, 2) must agree but for the last axis", Cache, KEYS.expand(2, 5, 3), VALUES)
    refuses("a cache needs at least one token and dimension, got keys (0, 3)", Cache, KEYS[:0], VALUES[:0])
    refuses("a cache needs at least one token and dimension, got keys (5, 0)", Cache, KEYS[:, :0], VALUES)


@pytest.mark.usefixtures("unchecked")
def test_a_cache_of_other_dtypes():
    message = "keys and values need one floating dtype, got torch.float32 and torch.float64"
    refuses(message, Cache, KEYS, VALUES.double())
    whole = "keys and values need one floating dtype, got torch.int64 and torch.int64"
    refuses(whole, Cache, KEYS.long(), VALUES.long())


@pytest.mark.usefixtures("unchecked")
def test_a_weighted_cache_needs_a_weight_a_token():
    refuses("log_weights (4,) must be one a token, (5,)", WeightedCache, KEYS, VALUES, torch.zeros(4))
    message = "log_weights must be finite, of shape (5,): one a token"
    refuses(message, tilt, KEYS, 1.0, torch.zeros(4))
    refuses(message, tilt, KEYS, 1.0, torch.full((5,), torch.inf))


@pytest.mark.usefixtures("unchecked")
def test_a_coreset_that_is_none():
    refuses("coreset indices must be distinct and sorted", Coreset, torch.tensor([0, 2, 2]))
    refuses("coreset indices must be distinct and sorted", Coreset, torch.tensor([[0, 1], [2, 1]]))
    refuses("a coreset needs at least one token", Coreset, torch.zeros(0, dtype=torch.int64))
    message = "log_weights (3,) must match indices (2,)"
    refuses(message, Coreset, torch.tensor([0, 1]), torch.zeros(3))
    bad = torch.tensor([0.0, math.inf])
    refuses("coreset log_weights hold NaN or Inf", Coreset, torch.tensor([0, 1]), bad)


CACHE = small_cache("sphere", n=6, d=3, heads=2)
QUERIES = torch.zeros(2, 4, 3, dtype=torch.float64)
USES = {
    "attention_error": lambda coreset: attention_error(QUERIES, CACHE, coreset),
    "worst_query": lambda coreset: worst_query(CACHE, coreset, 2.0),
    "kernel_certificate": lambda coreset: kernel_certificate(CACHE, coreset, 2.0),
}


@pytest.mark.parametrize("use", USES)
def test_a_coreset_of_another_cache(use):
    one, many = Coreset(torch.tensor([[0, 1]])), Coreset(torch.tensor([[0, 1]] * 3))
    refuses("coreset heads (1,) must be the cache's (2,)", USES[use], one)
    refuses("coreset heads (3,) must be the cache's (2,)", USES[use], many)
    refuses("coreset heads () must be the cache's (2,)", USES[use], one[0])
    refuses("coreset indices must lie in 0..5, got 0..6", USES[use], Coreset(torch.tensor([[0, 1], [2, 6]])))
    refuses("coreset indices must lie in 0..5, got -1..1", USES[use], Coreset(torch.tensor([[-1, 1], [0, 1]])))


def test_queries_of_another_cache():
    coreset = Coreset(torch.tensor([[0, 1], [0, 1]]))
    wanted = "must have shape (2, 'b', 3) for this cache"
    refuses(f"queries (2, 4, 2) {wanted}", attention_error, QUERIES[..., :2], CACHE, coreset)
    refuses(f"queries (1, 4, 3) {wanted}", attention_error, QUERIES[:1], CACHE, coreset)
    refuses(f"queries (4, 3) {wanted}", attention_error, QUERIES[0], CACHE, coreset)
    refuses("queries hold NaN or Inf", attention_error, QUERIES + math.nan, CACHE, coreset)


@pytest.mark.parametrize("rho", BAD_RADII)
def test_a_radius_that_is_none(rho):
    message = f"rho must be a positive finite number, got {rho}"
    coreset = Coreset(torch.tensor([[0, 1], [0, 1]]))
    refuses(message, tilt, CACHE.keys, rho)
    refuses(message, worst_query, CACHE, coreset, rho)
    refuses(message, kernel_certificate, CACHE, coreset, rho)
    for name in CORESETS:
        for size in (3, 6):  # also where every token is kept and rho would play no part
            refuses(message, make_coreset(name), CACHE, size, rho, *generators(0))


def test_keys_without_finite_numbers_have_no_tilt():
    refuses("keys hold NaN or Inf; clean them before asking for a tilt", tilt, CACHE.keys + math.nan, 1.0)


@pytest.mark.parametrize("entry", CONSTRUCTIONS, ids=label)
@pytest.mark.parametrize("size", [0, -3])
def test_a_size_below_one(entry, size):
    refuses(f"size must be at least 1 token, got {size}", build, entry, CACHE, size, 2.0, *generators(0))


def test_generators_that_do_not_fit():
    message = "got 3 generators for 2 heads; pass one for all, or one a head"
    for name in CORESETS:
        refuses(message, make_coreset(name), CACHE, 3, 2.0, generators(0, 1, 2))


@pytest.mark.parametrize("count", ["restarts", "steps", "polish"])
def test_counts_of_the_adversary_below_one(count):
    numbers = {"restarts": 4, "steps": 3, "polish": 2, count: 0}
    message = f"restarts, steps and polish must be at least 1, got {', '.join(map(str, numbers.values()))}"
    refuses(message, worst_query, CACHE, Coreset(torch.tensor([[0], [1]])), 1.0, **numbers)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("spheer", "sphere"), ("cap_outlier", "cap_outliers"), ("signedclusters", "signed_clusters"), ("Model", "model")],
)
def test_an_unknown_cache_names_the_nearest(name, nearest):
    refuses(f"unknown cache {name!r}; did you mean {nearest!r}? known: {', '.join(CACHES)}", make_cache, name)


@pytest.mark.parametrize(
    ("name", "nearest"), [("greddy", "greedy"), ("gram_schmidt", "gram_schmidt_walk"), ("unifrom", "uniform")]
)
def test_an_unknown_construction_names_the_nearest(name, nearest):
    known = ", ".join(catalogue.CONSTRUCTIONS)
    refuses(f"unknown construction {name!r}; did you mean {nearest!r}? known: {known}", make_coreset, name)


def test_a_name_like_no_other_lists_them_all():
    refuses(f"unknown cache 'xyz'; known: {', '.join(CACHES)}", make_cache, "xyz")


def test_an_unknown_parameter_names_the_nearest():
    known = "n, d, clusters, concentration"
    message = f"unknown parameter of cache 'clusters' 'cluster'; did you mean 'clusters'? known: {known}"
    refuses(message, make_cache, "clusters", cluster=3)
    known = ", ".join(field.name for field in dataclasses.fields(CORESETS["greedy"]))
    message = f"unknown parameter of construction 'greedy' 'scales'; did you mean 'scale'? known: {known}"
    refuses(message, make_coreset, "greedy", scales="one")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "tiltd"}, "unknown model 'tiltd'; did you mean 'tilted'? known: tilted, unweighted, free"),
        ({"scale": "xyz"}, "unknown scale 'xyz'; known: auto, one, inv_sqrt_d, rho"),
        (
            {"recursion": "halve"},
            "unknown recursion 'halve'; did you mean 'halving'? known: one_walk, halving, buckets, merge_reduce, "
            "compress, compress_pp",
        ),
        ({"ridge": 0.0}, "ridge must be above 0, got 0.0: near-duplicate keys make the Gram matrix singular"),
        ({"ridge": math.nan}, "ridge must be above 0, got nan: near-duplicate keys make the Gram matrix singular"),
    ],
)
def test_parameters_of_a_construction(parameters, message):
    refuses(message, make_coreset, "gram_schmidt_walk", **parameters)


def test_other_parameters_of_constructions():
    message = "herding's weights follow from its marginals; model must be tilted or unweighted"
    refuses(message, make_coreset, "herding", model="free")
    message = "unknown refinement 'kernel_swap'; did you mean 'kernel_swaps'? known: " + ", ".join(REFINEMENTS)
    refuses(message, make_coreset, "greedy", refinement="kernel_swap")
    refuses("metric must be one of keys, keys_values, got 'key'", make_coreset, "k_center", metric="key")
    refuses("delta must be above 0, got 0.0", make_coreset, "subgen", delta=0.0)
    refuses("tolerance must be above 0, got -1.0", make_coreset, "sensitivity_draws", tolerance=-1.0)
    message = (
        "a coin does not see which tokens share its bucket: recursion 'compress' chooses as halving does; use halving"
    )
    refuses(message, make_coreset, "paired_coin", recursion="compress")
    refuses("c must be above 0, got -1.0", make_coreset, "self_balancing_walk", c=-1.0)
    refuses("delta must lie strictly between 0 and 1, got 1.0", make_coreset, "kernel_halving", delta=1.0)
    refuses("sinks must be at least 0, got -1", make_coreset, "uniform", sinks=-1)
    message = "size must exceed the 4 sinks that are always kept, got 4"
    refuses(message, make_coreset("uniform", sinks=4), CACHE, 4, 1.0, *generators(0))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("sphere", {"n": 0}, "n must be above 0, got 0"),
        ("sphere", {"d": -2}, "d must be above 0, got -2"),
        ("clusters", {"concentration": math.inf}, "concentration must be above 0, got inf"),
        ("clusters", {"d": 1}, "d must be at least 2 for clusters, got 1"),
        ("cap_outliers", {"d": 1}, "d must be at least 2 for cap_outliers, got 1"),
        ("cap_outliers", {"outliers": 1.0}, "outliers must lie strictly between 0 and 1, got 1.0"),
        ("cap_outliers", {"outliers": 0.0}, "outliers must lie strictly between 0 and 1, got 0.0"),
        ("low_rank", {"rank": 9, "d": 8}, "rank must be at most d = 8, got 9"),
        ("product", {"distinct": 9, "n": 8}, "distinct must be at most n = 8, got 9"),
        ("antipodal", {"values": "cube"}, "values must be one of sphere, keys, got 'cube'"),
        ("antipodal", {"rho": math.nan}, "rho must be above 0, got nan"),
        (
            "antipodal",
            {"n": 100, "rho": 3.0},
            "rho = 3.0 leaves no key at +u with n = 100; take rho <= 2.65 or a larger n",
        ),
        ("signed_clusters", {"clusters": 3}, "clusters must be even, so that the signs balance, got 3"),
        ("signed_clusters", {"d": 8, "n": 20}, "n must be a multiple of d = 8 for signed_clusters, got 20"),
        (
            "signed_clusters",
            {"d": 8, "n": 32, "clusters": 6},
            "n must be clusters * d = 48, got 32; leave one of them out",
        ),
    ],
)
def test_parameters_of_a_family(name, parameters, message):
    refuses(message, make_cache, name, **parameters)


def test_the_stated_limit_of_antipodal_is_where_it_begins_to_refuse():
    assert make_cache("antipodal", n=100, rho=2.64).n == 100
    with pytest.raises(ValueError, match="leaves no key at"):
        make_cache("antipodal", n=100, rho=2.66)
    with pytest.raises(ValueError, match="leaves no key at"):
        make_cache("antipodal", n=100, rho=1e6)  # no overflow on the way


@pytest.mark.parametrize("heads", [0, -1])
def test_no_heads(heads):
    refuses(f"heads must be at least 1, got {heads}", make_cache, "sphere", heads=heads)
