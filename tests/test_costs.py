"""Estimates of memory and time: as they grow where constructions state how, and what a walk is known to hold."""

import pytest

from attention_coresets import make_coreset
from attention_coresets.study.costs import cell_cost, machine_memory, tokens

ADVERSARY = {"restarts": 4, "steps": 4, "polish": 4, "certify": False}


def cost(name: str, n: int, heads: int = 1, **parameters):
    cache = {"name": "sphere", "n": n, "d": 8}
    config = {"cache": cache, "heads": heads, "sizes": [n // 8], "adversary": ADVERSARY}
    return cell_cost(config, make_coreset(name, **parameters))


@pytest.mark.parametrize(
    ("name", "parameters", "flops", "numbers"),
    [
        ("gram_schmidt_walk", {}, 3, 2),
        ("gram_schmidt_walk", {"form": "pivoted_cholesky", "rank": 64}, 2, 1),
        ("query_walk", {}, 3, 2),
        ("kernel_halving", {}, 2, 1),
        ("greedy", {"refinement": "kernel_swaps"}, 2, 1),
        ("greedy", {"refinement": "portfolio"}, 2, 2),
        ("sensitivity_draws", {}, 2, 1),
        ("tilted_draws", {}, 1, 1),
        ("knorm", {}, 2, 1),  # n tokens for each of n / 8
    ],
)
def test_costs_grow_as_stated(name: str, parameters: dict, flops: int, numbers: int) -> None:
    """By the power of n, to a tenth, between two sizes at which nothing else counts."""
    small, large = cost(name, 2**17, **parameters), cost(name, 2**18, **parameters)
    assert large.flops / small.flops == pytest.approx(2**flops, rel=0.15)
    assert large.numbers / small.numbers == pytest.approx(2**numbers, rel=0.15)


def test_a_walk_holds_its_matrix_and_a_copy() -> None:
    n = 4096
    assert 2 * n**2 <= cost("gram_schmidt_walk", n).numbers <= 4 * n**2
    assert n**3 <= cost("gram_schmidt_walk", n).flops <= 10 * n**3
    assert cost("uniform", n, heads=3).flops == pytest.approx(3 * cost("uniform", n).flops)


def test_fitted_weights_hold_no_whole_matrix_of_a_long_cache() -> None:
    """Where the tokens come from swaps after each round, as where they come from none or from one pass."""
    free, tilted = (
        make_coreset("kernel_halving", model=model, recursion="compress", refinement="round_swaps")
        for model in ("free", "tilted")
    )
    assert free.cost(2**16, 256, 8).numbers == tilted.cost(2**16, 256, 8).numbers
    assert free.cost(2**11, 256, 8).numbers >= 2**22  # a short one's is held


def test_tokens_of_a_cache_that_leaves_them_out() -> None:
    assert tokens({"name": "signed_clusters", "n": None, "d": 4, "clusters": 6}) == 24
    assert tokens({"name": "signed_clusters", "n": None, "d": 4, "clusters": None}) == 16
    assert 1e9 < machine_memory() < 1e14
