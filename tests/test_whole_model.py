"""Whole-model coresets: replayed queries, their statistics, budgets and weights, against the model's own attention."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

transformers = pytest.importorskip("transformers")

from attention_coresets.models.serving import keep, prefill  # noqa: E402
from attention_coresets.models.whole import statistics  # noqa: E402
from attention_coresets.models.whole.budgets import by_shares, spend  # noqa: E402
from attention_coresets.models.whole.errors import held_out_errors  # noqa: E402
from attention_coresets.models.whole.inside import by_gain, rechosen  # noqa: E402
from attention_coresets.models.whole.measured import Measured  # noqa: E402
from attention_coresets.models.whole.merging import merged  # noqa: E402
from attention_coresets.models.whole.prompt import compress_prompt  # noqa: E402
from attention_coresets.models.whole.replay import read  # noqa: E402
from attention_coresets.models.whole.replay_fit import ReplayFit  # noqa: E402
from attention_coresets.models.whole.scores import scores  # noqa: E402
from attention_coresets.models.whole.weights import fitted  # noqa: E402
from serving_models import make, text  # noqa: E402

REQUEST = torch.tensor([7, 8, 9])


@pytest.fixture(scope="module")
def model():
    return make("Llama")


@pytest.fixture(scope="module")
def found(model) -> Measured:
    return Measured(read(prefill(model, text(), 40), text(), REQUEST))


class Eager:
    """One usual forward over a context and what repeats it: attention as matrices, in float64."""

    def __init__(self, ids: torch.Tensor, after: torch.Tensor) -> None:
        model = make("Llama").double()
        model.set_attn_implementation("eager")
        with torch.no_grad():
            self.out = model(
                torch.cat([ids[0], after])[None], output_attentions=True, output_hidden_states=True, use_cache=True
            )
        self.model, self.n = model, ids.shape[-1]

    def head(self, layer: int, kv: int, group: int = 2):
        """T [q, n] and f [q, n, hidden] of each query head of a KV head's group, and |h| [q]."""
        values = self.out.past_key_values.layers[layer].values[0, kv]  # [n + t, dv]
        norms = self.out.hidden_states[layer][0, self.n :].norm(dim=-1)
        matrix = self.model.model.layers[layer].self_attn.o_proj.weight.detach().T
        d = values.shape[-1]
        for head in range(kv * group, (kv + 1) * group):
            shares = self.out.attentions[layer][0, head, self.n :]  # [q, n + t]
            apart = (values - (shares @ values)[:, None]) @ matrix[head * d : (head + 1) * d]  # [q, n + t, hidden]
            shown = values[: self.n] @ matrix[head * d : (head + 1) * d]
            features = (shares[..., None] * apart / norms[:, None, None])[:, : self.n]
            yield shares[:, : self.n], features, norms, shown


@pytest.mark.parametrize(("family", "behind"), [("Gemma2", True), ("Gemma3", True), ("Llama", False)])
def test_an_error_is_one_of_the_residual_stream_though_a_norm_stands_behind_attention(family, behind) -> None:
    """A small change of attention's output, across it, changes the stream by as much over these norms; where a norm
    makes the output's length nothing, so it does to errors and to what is kept."""
    found = []
    for times in (1.0, 3.0):
        model = make(family)
        model.model.layers[1].self_attn.o_proj.weight.data *= times
        found.append(Measured(read(prefill(model, text(), 40), text())))
    one, three = (x.reading.layers[1].replays[0].norms for x in found)
    torch.testing.assert_close(three, 3 * one if behind else one, rtol=1e-3, atol=0)
    errors = [x.reading.layers[1].factors.norm() / x.reading.layers[1].replays[0].norms for x in found]
    torch.testing.assert_close(errors[1], errors[0] if behind else 3 * errors[0], rtol=1e-3, atol=0)
    block, seen = make(family).model.layers[1], {}
    block.register_forward_pre_hook(lambda _, args: seen.update(h=args[0]))
    block.self_attn.register_forward_hook(lambda _, args, out: seen.update(u=out[0]))
    model = make(family)
    model.model.layers[1] = block
    with torch.no_grad():
        model(torch.cat([text(), text()], dim=1))
        h, u = seen["h"][0, -len(one) :], seen["u"][0, -len(one) :]
        across = torch.randn(u.shape, generator=torch.Generator().manual_seed(1))
        across = 1e-2 * across / across.norm(dim=-1, keepdim=True) * u.norm(dim=-1, keepdim=True)
        across -= (across * u).sum(-1, keepdim=True) / u.square().sum(-1, keepdim=True) * u
        add = block.post_attention_layernorm if behind else torch.nn.Identity()
        moved = (add(u + across) - add(u)).norm(dim=-1) / h.norm(dim=-1)
    torch.testing.assert_close(moved, across.norm(dim=-1) / one, rtol=1e-2, atol=0)


