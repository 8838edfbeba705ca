"""What the loops would cost a GPU, counted on a pretended one: launches, waits and transfers of each step.

A step's counts are those of many steps less those of few, so that what a loop does once is left out.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
import torch

from attention_coresets import Cache, Coreset, make_cache, make_coreset, tilt
from attention_coresets.adversary.ascent import climb
from attention_coresets.adversary.certificate import CERTIFICATES
from attention_coresets.coresets.kernel.kernel_swaps import kernel_swaps
from attention_coresets.coresets.kernel.law import law
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.minimax.query_bank import bank_of, random_queries, second_moment
from attention_coresets.coresets.minimax.swaps import minimax_swaps
from attention_coresets.coresets.walks.feature_walk import feature_signs
from attention_coresets.coresets.walks.walk import walk_signs
from benchmarks.gpu import predicted
from benchmarks.kernel import gram
from pretend_cuda import pretend_cuda
from tables import generators

RHO, D = 2.0, 8
APART = 0.1  # of a count of predicted.py from what is counted here, relative


class Work(NamedTuple):
    """Of one step, or of the whole where it has no steps."""

    launches: float
    waits: float
    transfers: float = 0.0


# the most that a step may cost, some 5 % above what it does cost
MOST = {
    "walk, a token": Work(50, 0),
    "feature walk, a token": Work(61, 0.04),
    "kernel_halving, a pair": Work(4.2, 0),
    "greedy, a pair": Work(5.3, 0),
    "self_balancing_walk, a pair": Work(4.2, 0),
    "kernel swaps, a kept token": Work(21, 0),
    "minimax swaps, a token": Work(17, 0),
    "exchange, a move": Work(142, 1),
    "ascent, a step": Work(71.4, 0),
    "ascent, a step of many": Work(1, 0),
    "herding, a kept token": Work(36.8, 0),
    "frank_wolfe, a kept token": Work(379, 7),
    "k_center, a kept token": Work(21, 0),
    "tilt, in all": Work(513, 11),
    "kernel certificate, in all": Work(1690, 47, 4),
    "taylor certificate, in all": Work(373, 4, 2),
}


def uniforms(*shape: int) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generators(1)[0]).to("cuda")


def walk(n: int) -> Callable[[], object]:
    matrix, u = gram(n, 2, "cuda"), uniforms(2, n)
    return lambda: walk_signs(matrix, torch.zeros_like(u), u)


def feature_walk(n: int) -> Callable[[], object]:
    features, u = uniforms(2, n, 16) - 0.5, uniforms(2, n)
    return lambda: feature_signs(features, torch.zeros_like(u), u, torch.full_like(u[:, 0], 1e-4))


def pairs(rule: str) -> Callable[[int], Callable[[], object]]:
    def work(count: int) -> Callable[[], object]:
        construct, u = make_coreset(rule), uniforms(2, 2, 2 * count)
        cache = make_cache("sphere", n=2 * count, d=D, heads=2, device="cuda")
        keys, values = cache.keys, cache.values
        none = torch.zeros_like(u[:, 0])
        features = construct.vectors(keys, values, none, law(keys, RHO, "unweighted", "auto"), u)
        return lambda: construct.signs(features, none, u)

    return work


def a_kernel_swap(m: int) -> Callable[[], object]:
    matrix = gram(4 * m, 2, "cuda")
    kept = torch.zeros(2, 4 * m, dtype=torch.bool, device="cuda")
    kept[:, ::4] = True
    return lambda: kernel_swaps(matrix, kept, matrix.sum(-1) / 4)


def cache_and_coreset(n: int, m: int, d: int = D) -> tuple[Cache, Coreset]:
    cache = make_cache("sphere", n=n, d=d, heads=1, device="cuda")
    return cache, make_coreset("uniform")(cache, m, RHO, generators(0))


def a_minimax_swap(n: int) -> Callable[[], object]:
    cache, coreset = cache_and_coreset(n, n // 8)
    bank = bank_of(cache, random_queries(generators(0), 128, D, RHO).to("cuda"))
    kept = torch.zeros(1, n, dtype=torch.bool, device="cuda").scatter_(-1, coreset.indices, True)
    u = uniforms(1, n)
    return lambda: minimax_swaps(cache, bank, kept, torch.zeros_like(u), u)


def an_exchange(moves: int) -> Callable[[], object]:
    cache, coreset = cache_and_coreset(256, 32)
    queries = random_queries(generators(0), 128, D, RHO).to("cuda")
    moment = second_moment(cache.keys, cache.values, queries, torch.full_like(queries[..., 0], 1 / 128))
    return lambda: exchange(*moment, coreset.indices, moves=moves, gain=0.0)


def ascent(steps: int) -> Callable[[], object]:
    cache, coreset = cache_and_coreset(64, 16)
    first = uniforms(1, 16, D)
    return lambda: climb(cache, coreset, RHO, first, steps)


def kept_by(name: str) -> Callable[[int], Callable[[], object]]:
    def work(m: int) -> Callable[[], object]:
        cache, construct = make_cache("sphere", n=96, d=4, heads=2, device="cuda"), make_coreset(name)
        return lambda: construct(cache, m, RHO, generators(1, 2))

    return work


def certificate(name: str) -> Callable[[], object]:
    cache, coreset = cache_and_coreset(256, 32)
    return lambda: CERTIFICATES[name](cache, coreset, RHO)


def a_tilt() -> Callable[[], object]:
    cache, _ = cache_and_coreset(64, 16)
    return lambda: tilt(cache.keys, RHO)


STEPS = {  # the loop of so many steps, and how few and how many are counted
    "walk, a token": (walk, 64, 160),
    "feature walk, a token": (feature_walk, 64, 192),
    **{f"{rule}, a pair": (pairs(rule), 16, 48) for rule in ("kernel_halving", "greedy", "self_balancing_walk")},
    "kernel swaps, a kept token": (a_kernel_swap, 8, 24),
    "minimax swaps, a token": (a_minimax_swap, 64, 192),
    "exchange, a move": (an_exchange, 4, 12),
    "ascent, a step": (ascent, 2, 6),  # too few for a graph
    "ascent, a step of many": (ascent, 12, 36),
    **{f"{name}, a kept token": (kept_by(name), 8, 24) for name in ("herding", "frank_wolfe", "k_center")},
}
WHOLE = {
    "tilt, in all": a_tilt,
    "kernel certificate, in all": lambda: certificate("kernel"),
    "taylor certificate, in all": lambda: certificate("taylor"),
}


@cache
def counted(name: str) -> Work:
    """What a step costs, or the whole."""
    if name in WHOLE:
        return _of(WHOLE[name])
    loop, few, many = STEPS[name]
    before, after = (_of(lambda steps=steps: loop(steps)) for steps in (few, many))
    return Work(*((b - a) / (many - few) for a, b in zip(before, after, strict=True)))


def _of(prepared: Callable[[], Callable[[], object]]) -> Work:
    with pretend_cuda() as counts:
        work = prepared()
        counts.clear()
        work()
        return Work(*(float(sum(found.values())) for found in (counts.launches, counts.waits, counts.transfers)))


@pytest.mark.parametrize("name", MOST)
def test_a_step_costs_at_most(name):
    found = counted(name)
    assert all(a <= b for a, b in zip(found, MOST[name], strict=True)), found


def test_every_loop_has_its_bound():
    assert set(MOST) == set(STEPS) | set(WHOLE)


@pytest.mark.parametrize("name", predicted.COUNTED)
def test_predicted_times_rest_on_these_counts(name):
    found, said = counted(name), predicted.COUNTED[name]
    assert said.launches == pytest.approx(found.launches, rel=APART)
    assert said.waits == pytest.approx(found.waits + found.transfers, rel=APART)
