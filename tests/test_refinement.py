"""The refinement axis and the free model of the balanced constructions, against their own definitions."""

import pytest
import torch

from attention_coresets import make_coreset, tilt, worst_query
from attention_coresets.coresets.kernel.law import balancing_gram, capped_marginals, law
from attention_coresets.coresets.kernel.refit import refit_log_weights
from tables import generators, small_cache

RHO, SIZE = 1.2, 14
BALANCED = ("gram_schmidt_walk", "self_balancing_walk", "kernel_halving", "greedy", "paired_coin")


def distance(cache, coreset, model):
    """|sum_i pi_i g_i - sum over the coreset of g_i|^2 of each head, from the whole Gram matrix."""
    measure = law(cache.keys, RHO, model, "auto")
    pi = capped_marginals(measure.log_p, SIZE)
    gram = balancing_gram(cache.keys, cache.values, -pi.log(), measure)
    signed = pi.scatter_add(-1, coreset.indices, -torch.ones_like(coreset.indices, dtype=pi.dtype))
    return (signed.unsqueeze(-2) @ gram @ signed.unsqueeze(-1)).flatten()


@pytest.mark.parametrize("name", BALANCED)
@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_kernel_swaps_come_closer(name, model):
    cache = small_cache("clusters", n=60, heads=3)
    plain, swapped = (
        make_coreset(name, model=model, refinement=refinement)(cache, SIZE, RHO, generators(1, 2, 3))
        for refinement in ("none", "kernel_swaps")
    )
    before, after = (distance(cache, coreset, model) for coreset in (plain, swapped))
    assert (after <= before + 1e-12).all()
    assert (after < 0.8 * before).any()


@pytest.mark.parametrize("recursion", ["one_walk", "compress"])
def test_weights_after_swaps_are_those_of_the_tilt(recursion):
    cache = small_cache("cap_outliers", n=60, heads=2)
    construct = make_coreset("gram_schmidt_walk", recursion=recursion, refinement="kernel_swaps")
    coreset = construct(cache, SIZE, RHO, generators(1, 2))
    pi = capped_marginals(tilt(cache.keys, RHO).log_p, SIZE)
    torch.testing.assert_close(coreset.log_weights, -pi.gather(-1, coreset.indices).log(), rtol=0, atol=1e-9)


@pytest.mark.rounding
@pytest.mark.parametrize("name", BALANCED)
def test_free_weights_are_refitted_on_the_tilted_tokens(name):
    cache = small_cache("sphere", n=60, heads=2)
    tilted, free = (make_coreset(name, model=m)(cache, SIZE, RHO, generators(1, 2)) for m in ("tilted", "free"))
    assert torch.equal(free.indices, tilted.indices)
    wanted = refit_log_weights(cache, tilted, RHO).log_weights
    torch.testing.assert_close(free.log_weights.softmax(-1), wanted.softmax(-1), rtol=1e-6, atol=1e-9)
    assert not torch.allclose(free.log_weights.softmax(-1), tilted.log_weights.softmax(-1), atol=1e-3)


def test_minimax_keeps_the_weights_of_its_model_and_errs_least():
    """On the same tokens to begin with: less error than kernel swaps leave, and weights that are the model's own."""
    cache = small_cache("cap_outliers", n=96, heads=2)
    pi = capped_marginals(tilt(cache.keys, RHO).log_p, SIZE)
    for model in ("tilted", "unweighted", "free"):
        swapped, fitted = (
            make_coreset("gram_schmidt_walk", model=model, refinement=r)(cache, SIZE, RHO, generators(1, 2))
            for r in ("kernel_swaps", "minimax")
        )
        before, after = (worst_query(cache, coreset, RHO).error for coreset in (swapped, fitted))
        assert (after < before * (1 + 1e-6)).all()
        assert after.log().mean() < before.log().mean() - 0.05
        if model == "tilted":
            wanted = -pi.gather(-1, fitted.indices).log()
            torch.testing.assert_close(fitted.log_weights, wanted, rtol=0, atol=1e-9)
        assert (fitted.log_weights is None) == (model == "unweighted")