def test_statistics_are_those_of_the_models_own_attention(found) -> None:
    eager = Eager(text(), torch.cat([REQUEST, text()[0]]))
    for layer in range(2):
        for kv in range(2):
            heads = list(eager.head(layer, kv))
            gram = sum(torch.einsum("qih,qjh->ij", f, f) / len(f) for _, f, _, _ in heads)
            expected = {
                "largest": torch.stack([t.amax(0) for t, *_ in heads]).amax(0),
                "largest_output": torch.stack([(t / h[:, None]).amax(0) * v.norm(dim=-1) for t, _, h, v in heads]).amax(
                    0
                ),
                "own": gram.diagonal(),
                "target": gram.sum(-1),
            }
            for name, values in expected.items():
                torch.testing.assert_close(
                    found.sums(name)[layer, kv].double(), values, rtol=2e-4, atol=2e-6 * float(values.abs().max())
                )
            tokens = torch.tensor([0, 3, 17, 39])
            torch.testing.assert_close(
                found.errors(layer, kv, tokens, 0.0)[0],
                gram[tokens][:, tokens],
                rtol=2e-4,
                atol=2e-6 * float(gram.max()),
            )


def test_slopes_are_gradients_of_the_last_states_by_the_attentions_output(model) -> None:
    """Against one forward without a cache in float64, and KVgrad's score from its attention as matrices."""
    ids = text()
    reading = read(prefill(model, ids, 8), ids, REQUEST, chunk=24, sloped=True)
    whole, first = Eager(ids, torch.cat([REQUEST, ids[0, :24]])), reading.layers[1].replays[0]
    outputs, last = {}, []
    for i, layer in enumerate(whole.model.model.layers):
        layer.self_attn.register_forward_hook(lambda _, __, out, i=i: outputs.update({i: out[0]}))
    whole.model.model.layers[-1].register_forward_hook(lambda _, __, out: last.append(out))
    whole.model(torch.cat([ids[0], REQUEST, ids[0, :24]])[None])
    said = (last[0] if isinstance(last[0], torch.Tensor) else last[0][0])[0, whole.n :]
    steep = torch.autograd.grad(said.square().sum(), outputs[1])[0][0, whole.n :].norm(dim=-1)
    torch.testing.assert_close(first.slopes.double(), steep, rtol=1e-3, atol=1e-5)
    only = replace(reading, layers={1: replace(reading.layers[1], replays=[first])})
    heads = list(whole.head(1, 0))
    expected = torch.stack([(t * steep[:, None]).amax(0) * v.norm(dim=-1) for t, _, _, v in heads]).amax(0)
    torch.testing.assert_close(scores("kvgrad", Measured(only), 1.0, 10)[0, 0].double(), expected, rtol=1e-3, atol=1e-6)
    plain = read(prefill(model, ids, 8), ids, REQUEST, chunk=24)
    assert plain.layers[1].replays[0].slopes is None
    torch.testing.assert_close(plain.layers[1].replays[0].queries, first.queries)


def test_values_of_tokens_left_out_go_to_the_token_of_the_most_similar_key() -> None:
    generator = torch.Generator().manual_seed(4)
    keys, values = torch.randn(2, 9, 3, generator=generator)
    kept = torch.tensor([0, 2, 5])
    expected, total = values[kept].clone(), torch.ones(3)
    for e in set(range(9)) - set(kept.tolist()):
        cosines = [float(torch.cosine_similarity(keys[e], keys[c], dim=0)) for c in kept]
        c = max(range(3), key=cosines.__getitem__)
        size, other = float(values[e].norm()), float(values[kept[c]].norm())
        weight = max(cosines[c], 0.0) * size / (size + other)
        expected[c] += weight * values[e]
        total[c] += weight
    torch.testing.assert_close(merged(keys, values, kept), expected / total[:, None])
    torch.testing.assert_close(merged(keys, values, torch.arange(9)), values)


def test_a_merged_cache_keeps_the_same_tokens_with_other_values(model, found) -> None:
    plain, blended = (ReplayFit(first="kvzip", part=1.0, weights="none", merge=merge) for merge in (False, True))
    coresets = blended.choose(found, 60)
    values = blended.values(found, coresets)
    assert plain.values(found, coresets) == {}
    layer = found.reading.layers[1]
    torch.testing.assert_close(values[1][0], merged(layer.keys[0], layer.values[0], coresets[1][0].indices))
    for other, own in zip(plain.choose(found, 60)[1], coresets[1], strict=True):
        assert torch.equal(other.indices, own.indices)
    with pytest.raises(ValueError, match="merge=True needs weights='none'"):
        ReplayFit(merge=True)
    with pytest.raises(ValueError, match="a compressed prompt keeps tokens' own values"):
        compress_prompt(model, text(), 0.5, construct=blended)


