"""The same on a GPU as on the CPU: every family, construction, walk, ascent, certificate, stream, cell and model.

Beside a reference on the CPU, which has numba where it is installed. The default suite has a pretended GPU alone. There
the arithmetic is the CPU's, so that what is tested is that the loops in torch keep its tokens, and that no tensor is on
another device than the rest. Tolerances were set before anything was measured.
"""

import pytest
import torch

from agreement import assert_agree
from attention_coresets import (
    CORESETS,
    Cache,
    Coreset,
    Stream,
    make_cache,
    make_coreset,
    minimum_ellipsoid,
    tilt,
    worst_query,
)
from attention_coresets.adversary.certificate import CERTIFICATES
from attention_coresets.caches import CACHES
from attention_coresets.coresets.kernel.law import law
from attention_coresets.lower_bound import signed_clusters_bounds
from attention_coresets.study.cell import run_cell
from benchmarks.gpu.cells import cells
from tables import CONSTRUCTIONS, FAMILIES, OFF_SPHERE, generators, label, small_cache

RHO, SIZE = 1.5, 12
DIGITS = 1e-9  # of numbers that no choice depends on, relative
CEILINGS = 1e-6  # of certificates, which solve eigenproblems
ERRORS = 0.02  # of worst queries found by ascent, which may end on another hill
DRAWS = 0.25  # of means over 16 heads of walks that rounding sent another way
WALK = "gram_schmidt_walk"
REFINED = (
    (WALK, {"refinement": "minimax"}),
    (WALK, {"model": "free", "refinement": "minimax"}),
    (WALK, {"model": "free", "refinement": "minimax_random"}),
    (WALK, {"model": "free", "refinement": "exchange"}),
)
LONG = (
    (WALK, {"model": "unweighted", "refinement": "minimax"}),
    (WALK, {"model": "free", "refinement": "minimax_weights"}),
    (WALK, {"refinement": "portfolio"}),
)
OF_QUERIES = [name for name, kind in CORESETS.items() if kind.needs_queries or kind.needs_positions]


def on_cpu(coreset: Coreset) -> Coreset:
    weights = coreset.log_weights
    return Coreset(coreset.indices.cpu(), None if weights is None else weights.cpu())


def assert_on(device: str, *tensors: torch.Tensor | None) -> None:
    assert all(x.device.type == device for x in tensors if x is not None)


