"""Refinement "certificate" lowers the kernel certificate, by a form that is the certificate's own."""

import pytest
import torch

from attention_coresets import Cache, Coreset, WeightedCache, make_cache, make_coreset
from attention_coresets.adversary import kernel_certificate
from attention_coresets.adversary.difference import differences
from attention_coresets.adversary.moments import token_moments
from attention_coresets.adversary.subsets import SubsetCeilings
from attention_coresets.coresets.kernel.certified import certified
from attention_coresets.coresets.kernel.degree_kernel import DegreeKernel
from tables import FAMILIES, generators, small_cache

RHO = 2.0
SEARCHED = 2e-3


def swapped(cache, size, rho=RHO, seeds=(0,)):
    """What the refinement begins with: tokens swapped for the kernel, weights fitted."""
    return make_coreset("gram_schmidt_walk", model="free", refinement="kernel_swaps")(
        cache, size, rho, generators(*seeds)
    )


def flat(cache, coreset):
    return Cache(*(x.reshape(1, *x.shape[-2:]) for x in (cache.keys, cache.values))), Coreset(
        coreset.indices.reshape(1, -1), coreset.log_weights.reshape(1, -1)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_certificate_never_rises(family):
    cache = small_cache(family, n=32, heads=1)
    start = swapped(cache, 10)
    found = certified(cache, start, RHO)
    assert found.indices.shape == start.indices.shape
    assert len(set(found.indices[0].tolist())) == 10
    # SEARCHED: each certificate is the least of those that a search met
    assert kernel_certificate(cache, found, RHO) <= kernel_certificate(cache, start, RHO) * (1 + SEARCHED) + 1e-12


@pytest.mark.parametrize(("family", "share"), [("cap_outliers", 0.7), ("sphere", 0.95), ("clusters", 0.95)])
def test_the_certificate_falls(family, share):
    cache = make_cache(family, n=128, d=4, seed=3, heads=1)
    start = swapped(cache, 32)
    found = certified(cache, start, RHO)
    assert kernel_certificate(cache, found, RHO) < share * kernel_certificate(cache, start, RHO)


@pytest.fixture
def law():
    cache = make_cache("cap_outliers", n=40, d=3, seed=1, heads=1)
    return next(iter(differences(*flat(cache, swapped(cache, 9)), RHO)))


@pytest.fixture
def head(law):
    return SubsetCeilings(law, RHO)


def some_subset(rng, size=9):
    weights = torch.from_numpy(rng.random(size))
    return torch.from_numpy(rng.permutation(40)[:size]), 40 * weights / weights.sum()


@pytest.mark.rounding
def test_moments_are_those_of_the_certificate(law, head, rng):
    tokens, weights = some_subset(rng)
    c = torch.ones(1, 40).double().index_put((torch.zeros(9, dtype=torch.long), tokens), -weights, accumulate=True)
    x, u = law.x / law.reach, law.u / law.output_radius
    wanted = token_moments(x, u, c, head.series.degrees)[1]
    torch.testing.assert_close(head.moments(tokens, weights), wanted, rtol=1e-9, atol=1e-13)


@pytest.mark.rounding
def test_a_ceiling_is_the_certificate_about_its_law(rng):
    cache = make_cache("sphere", n=40, d=3, seed=2, heads=1)
    first, other = (make_coreset("uniform")(cache, 9, RHO, seed) for seed in (1, 2))
    heads = [SubsetCeilings(law, RHO) for law in differences(*flat(cache, swapped(cache, 9)), RHO)]
    for coreset in (first, other):
        found = min(head.ceiling(coreset.indices[0], torch.zeros(9).double()) for head in heads)
        assert found == pytest.approx(float(kernel_certificate(cache, coreset, RHO)), rel=1e-6)


@pytest.mark.rounding
def test_the_form_is_that_of_the_weighted_moments(head, rng):
    """w^T G w over weights of sum n is n^2 sum_j alpha_j <M_j, Y>, for any alpha and Y that the search finds."""
    tokens, weights = some_subset(rng)
    moments = head.moments(tokens, weights)
    found = head.series.weigh(moments, torch.full((1,), 0.5).double(), (1.5, 2.0))
    wanted = (found.alpha[..., None, None] * moments * found.mixture.unsqueeze(1)).sum()
    gram = DegreeKernel(head, found).among(tokens)
    torch.testing.assert_close(weights @ gram @ weights / 40**2, wanted)


def test_promising_tokens_are_those_that_lower_the_form_most(head, rng):
    """Against the best of a thousand steps towards each token."""
    tokens, weights = some_subset(rng)
    kernel = DegreeKernel(head, head.series.weigh(head.moments(tokens, weights), torch.ones(1).double(), (1.5, 2.0)))
    gram, w = kernel.among(torch.arange(40)), torch.zeros(40).double().index_put((tokens,), weights)
    moved = 40 * torch.eye(40).double() - w  # [token, n]
    slopes, curves = moved @ gram @ w, (moved @ gram * moved).sum(-1)
    steps = torch.linspace(0, 1, 1001).double()
    gains = -(2 * steps * slopes[:, None] + steps**2 * curves[:, None]).amin(-1)
    found = kernel.promising(tokens, weights, 19)
    inside = torch.zeros(40, dtype=torch.bool).index_fill(0, found, True)
    assert inside[tokens].all()
    assert found.tolist() == sorted(set(found.tolist()))
    new, others = inside.index_fill(0, tokens, False), ~inside
    assert int(new.sum()) == 10
    assert gains[new].mean() > 3 * gains[others].mean()


def test_where_there_are_many_tokens_promising_ones_are_enough(monkeypatch):
    cache = make_cache("sphere", n=256, d=4, seed=3, heads=1)
    start = swapped(cache, 24)
    whole = kernel_certificate(cache, certified(cache, start, RHO), RHO)
    monkeypatch.setattr("attention_coresets.coresets.kernel.certified._POOL", 40)
    some = kernel_certificate(cache, certified(cache, start, RHO), RHO)
    assert some < 1.15 * whole < 1.15 * 0.95 * kernel_certificate(cache, start, RHO)


@pytest.mark.parametrize("part", [{"exchanges": False}, {"adapts": False}])
def test_each_part_is_worth_something(part):
    cache = make_cache("cap_outliers", n=128, d=4, seed=3, heads=1)
    start = swapped(cache, 32)
    whole, without = (kernel_certificate(cache, certified(cache, start, RHO, **asked), RHO) for asked in ({}, part))
    assert whole < 0.95 * without < kernel_certificate(cache, start, RHO)
    assert ("exchanges" in part) == torch.equal(certified(cache, start, RHO, **part).indices, start.indices)


def test_a_head_does_not_see_its_batch():
    cache = small_cache("clusters", n=32, heads=2)
    start = swapped(cache, 10, seeds=(0, 1))
    together = certified(cache, start, RHO)
    alone = certified(*flat(cache[1], start[1]), RHO)
    assert torch.equal(together.indices[1], alone.indices[0])
    torch.testing.assert_close(together.log_weights[1], alone.log_weights[0], rtol=0, atol=1e-9)


def test_a_weighted_token_stands_for_equal_ones():
    """Two halves of a cache, the second twice: weights 1 and 2 in place of repeated tokens; the same ceilings."""
    cache = small_cache("sphere", n=40)
    log_weights = torch.cat([torch.zeros(20), torch.full((20,), 2.0).log()]).double()
    weighted = WeightedCache(cache.keys, cache.values, log_weights)
    repeated = Cache(*(torch.cat([x, x[20:]]) for x in (cache.keys, cache.values)))
    construct = make_coreset("gram_schmidt_walk", model="free", refinement="certificate")
    coreset = construct(weighted, 12, RHO, *generators(0))
    same = kernel_certificate(repeated, coreset, RHO)
    torch.testing.assert_close(kernel_certificate(weighted, coreset, RHO), same, rtol=1e-5, atol=0)
    start = make_coreset("gram_schmidt_walk", model="free")(weighted, 12, RHO, *generators(0))
    assert same < kernel_certificate(weighted, start, RHO)


@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_fixed_weights_are_refused(model):
    message = f"refinement certificate fits weights, which the {model} model fixes; model must be free"
    with pytest.raises(ValueError, match=message):
        make_coreset("gram_schmidt_walk", model=model, refinement="certificate")
