"""Attention Matching on a whole model: tokens, weights and values against their definitions, and budgets by shares."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from attention_coresets.models.serving import agreement, continuation, keep, prefill  # noqa: E402
from attention_coresets.models.whole.attention_matching import (  # noqa: E402
    LEAST,
    MOST,
    AttentionMatching,
    boxed,
    read_shares,
)
from attention_coresets.models.whole.budgets import by_shares  # noqa: E402
from attention_coresets.models.whole.measured import Measured  # noqa: E402
from attention_coresets.models.whole.replay import read  # noqa: E402
from serving_models import make, text  # noqa: E402

SINKS = 4


@pytest.fixture(scope="module")
def model():
    return make("Llama")


@pytest.fixture(scope="module")
def found(model) -> Measured:
    return Measured(read(prefill(model, text(), 40), text(), None, chunk=16))


def seen(found: Measured, layer: int, head: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries [q, d] of a head's group over all chunks, and the keys and values that are matched, in float64."""
    mine = found.reading.layers[layer]
    queries = torch.cat([look.queries[head].flatten(0, 1) for look in mine.replays]).double()
    return queries, mine.keys[head, SINKS:].double(), mine.values[head, SINKS:].double()


def test_tokens_are_those_of_largest_root_mean_square_attention(found) -> None:
    kept = AttentionMatching(budget="even").kept(found, 4 * 12)
    for layer in range(2):
        for head in range(2):
            queries, keys, _ = seen(found, layer, head)
            rms = (queries @ keys.T).softmax(-1).square().mean(0).sqrt()
            best = set((rms.topk(12 - SINKS).indices + SINKS).tolist())
            assert set(kept[layer, head].nonzero()[:, 0].tolist()) == {0, 1, 2, 3} | best
    pooled = AttentionMatching().kept(found, 4 * 12)
    assert int(pooled.sum()) == 48
    assert len(set(pooled.sum(-1).flatten().tolist())) > 1


def test_weights_are_the_least_error_of_the_mass_in_the_box(found) -> None:
    coresets = AttentionMatching().choose(found, 4 * 12)
    for layer, heads in coresets.items():
        for head, coreset in enumerate(heads):
            queries, keys, _ = seen(found, layer, head)
            logits = queries @ keys.T
            masses = (logits - logits.amax(-1, keepdim=True)).exp()
            design, target = masses[:, coreset.indices[SINKS:] - SINKS], masses.sum(-1)
            assert coreset.log_weights[:SINKS].tolist() == [0.0] * SINKS
            w = coreset.log_weights[SINKS:].double().exp()
            assert float(w.min()) >= LEAST - 1e-6
            assert float(w.max()) <= MOST + 1e-4
            slope = design.T @ (design @ w - target) / float((design.T @ target).max())
            free = (w > LEAST * 1.001) & (w < MOST * 0.999)
            assert float(slope[free].abs().max() if free.any() else 0) < 2e-4
            assert float(slope[w <= LEAST * 1.001].min() if (w <= LEAST * 1.001).any() else 0) > -2e-4
            assert float(slope[w >= MOST * 0.999].max() if (w >= MOST * 0.999).any() else 0) < 2e-4


def test_values_are_those_of_least_error_of_attention(found) -> None:
    construct = AttentionMatching(refit=True)
    coresets = construct.choose(found, 4 * 12)
    values = construct.values(found, coresets)
    assert construct.model == "refitted"
    for layer, heads in coresets.items():
        for head, coreset in enumerate(heads):
            queries, keys, own = seen(found, layer, head)
            kept = coreset.indices[SINKS:] - SINKS
            shares = (queries @ keys[kept].T + coreset.log_weights[SINKS:]).softmax(-1)
            aim = (queries @ keys.T).softmax(-1) @ own
            expected = torch.linalg.lstsq(shares, aim).solution
            new = values[layer][head]
            torch.testing.assert_close(new[:SINKS], found.reading.layers[layer].values[head, :SINKS])
            least = float((shares @ expected - aim).norm())
            assert float((shares @ new[SINKS:].double() - aim).norm()) < 1.001 * least + 1e-6
            assert least < float((shares @ own[kept] - aim).norm())


def test_refitted_values_stand_in_the_cache_and_the_model_reads_them(model, found) -> None:
    ids, more = text(), text(seed=3)[:, :12]
    prefilled = prefill(model, ids, 40)
    full = continuation(model, prefilled.cache, more)
    construct = AttentionMatching(refit=True)
    coresets = construct.choose(found, 80)
    held = {layer: [heads] for layer, heads in coresets.items()}
    values = {layer: [heads] for layer, heads in construct.values(found, coresets).items()}
    cache = keep(prefilled, held, values)
    core = cache.layers[1].cores[0]
    torch.testing.assert_close(core.values, torch.cat(values[1][0]))
    divergence = [agreement(full, continuation(model, keep(prefilled, held, v), more), more).kl for v in (values, None)]
    assert divergence[0] != divergence[1]
    everything = construct.choose(found, 160)
    kept = keep(prefilled, {layer: [heads] for layer, heads in everything.items()})
    assert agreement(full, continuation(model, kept, more), more).kl < 1e-6


def test_shares_of_a_model_are_a_file_that_other_models_do_not_fit(found) -> None:
    shares = read_shares("smollm2-135m")
    assert shares.shape == (30, 3)
    assert float(shares.sum()) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="measure them for this model"):
        AttentionMatching(budget="shares", shares="smollm2-135m").choose(found, 48)


def test_the_box_holds_and_the_minimum_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 10, generator=generator, dtype=torch.float64) + 1
    target = rows @ torch.linspace(-2, 6, 10, dtype=torch.float64)
    gram, right = rows.T @ rows, rows.T @ target
    w = boxed(gram, right, 0.5, 3.0)
    slope = gram @ w - right
    assert float(w.min()) >= 0.5
    assert float(w.max()) <= 3.0
    scale = float(right.abs().max())
    assert bool((slope[w <= 0.5] > -1e-6 * scale).all())
    assert bool((slope[w >= 3.0] < 1e-6 * scale).all())
    assert float(slope[(w > 0.5) & (w < 3.0)].abs().max()) < 1e-6 * scale


def test_shares_are_spent_in_proportion_within_what_heads_can_hold() -> None:
    scores = torch.rand(2, 2, 20, generator=torch.Generator().manual_seed(0))
    kept = torch.zeros(2, 2, 20, dtype=torch.bool)
    kept[..., :2] = True
    sizes = by_shares(scores, 30, kept, torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum(-1)
    assert sizes.tolist() == [[3, 6], [9, 12]]
    sizes = by_shares(scores, 40, kept, torch.tensor([[0.0, 1.0], [1.0, 100.0]])).sum(-1)
    assert int(sizes.sum()) == 40
    assert sizes[1, 1] == 20
    assert sizes[0, 0] == 3
    chosen = by_shares(scores, 30, kept, torch.ones(2, 2))
    assert bool(chosen[..., :2].all())
    free, out = scores.masked_fill(~chosen | kept, 2.0), scores.masked_fill(chosen, -1.0)
    assert bool((free.amin(-1) >= out.amax(-1)).all())
    with pytest.raises(ValueError, match=r"shares must be \[2, 2\] numbers"):
        by_shares(scores, 30, kept, torch.ones(2, 3))
    with pytest.raises(ValueError, match="needs their file"):
        AttentionMatching(budget="shares")
