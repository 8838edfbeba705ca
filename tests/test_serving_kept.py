"""What a cache on coresets stores: heads of unequal sizes, and log-weights when it is compressed again."""

import math

import pytest
import torch

pytest.importorskip("transformers")

from attention_coresets import Coreset, WeightedCache, make_coreset
from attention_coresets.coresets.base import Construction, Request
from attention_coresets.models.serving import (
    CoresetLayer,
    branch,
    cache_bytes,
    compress,
    compressed,
    continuation,
    keep,
    prefill,
)
from serving_models import EXCHANGE, GREEDY, SNAPKV, UNIFORM, N, make, padded, text
from test_serving import all_tokens, dense_logits

LATER = text(1, 7, 9)


def of_sizes(sizes, n=N, weighted=True) -> list[Coreset]:
    """A coreset a head, its tokens and log-weights drawn."""
    made = []
    for head, size in enumerate(sizes):
        g = torch.Generator().manual_seed(head)
        kept = torch.randperm(n, generator=g)[:size].sort().values
        made.append(Coreset(kept, torch.randn(size, generator=g) if weighted else None))
    return made


@pytest.mark.parametrize("family", ["Llama", "Gemma3", "Phi"])
def test_heads_of_unequal_sizes_agree_with_dense_attention(family) -> None:
    model, ids = make(family), text(2)
    prefilled = prefill(model, ids, calibration=0)
    chosen = {layer: [of_sizes([3 + layer, 18]), of_sizes([9, 2], weighted=False)] for layer in prefilled.layers}
    held = keep(prefilled, chosen)
    following = text(2, 6, 1)
    expected = dense_logits(model, all_tokens(model, ids), held, following).log_softmax(-1)
    torch.testing.assert_close(continuation(model, held, following), expected, atol=2e-4, rtol=0)
    again = continuation(model, held, following)  # left as it was
    torch.testing.assert_close(again, expected, atol=2e-4, rtol=0)


def test_layers_that_keep_everything_beside_layers_that_do_not() -> None:
    for rows in ([text(1, 40), text(1, 40, 1)], [text(1, 40), text(1, 31, 1)]):
        model, (ids, mask), following = make("Qwen3"), padded(rows), text(2, 6, 1)
        prefilled = prefill(model, ids, 0, mask)
        for layer in prefilled.layers:
            held = keep(prefilled, {layer: [of_sizes([5, 9], n=30), of_sizes([7, 2], n=30)]})
            together = continuation(model, held, following)
            for sample, (row, after) in enumerate(zip(rows, following.split(1), strict=True)):
                sizes = ([5, 9], [7, 2])[sample]
                full = prefill(model, row, 0)
                alone = keep(full, {layer: [of_sizes(sizes, n=30)]})
                torch.testing.assert_close(together[sample], continuation(model, alone, after)[0], atol=1e-4, rtol=0)
                dense = dense_logits(model, all_tokens(model, row), alone, after).log_softmax(-1)
                torch.testing.assert_close(together[sample], dense[0], atol=2e-4, rtol=0)


def test_their_bytes_are_those_of_the_tokens_kept() -> None:
    model = make(head_dim=64)
    sizes = [[2, 30], [17, 9]]
    held = keep(prefill(model, text(), 0), {layer: [of_sizes(sizes[layer])] for layer in range(2)})
    nominal = sum(map(sum, sizes)) * 2 * 64 * 4
    assert nominal < cache_bytes(held) <= 1.05 * nominal
    layer = held.layers[0]
    assert isinstance(layer, CoresetLayer)
    with pytest.raises(ValueError, match="layer 0 keeps 2 to 30 tokens a head, no rectangle; read `cores`"):
        _ = layer.keys
    assert layer.cores is not None
    assert layer.cores[0].sizes == (2, 30)


def test_they_are_generated_on_any_number_of_times() -> None:
    model, ids = make(), text()
    held = keep(prefill(model, ids, 0), {layer: [of_sizes([4, 19])] for layer in range(2)})
    whole = torch.cat([ids, LATER], dim=1)
    found = []
    for _ in range(2):
        with compressed(model, SNAPKV, size=30):
            found.append(model.generate(whole, past_key_values=branch(held), **GREEDY)[:, whole.shape[1] :])
    assert torch.equal(*found)
    steps = continuation(model, held, torch.cat([LATER, found[0]], dim=1))[:, LATER.shape[1] - 1 : -1]
    assert torch.equal(steps.argmax(-1), found[0])
    beams = {"num_beams": 2, "num_return_sequences": 2}
    with compressed(model, SNAPKV, size=30):
        several = branch(held)
        for layer in several.layers:
            layer.batch_repeat_interleave(2)
        out = model.generate(whole, past_key_values=several, **(GREEDY | beams))
    assert out.shape[0] == 2


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({5: [of_sizes([3, 3])]}, r"layer 5 has no full attention; coresets replace layers \(0, 1\)"),
        ({0: [of_sizes([3, 3])] * 2}, "layer 0: coresets of 2 samples for a batch of 1"),
        ({0: [of_sizes([3])]}, "1 coresets for 2 KV heads; give one a head"),
        ({0: [of_sizes([50, 3], n=60)]}, r"coreset indices must lie in 0\.\.39"),
    ],
)
def test_coresets_that_do_not_fit_are_refused(chosen, words) -> None:
    with pytest.raises(ValueError, match=words):
        keep(prefill(make(), text(), 0), chosen)