def both(cache: Cache, device: str, make) -> tuple[Coreset, Coreset]:
    """What `make(cache)` gives on the CPU and on the device, the second brought back."""
    reference = make(cache)
    found = make(cache.to(device))
    assert_on(device, found.indices, found.log_weights)
    return reference, on_cpu(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_caches_hold_the_same_tokens(device, family):
    cpu, found = small_cache(family, heads=2), small_cache(family, heads=2, device=device)
    assert_on(device, found.keys, found.values)
    assert torch.equal(found.keys.cpu(), cpu.keys)
    assert torch.equal(found.values.cpu(), cpu.values)


@pytest.mark.parametrize("family", FAMILIES)
def test_tilt_law_and_ellipsoid(device, family):
    cpu = small_cache(family, heads=2)
    cache = cpu.to(device)
    one, other = (tilt(c.keys, RHO) for c in (cpu, cache))
    assert_on(device, other.p, other.log_p, other.sigma)
    torch.testing.assert_close(other.p.cpu(), one.p, rtol=0, atol=DIGITS)
    torch.testing.assert_close(other.sigma.cpu(), one.sigma, rtol=DIGITS, atol=DIGITS)
    for model in ("tilted", "unweighted"):
        one, other = (law(c.keys, RHO, model, "auto") for c in (cpu, cache))
        torch.testing.assert_close(other.log_p.cpu(), one.log_p, rtol=DIGITS, atol=DIGITS)
        torch.testing.assert_close(other.scale.cpu(), one.scale, rtol=DIGITS, atol=DIGITS)
    one, other = (minimum_ellipsoid(c.keys) for c in (cpu, cache))
    assert_on(device, other.center, other.axes)
    torch.testing.assert_close(other.center.cpu(), one.center, rtol=CEILINGS, atol=CEILINGS)


@pytest.mark.parametrize("entry", CONSTRUCTIONS, ids=label)
def test_constructions_keep_the_cpu_s_tokens(device, entry):
    construct, cache = make_coreset(entry[0], **entry[1]), small_cache("cap_outliers", heads=2)
    found = both(cache, device, lambda c: construct(c, SIZE, RHO, generators(1, 2)))
    assert_agree(construct.agreement, *found, cache, RHO)


@pytest.mark.parametrize("entry", [*REFINED, *(pytest.param(x, marks=pytest.mark.slow) for x in LONG)], ids=label)
def test_refinements_are_the_cpu_s(device, entry):
    """As far as the class of their agreement says: the tokens, or for what follows an ascent the worst error."""
    construct, cache = make_coreset(entry[0], **entry[1]), small_cache("cap_outliers", n=32, heads=1)
    found = both(cache, device, lambda c: construct(c, 8, RHO, generators(1)))
    assert_agree(construct.agreement, *found, cache, RHO)


def test_weighted_tokens_and_other_norms(device):
    for family in OFF_SPHERE:
        cache, construct = small_cache(family, heads=2), make_coreset("walk_tilted")
        assert_agree(
            construct.agreement,
            *both(cache, device, lambda c, f=construct: f(c, SIZE, RHO, generators(1, 2))),
            cache,
            RHO,
        )


def test_exact_answers_and_lower_bounds(device):
    """The best of all subsets, the coordinate subset, and the floors of the instance that it is made for."""
    cache = make_cache("signed_clusters", d=4, clusters=4, heads=2)
    construct = make_coreset("coordinate_subset")
    there, here = both(cache, device, lambda c: construct(c, SIZE, RHO, generators(1, 2)))
    assert torch.equal(there.indices, here.indices)
    on_device = Coreset(here.indices.to(device))
    bounds = [signed_clusters_bounds(c, k, RHO) for c, k in ((cache, there), (cache.to(device), on_device))]
    for one, other in zip(*(vars(b).values() for b in bounds), strict=True):
        assert_on(device, other)
        torch.testing.assert_close(other.cpu(), one, rtol=DIGITS, atol=DIGITS)
    tiny, best = small_cache("sphere", n=8, d=2, heads=1), make_coreset("optimum", model="tilted")
    there, here = both(tiny, device, lambda c: best(c, 4, RHO, generators(1)))
    assert torch.equal(there.indices, here.indices)


@pytest.mark.parametrize("name", OF_QUERIES)
def test_constructions_of_queries_keep_the_cpu_s_tokens(device, name):
    construct, cache = make_coreset(name), small_cache("sphere", heads=2)
    queries = torch.randn(2, 2, 24, cache.d, dtype=torch.float64, generator=generators(5)[0])

    def make(c: Cache) -> Coreset:
        text = {"queries": queries.to(c.keys.device), "positions": torch.arange(c.n, device=c.keys.device).repeat(2, 1)}
        return construct(c, 20, RHO, generators(1, 2), **text)

    assert_agree(construct.agreement, *both(cache, device, make), cache, RHO)


@pytest.mark.parametrize("rule", ["gram_schmidt_walk", "greedy"])
def test_larger_walks_are_as_good(device, rule):
    """Where rounding may send a walk another way: sizes exact, discrepancy and error alike, both well below chance's.

    Of the rules those whose gain is large at this size already.
    """
    cache = make_cache("clusters", n=256, d=4, heads=16)
    construct, chance = make_coreset(rule), make_coreset("tilted_draws")
    cpu, found = both(cache, device, lambda c: construct(c, 64, RHO, generators(*range(16))))
    drawn = chance(cache, 64, RHO, generators(*range(16)))
    assert found.indices.shape == (16, 64)
    for measure in (discrepancy, worst):
        there, here, random = (float(measure(cache, coreset).log().mean().exp()) for coreset in (cpu, found, drawn))
        assert here == pytest.approx(there, rel=DRAWS)
        assert here < 0.8 * random


def discrepancy(cache: Cache, coreset: Coreset) -> torch.Tensor:
    """Of weighted tokens against all, in the kernel exp(<k, l>) (<v, w> + 1), each side's weights summing to 1."""
    weights = torch.full((16, cache.n), -1 / cache.n, dtype=torch.float64)
    own = torch.zeros_like(coreset.indices, dtype=torch.float64) if coreset.log_weights is None else coreset.log_weights
    weights.scatter_add_(-1, coreset.indices, own.softmax(-1))
    gram = (cache.keys @ cache.keys.mT).exp() * (cache.values @ cache.values.mT + 1)
    return (weights.unsqueeze(-2) @ gram @ weights.unsqueeze(-1)).flatten().sqrt()


def worst(cache: Cache, coreset: Coreset) -> torch.Tensor:
    return worst_query(cache, coreset, RHO, restarts=16, steps=30, polish=20).error


@pytest.mark.parametrize(("family", "d"), [("cap_outliers", 4), ("sphere", 16)])
def test_ascent_and_certificates(device, family, d):
    cpu = small_cache(family, n=64, d=d, heads=2)
    kept = make_coreset("uniform")(cpu, 16, RHO, generators(1, 2))
    there = worst_query(cpu, kept, RHO, certify=True)
    here = worst_query(cpu.to(device), Coreset(kept.indices.to(device)), RHO, certify=True)
    assert_on(device, here.error, here.query, here.reached, *here.ceilings.values())
    torch.testing.assert_close(here.error.cpu(), there.error, rtol=ERRORS, atol=1e-9)
    assert set(here.ceilings) == set(there.ceilings) >= set(CERTIFICATES)
    for name, ceiling in here.ceilings.items():
        assert (ceiling >= here.error).all()
        if name in CERTIFICATES:  # that of branch and bound is only as exact as its gap
            torch.testing.assert_close(ceiling.cpu(), there.ceilings[name], rtol=CEILINGS, atol=0)
    if d <= 4:
        assert_on(device, here.enclosure.lower, here.enclosure.upper)
        assert (here.enclosure.upper >= there.enclosure.lower.to(device)).all()
        assert (there.enclosure.upper.to(device) >= here.enclosure.lower).all()


@pytest.mark.parametrize("name", ["gram_schmidt_walk", "kernel_halving", "greedy"])
def test_streams_keep_the_cpu_s_tokens(device, name):
    cache = small_cache("cap_outliers", n=150, heads=2)

    def read(c: Cache):
        stream = Stream(make_coreset(name), 16, RHO, generator=generators(1, 2))
        for keys, values in zip(c.keys.split(40, dim=-2), c.values.split(40, dim=-2), strict=True):
            stream.add(keys, values)
        return stream.coreset()

    there, here = read(cache), read(cache.to(device))
    assert_on(device, here.indices, here.log_weights, here.keys, here.values)
    assert torch.equal(here.keys.cpu(), there.keys)
    assert_agree(make_coreset(name).agreement, there, on_cpu(here), cache, RHO)


@pytest.mark.parametrize("config", [config for _, config in cells("smoke")], ids=lambda config: config["arm"])
def test_cells_hold_the_cpu_s_numbers(device, config):
    there = run_cell(config)
    here = run_cell(config | {"compute": {"device": device, "dtype": "float64", "threads": None}})
    for a, b in zip(there, here, strict=True):
        assert b["device"].startswith(device)
        assert b["sigma"] == pytest.approx(a["sigma"], rel=DIGITS)
        assert b["error"] == pytest.approx(a["error"], rel=ERRORS, abs=1e-9)


def test_a_model_is_served_as_on_the_cpu(device):
    pytest.importorskip("attention_coresets.models.serving", reason="needs transformers", exc_type=ImportError)
    from benchmarks.gpu import llama

    context, following = llama.text(2, 40), llama.text(2, 6, seed=1)
    for arm in llama.ARMS:
        there = llama.served(llama.tiny_llama(), arm, context, following, 12)
        here = llama.served(llama.tiny_llama().to(device), arm, context, following, 12)
        assert_on(device, here)
        torch.testing.assert_close(here.cpu(), there, atol=llama.APART.bound, rtol=0)


def test_every_family_is_tried():
    assert set(FAMILIES) | {"model"} <= set(CACHES)