def test_budgets_by_sensitivity_give_each_head_its_part_of_the_sum(found) -> None:
    kept = ReplayFit(budget="sensitivity").kept(found, 90)
    total = found.sums("largest").sum(-1)
    sizes = kept.sum(-1)
    assert int(sizes.sum()) == 90
    free = sizes > 5  # four sinks and one token are sure
    level = (sizes / total)[free]
    assert int(free.sum()) >= 2
    assert float(level.max() - level.min()) <= float((1 / total[free]).max())
    first = found.sums("largest_output")[..., 4:].argmax(-1) + 4  # the one token that is sure beside the sinks
    assert bool(kept.gather(-1, first[..., None]).all())


def test_each_chunk_is_repeated_right_after_the_context(model) -> None:
    ids = text()
    reading = read(prefill(model, ids, 8), ids, REQUEST, chunk=24, lead=0)
    parts = [Eager(ids, torch.cat([REQUEST, piece])) for piece in ids[0].split(24)]
    for layer in range(2):
        expected = torch.stack([t.amax(0) for part in parts for t, *_ in part.head(layer, 1)]).amax(0)
        torch.testing.assert_close(Measured(reading).sums("largest")[layer, 1].double(), expected, rtol=1e-4, atol=1e-7)
    half = read(prefill(model, ids, 8), ids, None, chunk=24, repeated=0.5, lead=0)
    assert [look.queries.shape[-2] for look in half.layers[0].replays] == [12, 8]


@pytest.mark.parametrize("request_", [None, REQUEST])
def test_a_chunk_is_repeated_with_what_leads_to_it(model, request_) -> None:
    """All their queries are kept, and the chunk's own see the lead's tokens."""
    ids, said = text(), [] if request_ is None else [REQUEST]
    reading = read(prefill(model, ids, 8), ids, request_, chunk=24, lead=5)
    pieces = [ids[0, :24], ids[0, 19:40]]
    parts = [Eager(ids, torch.cat([*said, piece])) for piece in pieces]
    counts = [len(piece) + sum(map(len, said)) for piece in pieces]
    for layer in range(2):
        expected = torch.stack([t.amax(0) for part in parts for t, *_ in part.head(layer, 1)]).amax(0)
        torch.testing.assert_close(Measured(reading).sums("largest")[layer, 1].double(), expected, rtol=1e-4, atol=1e-7)
        assert [look.queries.shape[-2] for look in reading.layers[layer].replays] == counts
        assert [look.norms.shape[-1] for look in reading.layers[layer].replays] == counts
    tokens = torch.tensor([0, 3, 17, 39])
    features = [f for part in parts for _, f, *_ in part.head(1, 1)]
    gram = sum(torch.einsum("qih,qjh->ij", f, f) for f in features) / sum(counts)
    found = Measured(reading).errors(1, 1, tokens, 0.0)[0]
    torch.testing.assert_close(found, gram[tokens][:, tokens], rtol=2e-4, atol=2e-6 * float(gram.max()))
    sloped = read(prefill(model, ids, 8), ids, request_, chunk=24, lead=5, sloped=True)
    assert [look.slopes.shape[-1] for look in sloped.layers[1].replays] == counts


def test_moments_of_many_tokens_and_queries_are_those_of_attention_as_matrices(monkeypatch) -> None:
    """They are computed for the upper half alone, in blocks of tokens and of queries."""
    monkeypatch.setattr(statistics, "_NUMBERS", 2**14)
    ids = text(1, 300)
    many = Measured(read(prefill(make("Llama"), ids, 40), ids, chunk=100, lead=10))
    tokens = torch.randperm(300, generator=torch.Generator().manual_seed(3))[:280]
    gram, target = many.errors(1, 0, tokens, 0.0)
    pieces = [ids[0, max(0, first - 10) : first + 100] for first in (0, 100, 200)]
    features = [f for piece in pieces for _, f, *_ in Eager(ids, piece).head(1, 0)]
    expected = sum(torch.einsum("qih,qjh->ij", f, f) for f in features) / sum(map(len, pieces))
    torch.testing.assert_close(gram, expected[tokens][:, tokens], rtol=2e-4, atol=2e-6 * float(expected.max()))
    torch.testing.assert_close(target, expected.sum(-1)[tokens], rtol=2e-4, atol=2e-5 * float(expected.sum(-1).max()))
    assert torch.equal(gram, gram.mT)