def test_a_padded_sample_is_compressed_and_continued_as_alone() -> None:
    model, rows = make("Gemma3"), [text(1, 40), text(1, 23, 1)]
    ids, mask = padded(rows)
    following = text(2, 6, 1)
    for construct in (SNAPKV, EXCHANGE, UNIFORM):
        for size in (0.4, 30):  # 30: the second sample is kept whole
            both = compress(prefill(model, ids, 512, mask), construct, size, 2, short="keep")
            together = continuation(model, both, following)
            for row, (alone, after) in enumerate(zip(rows, following.split(1), strict=True)):
                one = compress(prefill(model, alone, 512), construct, size, 2, short="keep")
                apart = continuation(model, one, after)[0]
                torch.testing.assert_close(together[row], apart, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="ends in zeros"):
        prefill(model, ids, 16, mask.flip(1))


class Spy(Construction):
    """Keeps every other token with the weight of its flags, and what it was given."""

    def __init__(self, **flags) -> None:
        for name, flag in ({"model": "unweighted"} | flags).items():
            setattr(self, name, flag)
        self.calls: list[Request] = []

    def choose(self, request: Request) -> Coreset:
        self.calls.append(request)
        n, size = request.cache.n, request.size
        kept = torch.arange(0, n, n // size)[:size].expand(*request.cache.heads, -1)
        return Coreset(kept, 0.1 * kept.to(request.cache.keys) if self.model == "free" else None)


def twice(construct: Construction, size: int = 10) -> CoresetLayer:
    """The first layer of a cache of N tokens, compressed to 10, and again after 32 later ones; then one more came."""
    model = make()
    with compressed(model, construct, size=size, calibration=64), torch.no_grad():
        cache = model(text(), use_cache=True).past_key_values
        for token in text(1, 33, 5).T:
            cache = model(token[None], past_key_values=cache).past_key_values
    return cache.layers[0]


def test_equal_weights_multiply() -> None:
    """10 of 40, then 10 of these 10 and 32 later ones: a token kept twice stands for 4 x 4.2, one kept once for 4.2."""
    layer = twice(Spy())
    kept = torch.arange(0, 42, 4)[:10]
    expected = torch.where(kept < 10, math.log(4), 0.0) + math.log(4.2)
    assert layer.log_weights is not None
    torch.testing.assert_close(layer.log_weights, expected.expand(1, 2, -1))
    places = torch.cat([torch.arange(0, 40, 4), torch.arange(40, 72)])[kept]
    assert torch.equal(layer.indices[0, 0].long(), places)
    assert layer.read(0) == 73


def test_what_is_dropped_for_good_leaves_no_weights() -> None:
    assert twice(Spy(evicts=True)).log_weights is None


def test_queries_see_weights_as_a_coordinate_of_the_keys() -> None:
    spy = Spy(model="free", needs_queries=True, evicts=False)
    layer = twice(spy)
    first, again = spy.calls[0], spy.calls[2]  # two layers
    assert (first.cache.d, again.cache.d) == (8, 9)
    assert again.queries is not None
    assert bool((again.queries[..., -1] == 1).all())
    weights = 0.1 * torch.arange(0, 40, 4)
    torch.testing.assert_close(again.cache.keys[..., :10, -1], weights.double().expand(1, 2, -1))
    assert not again.cache.keys[..., 10:, -1].any()
    kept = torch.arange(0, 42, 4)[:10]
    own = torch.cat([weights, torch.zeros(32)])[kept]
    torch.testing.assert_close(layer.log_weights, (own + 0.1 * kept).expand(1, 2, -1))


def test_a_construction_that_takes_weights_gets_them() -> None:
    spy = Spy(model="free", takes_weights=True)
    layer = twice(spy)
    again = spy.calls[2].cache
    assert isinstance(again, WeightedCache)
    torch.testing.assert_close(again.log_weights[0, 0, :10], (0.1 * torch.arange(0, 40, 4)).double())
    torch.testing.assert_close(layer.log_weights, (0.1 * torch.arange(0, 42, 4)[:10]).expand(1, 2, -1))
    mass = twice(make_coreset("gram_schmidt_walk", model="unweighted")).log_weights
    assert mass is not None
    torch.testing.assert_close(mass.exp().sum(-1), torch.full((1, 2), 72.0), rtol=0.05, atol=0)


def test_the_report_of_a_prompt_compressed_again() -> None:
    model = make()
    with compressed(model, UNIFORM, size=10) as handle:
        model.generate(text(), max_new_tokens=34, do_sample=False)
        assert (handle.context, handle.size, handle.prompts) == (N, 10, 1)
        assert handle.bytes_after == 2 * 2 * 10 * (2 * 8 * 4 + 4 + 4)  # layers, heads, tokens
        assert handle.bytes_before == 2 * 2 * N * 2 * 8 * 4
        assert "prompts=1" in repr(handle)


@pytest.mark.parametrize("batch", [1, 2])
def test_decoding_in_the_context_equals_a_held_cache(batch) -> None:
    """Logits of teacher-forced steps on a cache under a context are those of one forward after the coreset."""
    model, ids, following = make("Gemma2"), text(batch), text(batch, 9, 4)
    with compressed(model, UNIFORM, size=12, keep_recent=2, seed=7), torch.no_grad():
        out, steps = model(ids, use_cache=True), []
        for token in following.split(1, dim=1):
            out = model(token, past_key_values=out.past_key_values)
            steps.append(out.logits.log_softmax(-1))
    held = compress(prefill(model, ids, 0), UNIFORM, 12, keep_recent=2, seed=7)
    torch.testing.assert_close(torch.cat(steps, dim=1), continuation(model, held, following), atol=1e-4, rtol=0)
