"""Refinements of many heads in step, as a GPU does them, beside each head alone on the CPU; what more heads cost."""

from collections.abc import Callable, Sequence

import pytest
import torch

from agreement import assert_agree
from attention_coresets import Cache, Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.minimax.minimax import Minimax, minimax
from attention_coresets.coresets.minimax.query_bank import Bank, bank_of, random_queries, second_moment
from attention_coresets.coresets.minimax.supports import Supports
from attention_coresets.coresets.minimax.swaps import minimax_swaps
from attention_coresets.coresets.minimax.tabu import tabu_search
from attention_coresets.coresets.minimax.weights import minimax_weights
from pretend_cuda import pretend_cuda
from tables import generators, small_cache

N, D, M, RHO = 48, 4, 8, 2.0
DIGITS = 1e-9  # of weights that follow from the same tokens
GROWTH = 1.05  # of launches and waits from 1 head to 8 equal ones
QUICK = {"rounds": 2, "random": 64, "restarts": 12, "steps": 4, "bank": 80}
Work = tuple[Callable[..., object], tuple]


def mixed() -> Cache:
    """Heads that need other moves than each other, the last one without any error."""
    heads = [small_cache(family, n=N, d=D) for family in ("sphere", "clusters", "cap_outliers", "sphere")]
    values = [h.values for h in heads[:-1]] + [torch.ones_like(heads[0].values)]
    return Cache(torch.stack([h.keys for h in heads]), torch.stack(values))


def queries(seeds: Sequence[int]) -> torch.Tensor:
    return random_queries(generators(*seeds), 64, D, RHO)


def uniforms(seeds: Sequence[int], *shape: int) -> torch.Tensor:
    return torch.stack([torch.rand(shape, dtype=torch.float64, generator=g) for g in generators(*seeds)])


def first(seeds: Sequence[int]) -> torch.Tensor:
    return torch.arange(M).repeat(len(seeds), 1)


def an_exchange(cache: Cache, seeds: Sequence[int]) -> Work:
    asked = queries(seeds)
    moment = second_moment(cache.keys, cache.values, asked, torch.full_like(asked[..., 0], 1 / 64))
    return exchange, (*moment, first(seeds))


def a_fit(cache: Cache, seeds: Sequence[int]) -> Work:
    start = first(seeds)
    return minimax_weights, (cache, bank_of(cache, queries(seeds)), start, torch.zeros_like(start, dtype=torch.float64))


def a_pass(cache: Cache, seeds: Sequence[int]) -> Work:
    kept, u = (torch.arange(N) < M).repeat(len(seeds), 1), uniforms(seeds, N)
    return minimax_swaps, (cache, bank_of(cache, queries(seeds)), kept, u - 0.5, u)


def a_search(cache: Cache, seeds: Sequence[int]) -> Work:
    gram = (cache.keys @ cache.keys.mT).exp() * (cache.values @ cache.values.mT)
    kept, u = (torch.arange(N) < M).repeat(len(seeds), 3, 1), uniforms(seeds, 3, 2, 20)
    return lambda g, k, u: tabu_search(g, k, 20, u), (gram, kept, u)


STEPS = {"exchange": an_exchange, "weights": a_fit, "swaps": a_pass, "tabu search": a_search}


def refined(cache: Cache, seeds: Sequence[int], model: str, **flags: bool) -> Coreset:
    start = Coreset(first(seeds).to(cache.keys.device))
    return minimax(cache, start, RHO, model, None, generators(*seeds), Minimax(**QUICK, **flags))


def each(change: Callable, x: object) -> object:
    return Bank(*(change(y) for y in x)) if isinstance(x, Bank) else change(x)


def tensors(found: object) -> Sequence[torch.Tensor]:
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("name", STEPS)
def test_heads_in_step_end_where_each_ends_alone(name):
    """Tokens equal; weights as far as sums in another order let them."""
    cache = mixed()
    work, inputs = STEPS[name](cache, range(4))
    alone = [tensors(work(*(each(lambda x, h=h: x[h : h + 1], x) for x in inputs))) for h in range(4)]
    with pretend_cuda():
        found = [x.cpu() for x in tensors(work(*(each(lambda x: x.to("cuda"), x) for x in inputs)))]
    for x, expected in zip(found, map(torch.cat, zip(*alone, strict=True)), strict=True):
        if x.is_floating_point():
            torch.testing.assert_close(x, expected, rtol=DIGITS, atol=DIGITS)
        else:
            assert torch.equal(x, expected)


@pytest.mark.parametrize(
    ("model", "flags"),
    [("free", {}), ("unweighted", {}), pytest.param("unweighted", {"portfolio": True}, marks=pytest.mark.slow)],
)
def test_refined_heads_in_step_are_each_s_own(model, flags):
    cache = mixed()
    alone = [refined(cache[h : h + 1], [h], model, **flags) for h in range(4)]
    with pretend_cuda():
        found = refined(cache.to("cuda"), range(4), model, **flags)
        indices, weights = found.indices.cpu(), None if found.log_weights is None else found.log_weights.cpu()
    both = torch.cat([c.indices for c in alone]), None if weights is None else torch.cat([c.log_weights for c in alone])
    assert_agree(Agreement.ERROR, Coreset(indices, weights), Coreset(*both), cache, RHO)
    assert torch.equal(indices[3], first([0])[0])  # no error: as it was


def test_a_head_that_is_left_alone_keeps_every_bit():
    gram, total, tokens = an_exchange(mixed(), range(4))[1]
    supports = Supports(gram + 1e-6 * torch.eye(N), total, tokens)
    names = ("P", "M", "w", "s", "r", "tokens", "used", "inside")
    before = {name: getattr(supports, name).clone() for name in names}
    slot, one = torch.zeros_like(tokens[:, 0]), torch.arange(4) == 1
    supports.remove(slot, one)
    supports.insert(slot, slot + M, one)
    for name in names:
        same = [torch.equal(x, y) for x, y in zip(getattr(supports, name), before[name], strict=True)]
        assert same == [True, False, True, True] or name == "used"
    assert bool(supports.used.all())


def cost(name: str, heads: int) -> tuple[int, int]:
    """Launches and waits of so many equal heads."""
    seeds, one = heads * [0], small_cache("sphere", n=N, d=D)
    cache = Cache(*(x.repeat(heads, 1, 1) for x in (one.keys, one.values)))
    work, inputs = STEPS[name](cache, seeds) if name in STEPS else (lambda c: refined(c, seeds, name), (cache,))
    with pretend_cuda() as counts:
        inputs = [each(lambda x: x.to("cuda"), x) for x in inputs]
        counts.clear()
        work(*inputs)
        return sum(counts.launches.values()), sum(counts.waits.values())


@pytest.mark.parametrize("name", [*STEPS, "free", "unweighted"])
def test_eight_heads_cost_hardly_more_than_one(name):
    for one, eight in zip(cost(name, 1), cost(name, 8), strict=True):
        assert eight <= GROWTH * one