def test_moved_queries_see_the_context_alone_and_ask_for_its_mass(found) -> None:
    layer = found.reading.layers[1]
    queries, c = layer.moved.queries[0].double(), layer.factors[0].double()
    keys, values = layer.keys[0].double(), layer.values[0].double()
    shares = (queries @ keys.T).softmax(-1)  # [group, q, n]
    y = layer.moved.norms.double().square().reciprocal()
    gram = torch.zeros(40, 40, dtype=torch.float64)
    for g in range(2):
        v, a = values @ c[g], (shares[g] @ values) @ c[g]
        features = shares[g][..., None] * (v - a[:, None])
        mass = 0.1 * (v - v.mean(0)).square().sum(-1).mean()
        gram += torch.einsum("q,qih,qjh->ij", y, features, features) / len(y)
        gram += mass * torch.einsum("q,qi,qj->ij", y, shares[g], shares[g]) / len(y)
    assert queries.shape[1] == 32  # of the 40 last positions 8 are held out
    assert layer.held_out.queries.shape[-2] == 8
    torch.testing.assert_close(found.sums("own", "moved")[1, 0], gram.diagonal(), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(found.sums("target", "moved")[1, 0], gram.sum(-1), rtol=1e-3, atol=1e-6)
    tokens = torch.tensor([2, 30])
    own = found.errors(1, 0, tokens, 1.0)[0] - found.errors(1, 0, tokens, 0.0)[0]
    torch.testing.assert_close(own, found.scale * gram[tokens][:, tokens], rtol=1e-3, atol=1e-8)


def test_scores_are_those_of_their_definitions(found) -> None:
    torch.testing.assert_close(scores("kvzip", found, 1.0, 10), found.sums("largest"))
    torch.testing.assert_close(scores("kvzip_plus", found, 1.0, 10), found.sums("largest_output"))
    own = found.sums("own") + 0.5 * found.scale * found.sums("own", "moved")
    torch.testing.assert_close(scores("own_error", found, 0.5, 10), own)
    assert float(found.sums("own").sum()) == pytest.approx(found.scale * float(found.sums("own", "moved").sum()))
    values = found.reading.layers[0].keys.double().norm(dim=-1)
    torch.testing.assert_close(scores("knorm", found, 1.0, 10)[0], -values)
    recent = scores("streaming_llm", found, 1.0, 10)[0, 0]
    assert set(recent.topk(14).indices.tolist()) == {*range(4), *range(30, 40)}


def test_a_budget_is_spent_exactly_and_on_the_largest_scores() -> None:
    values = torch.rand(3, 2, 20, generator=torch.Generator().manual_seed(0)) ** 4
    kept = torch.zeros(3, 2, 20, dtype=torch.bool)
    kept[..., :2] = True
    for budget in ("pooled", "layer", "even"):
        chosen = spend(values, 50, kept, budget)
        assert int(chosen.sum()) == 50
        assert bool(chosen[..., :2].all())
        assert int(chosen.sum(-1).min()) >= 3
    pooled = spend(values, 50, kept)
    best = values[..., 2:].amax(-1, keepdim=True)
    free = ~kept & (values < best)  # beside the one that each head keeps anyway
    assert float(values[pooled & free].min()) > float(values[~pooled].max())
    assert spend(values, 50, kept, "layer").sum((1, 2)).tolist() == [17, 17, 16]
    assert spend(values, 50, kept, "even").sum(-1).flatten().tolist() == [9, 9, 8, 8, 8, 8]
    low = torch.cat([values[:, :1] * 1e-6, values[:, 1:]], dim=1)  # a head that no score favours
    assert spend(low, 60, kept, "layer")[:, 0].sum(-1).tolist() == [4, 4, 4]
    assert spend(low, 108, kept, "layer")[:, 0].sum(-1).min() >= 0.2 * 18 // 1 + 2


def test_what_is_kept_anyway_comes_first_whatever_the_scores() -> None:
    scores = torch.rand(2, 2, 10, generator=torch.Generator().manual_seed(0))
    kept = torch.zeros(2, 2, 10, dtype=torch.bool)
    kept[..., :2] = True
    forced = scores.masked_fill(torch.arange(10) >= 5, torch.inf)  # a window of 5 tokens, of which 2 fit
    assert spend(forced, 16, kept, "even").nonzero()[:, 2].view(4, 4).tolist() == [[0, 1, 5, 6]] * 4
    for budget in ("pooled", "layer"):
        chosen = spend(forced, 16, kept, budget)
        assert bool(chosen[..., :2].all())
        assert int(chosen.sum()) == 16
        assert int(chosen.sum(-1).min()) >= 3
    most = kept.clone()
    most[0, 0] = True  # a first score's choice, which leaves one token for the second's
    assert torch.equal(spend(scores, 17, most) & most, most)
    assert int(spend(scores, 17, most).sum()) == 17
    with pytest.raises(ValueError, match="16 tokens are kept anyway where budget = 'pooled' has 15 of 15"):
        spend(scores, 15, most)
    with pytest.raises(ValueError, match="12 tokens are kept anyway where budget = 'layer' has 10 of 20"):
        spend(scores, 20, most, "layer")


@pytest.mark.parametrize("count", [20, 21, 23, 30, 160])
def test_budgets_by_shares_keep_the_count(found, count) -> None:
    assert int(ReplayFit(budget="sensitivity").kept(found, count).sum()) == count
    kept = torch.zeros(2, 2, 40, dtype=torch.bool)
    kept[..., :6] = True
    scores = torch.rand(2, 2, 40, generator=torch.Generator().manual_seed(0))
    if count < 24:
        with pytest.raises(ValueError, match="24 tokens are kept anyway"):
            by_shares(scores, count, kept, torch.ones(2, 2))
    else:
        assert int(by_shares(scores, count, kept, torch.ones(2, 2)).sum()) == count


def test_a_window_leaves_room_for_the_sinks(found) -> None:
    kept = ReplayFit(first="snapkv", part=1.0, budget="layer", weights="none").kept(found, 4 * 10)
    expected = torch.zeros(40, dtype=torch.bool)
    expected[:4] = expected[-6:] = True  # SnapKV's window is 64
    assert torch.equal(kept, expected.expand(2, 2, -1))


def test_small_budgets_have_both_parts(found) -> None:
    both, second = ReplayFit().kept(found, 24), ReplayFit(part=0.0).kept(found, 24)
    top = scores("kvzip_plus", found, 1.0, 2)[..., 4:].argmax(-1) + 4
    assert bool(both.gather(-1, top[..., None]).all())
    assert not torch.equal(both, second)
    assert [int(x.sum()) for x in (both, second)] == [24, 24]


def test_more_recent_tokens_than_there_are(found) -> None:
    assert bool(ReplayFit(recent=60).kept(found, 160).all())
    with pytest.raises(ValueError, match="keep 160 to 160 tokens in all, got 100"):
        ReplayFit(recent=60).kept(found, 100)


def test_soft_caps_are_part_of_the_statistics() -> None:
    """Gemma 2, with logits far above the cap, against its own eager attention."""
    ids = text()
    model = make("Gemma2", attn_logit_softcapping=0.5)
    mine = Measured(read(prefill(model, ids, 40), ids))
    eager = make("Gemma2", attn_logit_softcapping=0.5, attn_implementation="eager")
    with torch.no_grad():
        shares = eager(torch.cat([ids, ids], dim=1), output_attentions=True).attentions[1][0, :, 40:]
    largest = shares[..., :40].amax(1).unflatten(0, (2, 2)).amax(1)
    torch.testing.assert_close(mine.sums("largest")[0], largest, rtol=1e-4, atol=1e-7)
    uncapped = Measured(read(prefill(make("Gemma2", attn_logit_softcapping=None), ids, 40), ids))
    assert float((uncapped.sums("largest") - mine.sums("largest")).abs().max()) > 0.1
    tokens = torch.arange(0, 40, 3)
    torch.testing.assert_close(
        mine.errors(1, 0, tokens, 0.0)[0].diagonal(), mine.sums("own")[0, 0, tokens], rtol=1e-3, atol=1e-9
    )
    layer, core = mine.reading.layers[1], ReplayFit().choose(mine, 48)[1][0]
    logits = 0.5 * (layer.held_out.queries[0] @ layer.keys[0].T / 0.5).tanh()
    kept = (logits[..., core.indices] + core.log_weights.to(logits)).softmax(-1) @ layer.values[0, core.indices]
    apart = (kept - logits.softmax(-1) @ layer.values[0]) @ layer.factors[0].float()
    expected = (apart.norm(dim=-1) / layer.held_out.norms).flatten().quantile(0.95)
    both = {1: [core, core]}
    torch.testing.assert_close(held_out_errors(mine.reading, both)[0, 0], expected, rtol=1e-4, atol=1e-7)


def test_budgets_by_sensitivity_on_a_device(device) -> None:
    model, ids = make().to(device), text().to(device)
    cache = compress_prompt(model, ids, count=64, construct=ReplayFit(budget="sensitivity"))
    assert int(cache.sizes.sum()) == 64


def test_fitted_weights_satisfy_the_conditions_of_a_minimum() -> None:
    rows = torch.randn(30, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gram = rows.T @ rows
    gram[:, 4] *= 30
    gram[4] *= 30
    target, pull, floor = gram @ torch.linspace(-1, 2, 12, dtype=torch.float64), 0.01, 0.3
    w = fitted(gram, target, floor, pull)
    slope = gram @ w - target + pull * gram.diagonal() * (w - 1)
    slope = slope / gram.diagonal().sqrt()
    held = w < floor + 1e-6
    assert 0 < int(held.sum()) < 12
    assert bool((w >= floor).all())
    assert float(slope[~held].abs().max()) < 1e-5
    assert float(slope[held].min()) > -1e-5
    torch.testing.assert_close(fitted(gram, gram.sum(-1), 0.05, 0.5), torch.ones(12, dtype=torch.float64))


CONSTRUCTS = [
    *(ReplayFit(), ReplayFit(part=1.0), ReplayFit(part=0.0, recent=3, budget="even")),
    *(ReplayFit(second="gain"), ReplayFit(second="gain", part=0.0, recent=2), ReplayFit(inside="walk")),
]


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_a_whole_model_keeps_the_count_and_weights_of_least_error(found, construct) -> None:
    coresets = construct.choose(found, 81)
    assert sum(c.size for heads in coresets.values() for c in heads) == 81
    for heads in coresets.values():
        for c in heads:
            assert c.indices[:4].tolist() == [0, 1, 2, 3]
            assert c.size > 4 + construct.recent
            assert set(c.indices.tolist()) >= set(range(40 - construct.recent, 40))
    for row, (index, heads) in enumerate(coresets.items()):
        for head, c in enumerate(heads):
            gram = found.errors(index, head, c.indices, 1.0)[0]
            target = found.mixed("target", 1.0)[row, head, c.indices]
            w = c.log_weights.double().exp()

            def error(w, gram=gram, target=target):
                own = 1e-3 * (gram.diagonal() * (w - 1).square()).sum()
                return float(w @ gram @ w - 2 * target @ w + own)

            shaken = [w * (1 + 0.05 * s) for s in (torch.arange(len(w)) % 2, -(torch.arange(len(w)) % 3 > 0).double())]
            assert all(error(w) <= error(other.clamp_min(0.05)) + 1e-9 for other in shaken)


def test_halves_of_the_budget_go_to_the_two_scores(found) -> None:
    first = ReplayFit(part=1.0, weights="none").kept(found, 48)
    both = ReplayFit(weights="none", inside="score").kept(found, 96)
    assert bool(both[first].all())
    assert int(both.sum()) == 96
    own = scores("own_error", found, 1.0, 24).masked_fill(first, -1)
    sure = own == own.amax(-1, keepdim=True)
    assert float(own[both & ~first & ~sure].min()) > float(own[~both].max())
    plain = ReplayFit(part=1.0, weights="none").choose(found, 48)
    assert all(c.log_weights is None for heads in plain.values() for c in heads)


def left(
    found: Measured, layer: int, head: int, kept: torch.Tensor, positive: torch.Tensor | None = None, pull: float = 1e-3
) -> float:
    """A head's error at the best weights of kept tokens, of any sign but where `positive`, by scipy's least squares."""
    gram, target = found.everything(layer, head, 1.0)
    own = pull * gram.diagonal()
    gram, target, whole = gram + own.diag(), (target + own)[kept], float(target.sum() + own.sum())
    factor = np.linalg.cholesky(gram[kept][:, kept].numpy())
    aim = np.linalg.solve(factor, target.numpy())
    least = np.full(len(target), -np.inf)
    if positive is not None:
        least[positive[kept].numpy()] = 0
    solved = lsq_linear(factor.T, aim, (least, np.inf), tol=1e-14)
    return whole - float(aim @ aim) + 2 * solved.cost


PLACES = [(layer, head) for layer in range(2) for head in range(2)]


def test_tokens_are_taken_by_what_the_error_falls_by(found) -> None:
    """Against trying every token of every head; tokens that would be weighted below 0 gain nothing."""
    start = torch.zeros(2, 2, 40, dtype=torch.bool)
    start[..., :5] = True
    kept = start.clone()
    for _ in range(24):
        best, place = -math.inf, None
        for layer, head in PLACES:
            mine, waits = kept[layer, head], kept[layer, head].sum() == 5
            before = left(found, layer, head, mine)
            for token in (~mine).nonzero().squeeze(-1).tolist():
                more = mine.clone()
                more[token] = True
                gram, target = found.everything(layer, head, 1.0)
                own = 1e-3 * gram.diagonal()
                weights = np.linalg.solve((gram + own.diag())[more][:, more].numpy(), (target + own)[more].numpy())
                positive = weights[int(more[:token].sum())] > 0
                gain = (before - left(found, layer, head, more)) * positive + 1e9 * bool(waits)
                if gain > best:
                    best, place = gain, (layer, head, token)
        kept[place] = True
        assert torch.equal(by_gain(found, int(kept.sum()), start, 1.0, 1e-3), kept)
    assert kept.sum(-1).unique().numel() > 1  # budgets differ


@pytest.mark.parametrize("inside", ["exchange", "walk"])
def test_heads_choose_again_as_many_tokens(found, inside) -> None:
    construct = ReplayFit(inside=inside)
    by_score, again = ReplayFit(inside="score").kept(found, 84), construct.kept(found, 84)
    assert torch.equal(by_score.sum(-1), again.sum(-1))
    first = ReplayFit(part=1.0).kept(found, 42)
    assert bool(again[first].all())
    assert torch.equal(construct.kept(found, 84), again)  # from one seed
    assert not torch.equal(by_score, again)
    full = ReplayFit(inside=inside).kept(found, 160)
    assert bool(full.all())


def test_exchanges_lower_the_error_that_is_left(found) -> None:
    before, after = ReplayFit(inside="score").kept(found, 84), ReplayFit().kept(found, 84)
    free = ~ReplayFit(part=1.0).kept(found, 42)
    errors = [[left(found, *place, kept[place], free[place]) for place in PLACES] for kept in (before, after)]
    assert all(y <= x + 1e-9 for x, y in zip(*errors, strict=True))
    assert sum(errors[1]) < 0.98 * sum(errors[0])


def test_heads_choose_among_their_largest_own_errors(found) -> None:
    """With `among` = 1 nothing else is to choose from; with 2, tokens stay among twice as many."""
    by_score = ReplayFit(inside="score").kept(found, 84)
    assert torch.equal(ReplayFit(among=1.0).kept(found, 84), by_score)
    again, first = ReplayFit(among=2.0).kept(found, 84), ReplayFit(part=1.0).kept(found, 42)
    assert not torch.equal(again, by_score)
    own = found.mixed("own", 1.0).masked_fill(first, -1).sort(descending=True).values
    for layer, head in PLACES:
        chosen = again[layer, head] & ~first[layer, head]
        least = own[layer, head, min(2 * int(chosen.sum()), 40) - 1]
        assert bool((found.mixed("own", 1.0)[layer, head, chosen] >= least).all())


@pytest.mark.parametrize("inside", ["exchange", "walk"])
def test_heads_whose_values_are_all_zero_keep_what_they_are_given(inside) -> None:
    model = make("Llama")
    model.model.layers[1].self_attn.v_proj.weight.data.zero_()
    silent = Measured(read(prefill(model, text(), 40), text(), REQUEST))
    coresets = ReplayFit(inside=inside).choose(silent, 60)
    assert sum(c.size for heads in coresets.values() for c in heads) == 60
    assert all(c.size == 6 and bool(c.log_weights.isfinite().all()) for c in coresets[1])


def test_what_is_all_chosen_by_a_score_that_asks_nothing_needs_no_replay() -> None:
    assert not ReplayFit(first="snapkv", part=1.0, weights="none").replays
    # Scores alone choose here too, but each head then exchanges tokens by the replay's error.
    assert ReplayFit(first="snapkv", second="expected_attention", weights="none").replays


def test_the_walk_in_a_head_has_the_marginals_of_own_errors(found) -> None:
    first, kept = torch.zeros(2, 2, 2, 40, dtype=torch.bool)
    kept[..., :15] = True
    generator, times = torch.Generator().manual_seed(1), torch.zeros(2, 2, 40)
    for _ in range(400):
        times += torch.stack(
            [mine for mine, _ in rechosen(found, first, kept, 1.0, 1e-3, "walk", 100.0, generator)]
        ).view(2, 2, 40)
    own = found.mixed("own", 1.0).sqrt()
    part = 15 * own / own.sum(-1, keepdim=True)
    free = part.amax(-1) < 1  # in other heads some tokens are certain
    assert free.any()
    torch.testing.assert_close((times / 400)[free].double(), part[free], rtol=0, atol=0.12)
    fixed = rechosen(found, kept.roll(25, -1), kept.roll(25, -1) | kept, 1.0, 1e-3, "walk", 100.0, generator)
    assert all(int(mine.sum()) == 30 for mine, _ in fixed)


def test_everything_kept_weighs_one_and_errs_by_nothing(found) -> None:
    coresets = ReplayFit().choose(found, 160)
    for heads in coresets.values():
        assert all(c.size == 40 and float(c.log_weights.abs().max()) < 1e-4 for c in heads)
    assert float(held_out_errors(found.reading, coresets).max()) < 1e-4


def test_held_out_errors_are_those_of_attention(found) -> None:
    coresets = ReplayFit().choose(found, 64)
    layer, c = found.reading.layers[0], coresets[0][1]
    errors = []
    for g, queries in enumerate(layer.held_out.queries[1]):
        logits = queries @ layer.keys[1].T
        some = (logits[:, c.indices] + c.log_weights).softmax(-1) @ layer.values[1, c.indices]
        apart = (some - logits.softmax(-1) @ layer.values[1]) @ layer.factors[1, g].float()
        errors.append(apart.norm(dim=-1) / layer.held_out.norms)
    expected = torch.cat(errors).quantile(0.95)
    assert float(held_out_errors(found.reading, coresets)[0, 1]) == pytest.approx(float(expected), rel=1e-4)


def test_weights_bring_a_model_closer_to_its_full_cache(model, found) -> None:
    """What it is for, on a model with random weights: less divergence with fitted weights than without."""
    from attention_coresets.models.serving import agreement, continuation

    ids, more = text(), text(seed=3)[:, :12]
    prefilled = prefill(model, ids, 40)
    full = continuation(model, prefilled.cache, more)
    divergence = {}
    for weights in ("fitted", "none"):
        coresets = ReplayFit(weights=weights, inside="score").choose(found, 80)
        held = keep(prefilled, {index: [heads] for index, heads in coresets.items()})
        divergence[weights] = agreement(full, continuation(model, held, more), more).kl
    assert divergence["fitted"] < 0.8 * divergence["none"]


def test_what_cannot_be_is_refused_in_words(model, found) -> None:
    with pytest.raises(ValueError, match="4 heads of 40 tokens, 4 of which each keeps anyway, keep 20 to 160 tokens"):
        ReplayFit().choose(found, 19)
    with pytest.raises(ValueError, match="got 161"):
        ReplayFit().choose(found, 161)
    with pytest.raises(ValueError, match="first"):
        ReplayFit(first="kvzap")
    with pytest.raises(ValueError, match="needs budget='pooled'"):
        ReplayFit(second="gain", budget="even")
    with pytest.raises(ValueError, match=r"among = 0\.5 must be at least 1"):
        ReplayFit(among=0.5)
    with pytest.raises(ValueError, match="inside"):
        ReplayFit(inside="halving")
    with pytest.raises(ValueError, match=r"floor = 1\.5"):
        ReplayFit(floor=1.5)
    with pytest.raises(ValueError, match="are not the 40 tokens of the cache"):
        read(prefill(model, text(), 8), text()[:, :30])
    with pytest.raises(ValueError, match="last positions: calibration >= 1"):
        read(prefill(model, text(), 0), text())
    with pytest.raises(ValueError, match="one sample"):
        read(prefill(model, text(2), 8), text(2))
    with pytest.raises(ValueError, match=r"repeated = 0\.0"):
        read(prefill(model, text(), 8), text(), repeated=0.0)
    with pytest.raises(ValueError, match="lead = -1 must be at least 0 tokens"):
        read(prefill(model, text(), 8), text(), lead=-1)
    with pytest.raises(ValueError, match="needs gradients of the replay"):
        ReplayFit(first="kvgrad", part=1.0).choose(found, 48)
    with torch.inference_mode(), pytest.raises(ValueError, match="forbids"):
        read(prefill(model, text(), 8), text(), sloped=True)


def test_dropkv_is_the_error_of_leaving_a_token_out(found) -> None:
    eager = Eager(text(), torch.cat([REQUEST, text()[0]]))
    for layer, kv in ((0, 1), (1, 0)):
        values = eager.out.past_key_values.layers[layer].values[0, kv]
        expected = torch.zeros(eager.n, dtype=torch.float64)
        for head in (2 * kv, 2 * kv + 1):
            shares = eager.out.attentions[layer][0, head, eager.n :]
            for token in range(eager.n):
                left = shares.clone()
                left[:, token] = 0
                moved = (left / left.sum(-1, keepdim=True) - shares) @ values
                expected[token] += moved.square().sum()
        torch.testing.assert_close(found.sums("dropped")[layer, kv], expected, rtol=1e-3, atol=1e-9)


def test_leverage_is_that_of_keys_without_positions(model, found) -> None:
    plain = []
    hooks = [
        layer.self_attn.k_proj.register_forward_hook(lambda *a: plain.append(a[2][0])) for layer in model.model.layers
    ]
    with torch.no_grad():
        model(text())
    for hook in hooks:
        hook.remove()
    for index, keys in enumerate(plain):
        heads = keys.double().unflatten(-1, (2, -1)).transpose(0, 1)  # [kv, n, d]
        q, _ = torch.linalg.qr(heads - heads.mean(1, keepdim=True))
        expected = q.square().sum(-1)
        torch.testing.assert_close(found.reading.layers[index].leverage, expected, rtol=1e-3, atol=1e-5)
        standard = (expected - expected.mean()) / expected.std()
        torch.testing.assert_close(scores("leverage", found, 1.0, 10)[index], standard, rtol=1e-2, atol=1e-3)


def test_kvzip_keeps_the_tokens_that_kvpress_keeps(found) -> None:
    golden = json.loads((Path(__file__).parent / "golden" / "kvzip.json").read_text())
    theirs = torch.tensor(golden["scores"])
    torch.testing.assert_close(found.sums("largest")[..., 4:], theirs[..., 4:], rtol=1e-4, atol=1e-6)
    count = sum(len(head) for layer in golden["kept"] for head in layer)
    kept = ReplayFit(first="kvzip", part=1.0, weights="none").kept(found, count)
    assert count == 80
    assert [[head.nonzero()[:, 0].tolist() for head in layer] for layer in kept] == golden["kept"]


def test_weights_are_fitted_where_rounding_spoils_the_quadratic_form() -> None:
    """A token whose own error is below the rounding of the sums: its row says nothing, and the others are fitted."""
    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gram = rows.T @ rows
    target = gram @ torch.linspace(0.5, 1.5, 8, dtype=torch.float64)
    alone = fitted(gram, target, 0.05, 1e-3)
    noise = 1e-5 * torch.randn(8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    spoilt = torch.nn.functional.pad(gram, (0, 1, 0, 1))
    spoilt[8, :8] = spoilt[:8, 8] = noise
    spoilt[8, 8] = -1e-9
    assert bool(torch.linalg.eigvalsh(spoilt)[0] < 0)
    w = fitted(spoilt, torch.cat([target, noise.sum()[None]]), 0.05, 1e-3)
    assert bool(w.isfinite().all())
    torch.testing.assert_close(w[:8], alone, rtol=0.02, atol=0.02)
    with pytest.raises(RuntimeError, match="may hold NaN"):
        fitted(gram * torch.nan, target, 0.05, 1e-3)
