"""Streams: memory held, exact size, weights that count the stream, blocks that leave no trace, error near one-shot."""

import numpy as np
import pytest
import torch

from agreement import assert_agree
from attention_coresets import (
    Cache,
    Coreset,
    HeldCoreset,
    Stream,
    WeightedCache,
    make_cache,
    make_coreset,
    worst_query,
)
from attention_coresets.coresets import CORESETS
from tables import generators, repeated, small_cache

RHO = 2.0
REDUCERS = [name for name, kind in CORESETS.items() if kind.takes_weights]
ONE_MODEL = ("tilted_draws", "two_stage")


def read(cache, block, construct="kernel_halving", size=16, memory=None, seeds=(0,)):
    """A stream that has read `cache` in blocks; never more than its memory held."""
    generator = generators(*seeds) if len(seeds) > 1 else generators(*seeds)[0]
    stream = Stream(construct, size, RHO, memory, generator)
    for keys, values in zip(cache.keys.split(block, dim=-2), cache.values.split(block, dim=-2), strict=True):
        stream.add(keys, values)
        assert stream.held <= stream.memory
    assert stream.n == cache.n
    return stream


def same(first, second):
    """Whether two held coresets are the same, weights to rounding."""
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.keys, second.keys)
    assert torch.equal(first.values, second.values)
    assert (first.log_weights is None) == (second.log_weights is None)
    if first.log_weights is not None:
        torch.testing.assert_close(first.log_weights, second.log_weights, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", REDUCERS)
@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_size_order_weights_and_blocks(name, model):
    if name in ONE_MODEL and model == "unweighted":
        pytest.skip(f"{name} has one model")
    construct = make_coreset(name, **({} if name in ONE_MODEL else {"model": model}))
    cache = small_cache("cap_outliers", n=250, heads=2)
    coreset = read(cache, 250, construct, seeds=(1, 2)).coreset()
    assert coreset.indices.shape == (2, 16)
    assert (coreset.indices.diff(dim=-1) > 0).all()
    assert torch.equal(coreset.keys, cache.take(coreset.indices)[0])
    assert torch.equal(coreset.values, cache.take(coreset.indices)[1])
    assert (coreset.log_weights is None) == (model == "unweighted")
    for block in (1, 32, 99):
        same(read(cache, block, construct, seeds=(1, 2)).coreset(), coreset)


@pytest.mark.rounding
@pytest.mark.parametrize("name", REDUCERS)
def test_a_head_is_the_same_in_any_batch_and_block(name):
    construct, cache = make_coreset(name), small_cache("cap_outliers", n=200, heads=2)
    coreset = read(cache, 200, construct, seeds=(1, 2)).coreset()
    for head, block in ((0, 33), (1, 100)):
        alone = read(cache[head], block, construct, seeds=(1 + head,)).coreset()
        assert_agree(construct.agreement, alone, coreset[head], cache[head], RHO)


@pytest.mark.parametrize("memory", [64, 80, 128, 1000])
def test_memory_is_kept_and_bounded_by_the_logarithm(memory):
    cache, most = make_cache("sphere", n=3000, d=3), 0
    stream = Stream("paired_coin", 16, RHO, memory, *generators(0))
    for keys, values in zip(cache.keys.split(11), cache.values.split(11), strict=True):
        stream.add(keys, values)
        most = max(most, stream.held)
        assert len(stream._buckets) <= np.log2(max(2, stream.n / 16)) + 1
    assert most <= memory
    assert most >= min(memory, 8 * 16) - 2  # what it may hold it does hold
    assert stream.coreset().size == 16
    assert Stream("greedy", 16, RHO).memory == 128


def test_every_token_while_there_are_no_more_than_the_size():
    cache = small_cache("sphere", n=16, heads=2)
    coreset = read(cache, 5).coreset()
    assert torch.equal(coreset.keys, cache.keys)
    assert torch.equal(coreset.indices, torch.arange(16).expand(2, 16))
    assert coreset.log_weights is None


@pytest.mark.rounding
@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_one_buffer_is_one_shot(model):
    cache = small_cache("clusters", n=31)
    construct = make_coreset("kernel_halving", model=model, recursion="one_walk")
    held, once = read(cache, 4, construct).coreset(), construct(cache, 16, RHO, *generators(0))
    assert torch.equal(held.indices, once.indices)
    if model == "tilted":
        torch.testing.assert_close(held.log_weights, once.log_weights, rtol=0, atol=1e-9)


@pytest.mark.parametrize("memory", [16, 32])
@pytest.mark.parametrize(
    ("name", "model"), [("paired_coin", "tilted"), ("paired_coin", "unweighted"), ("tilted_draws", "tilted")]
)
def test_weights_are_unbiased(name, model, memory):
    """By rules that keep the mean: a token's weight, 0 where it was dropped, has mean 1 wherever it was."""
    runs, n, size = 3000, 45, 4
    cache = repeated(small_cache("cap_outliers", n=n, d=4, seed=1), runs)
    construct = make_coreset(name) if name == "tilted_draws" else make_coreset(name, model=model)
    coreset = read(cache, 10, construct, size, memory, seeds=(5,)).coreset()
    weights = torch.full((runs, size), n / size).double() if coreset.log_weights is None else coreset.log_weights.exp()
    counts = torch.zeros(runs, n).double().scatter_(-1, coreset.indices, weights)
    error = counts.std(0) / runs**0.5
    assert ((counts.mean(0) - 1).abs() <= 4.5 * error + 1e-9).all()
    if coreset.log_weights is not None:
        total = counts.sum(-1)
        assert abs(total.mean() - n) <= 4.5 * total.std() / runs**0.5 + 1e-9


def test_a_coreset_may_be_asked_on_the_way():
    cache = make_cache("sphere", n=400, d=3)
    stream = Stream("kernel_halving", 16, RHO, generator=generators(0)[0])
    for keys, values in zip(cache.keys.split(50), cache.values.split(50), strict=True):
        stream.add(keys, values)
        same(stream.coreset(), stream.coreset())
        assert stream.coreset().indices.max() < stream.n
    same(stream.coreset(), read(cache, 400).coreset())


@pytest.mark.parametrize("name", ["kernel_halving", "gram_schmidt_walk"])
@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_error_within_twice_one_shot(name, model):
    """Geometric means of worst errors over six heads, at the same size."""
    cache, size = make_cache("clusters", n=1500, d=4, seed=3, heads=6), 48
    construct = make_coreset(name, model=model)
    seeds = tuple(range(6))
    held = read(cache, 100, construct, size, seeds=seeds).coreset()
    logs = [
        worst_query(cache, Coreset(c.indices, c.log_weights), rho=RHO).error.log().mean().item()
        for c in (held, construct(cache, size, RHO, generators(*seeds)))
    ]
    assert logs[0] - logs[1] < np.log(2)


def refuses(message, action, *arguments, **options):
    with pytest.raises(ValueError) as caught:
        action(*arguments, **options)
    assert str(caught.value) == message


def test_bad_input():
    keys, values = torch.randn(5, 3), torch.randn(5, 2)
    stream = Stream("greedy", 4, RHO)
    refuses("the stream has read no token; add a block first", stream.coreset)
    message = "keys hold NaN or Inf; clean the cache before building a coreset"
    refuses(message, stream.add, torch.full((5, 3), torch.nan), values)
    assert stream.n == 0
    stream.add(keys, values)
    refuses("keys (5, 4) must have the first block's shape ('b', 3)", stream.add, torch.randn(5, 4), values)
    refuses("values (5, 3) must have the first block's shape ('b', 2)", stream.add, keys, torch.randn(5, 3))
    refuses("keys (1, 5, 3) must have the first block's shape ('b', 3)", stream.add, keys[None], values[None])
    message = "keys must stay torch.float32 on cpu, got torch.float64 on cpu"
    refuses(message, stream.add, keys.double(), values.double())
    assert stream.n == 5  # a refused block leaves nothing


def test_bad_parameters():
    refuses("size must be at least 1 token, got 0", Stream, "greedy", 0, RHO)
    refuses("memory must be at least 4 * size = 40 tokens, got 39", Stream, "greedy", 10, RHO, 39)
    known = ", ".join(REDUCERS)
    with pytest.raises(ValueError, match="unknown construction 'greed'; did you mean 'greedy'"):
        Stream("greed", 4, RHO)
    uniform = make_coreset("uniform")
    message = f"{uniform!r} does not count weighted tokens; a stream takes one of {known}"
    refuses(message, Stream, uniform, 4, RHO)
    message = "tokens of a stream keep the weights of their marginals: no free model, no refinement but round_swaps"
    refuses(message, Stream, make_coreset("greedy", refinement="kernel_swaps"), 4, RHO)
    refuses(message, Stream, make_coreset("greedy", model="free"), 4, RHO)
    with pytest.raises(ValueError, match="rho"):
        Stream("greedy", 4, -1.0)


def test_weighted_caches():
    cache = small_cache("sphere", n=20, heads=2)
    zeros = torch.zeros(2, 20).double()
    refuses("log_weights hold NaN or Inf", WeightedCache, cache.keys, cache.values, zeros + torch.inf)
    construct = make_coreset("kernel_halving")
    plain = construct(cache, 7, RHO, generators(0, 1))
    weighted = construct(WeightedCache(cache.keys, cache.values, zeros + 3.0), 7, RHO, generators(0, 1))
    assert torch.equal(plain.indices, weighted.indices)
    torch.testing.assert_close(weighted.log_weights - 3.0, plain.log_weights, rtol=0, atol=1e-9)
    full = construct(WeightedCache(cache.keys, cache.values, zeros + 3.0), 20, RHO, generators(0, 1))
    assert torch.equal(full.log_weights, zeros + 3.0)


def test_unweighted_weights_even_out_where_none_is_too_heavy():
    rng = np.random.default_rng(0)
    cache, log_weights = small_cache("sphere", n=20), torch.from_numpy(np.log(rng.uniform(1, 2, 20)))
    construct = make_coreset("kernel_halving", model="unweighted", recursion="one_walk")
    coreset = construct(WeightedCache(cache.keys, cache.values, log_weights), 8, RHO, *generators(0))
    expected = float((log_weights.exp().sum() / 8).log())
    torch.testing.assert_close(coreset.log_weights, torch.full_like(coreset.log_weights, expected), rtol=0, atol=1e-9)


def test_the_input_is_copied():
    """Blocks may be overwritten by the caller once they are read."""
    keys, values = torch.randn(40, 3).double(), torch.randn(40, 2).double()
    kept = Cache(keys.clone(), values.clone())
    stream = Stream("greedy", 8, RHO, generator=generators(0)[0])
    for part in (slice(0, 12), slice(12, 40)):
        block = keys[part].clone(), values[part].clone()
        stream.add(*block)
        block[0].zero_()
        block[1].zero_()
    coreset = stream.coreset()
    assert torch.equal(coreset.keys, kept.take(coreset.indices)[0])


def test_two_stages_thin_the_stream_and_choose_once():
    """What is held is what the first stage leaves; the coreset is what the second makes of it."""
    cache = make_cache("clusters", n=900, d=4, seed=2)
    construct = make_coreset("two_stage", keep=4)
    stream = read(cache, 70, construct, 16)
    thin = read(cache, 70, construct.thinning, 64)
    left = thin.coreset()
    assert (stream.memory, stream.held) == (thin.memory, thin.held)
    weighted = WeightedCache(left.keys, left.values, left.log_weights)
    chosen, held = construct.second(weighted, 16, RHO), stream.coreset()
    assert torch.equal(held.indices, left.indices.gather(-1, chosen.indices))
    torch.testing.assert_close(held.log_weights, chosen.log_weights)
    assert torch.equal(held.keys, cache.take(held.indices)[0])
    refuses("memory must be at least 4 * keep * size = 256 tokens, got 255", Stream, construct, 16, RHO, 255)


@pytest.mark.parametrize("last", ["walk_tilted_kernel_swaps", "walk_free_kernel_swaps"])
def test_a_second_stage_may_refine(last):
    """Nothing is made of its tokens afterwards, so their weights need not be those of marginals."""
    cache = make_cache("clusters", n=600, d=4, seed=2)
    coreset = read(cache, 50, make_coreset("two_stage", keep=4, last=last), 16).coreset()
    assert coreset.size == 16
    plain = read(cache, 50, make_coreset("two_stage", keep=4, last="walk_tilted"), 16).coreset()
    errors = [float(worst_query(cache, Coreset(c.indices, c.log_weights), RHO).error) for c in (coreset, plain)]
    assert errors[0] < errors[1]


def test_a_block_that_ended_in_its_middle_leaves_no_stream(monkeypatch, rng):
    stream = Stream("kernel_halving", 8, 1.0, certify=True)
    block = [torch.from_numpy(rng.standard_normal((40, 3))) for _ in range(2)]
    stream.add(*block)
    before = stream.coreset()

    def ends(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Stream, "_reduced", ends)
    with pytest.raises(torch.OutOfMemoryError):
        stream.add(*block)
    monkeypatch.undo()
    for use in (lambda: stream.add(*block), stream.coreset, lambda: stream.ceiling(before)):
        with pytest.raises(RuntimeError, match="begin a new stream"):
            use()


def test_what_is_returned_is_a_copy():
    """One bucket and no other token: the coreset is that bucket."""
    cache = small_cache("sphere", n=32, heads=2)
    stream = read(cache, 32)
    first, expected = stream.coreset(), read(cache, 32).coreset()
    for tensor in (first.indices, first.log_weights, first.keys, first.values):
        tensor.zero_()
    same(stream.coreset(), expected)


@pytest.mark.parametrize("certify", [False, True])
def test_a_block_that_is_refused_leaves_the_stream_as_it_was(certify):
    keys, values = torch.randn(3, 6, 2), torch.randn(3, 6, 2)
    stream = Stream("greedy", 4, RHO, generator=[0, 1], certify=certify)
    message = "got 2 generators for 3 heads; pass one for all, or one a head"
    refuses(message, stream.add, keys, values)
    for _ in range(3):
        stream.add(keys[:2], values[:2])
        with pytest.raises(ValueError, match="keys reach"):
            stream.add(keys[:2] * 1e20, values[:2])
    assert (stream.n, stream.coreset().indices.shape) == (18, (2, 4))


@pytest.mark.parametrize("certify", [False, True])
@pytest.mark.parametrize("name", REDUCERS)
def test_blocks_read_in_inference_mode_and_outside(name, certify):
    cache, found = small_cache("sphere", n=60), []
    for modes in ((True, False, True, False), (False, True, False, True), (False,) * 4):
        stream = Stream(name, 4, RHO, certify=certify)
        for keys, values, inside in zip(cache.keys.split(15), cache.values.split(15), modes, strict=True):
            with torch.inference_mode(inside):
                stream.add(keys, values)
        found.append((stream.coreset(), stream.ceiling(stream.coreset()) if certify else None))
    for coreset, ceiling in found[:-1]:
        same(coreset, found[-1][0])
        assert ceiling == found[-1][1]


def test_a_head_of_a_held_coreset_holds_its_tokens():
    coreset = read(small_cache("sphere", n=100, heads=6), 100, seeds=tuple(range(6))).coreset()
    wide = HeldCoreset(
        *(x.reshape(2, 3, 16) for x in (coreset.indices, coreset.log_weights)),
        **{name: getattr(coreset, name).reshape(2, 3, 16, -1) for name in ("keys", "values")},
    )
    same(wide.flat(), coreset)
    same(wide[1], coreset[3:])
    assert torch.equal(wide[1, 2].keys, coreset.keys[5])
    assert torch.equal(wide[1, 2].values, coreset[5].values)


def test_a_generator_given_for_two_heads_is_one_for_both():
    cache, twice = small_cache("sphere", n=6, heads=2), generators(0) * 2
    stream = Stream("tilted_draws", 4, RHO, generator=twice)
    stream.add(cache.keys, cache.values)
    once = make_coreset("tilted_draws")(cache, 4, RHO, generators(0) * 2)
    assert torch.equal(stream.coreset().indices, once.indices)
    assert torch.equal(stream.coreset().indices, once.indices)  # nothing was drawn from the stream's own
