"""Budgets of heads by their influence: curves against caches made by hand, exchanges against all allocations."""

import itertools

import pytest
import torch

transformers = pytest.importorskip("transformers")

from attention_coresets.models.serving import continuation, keep, prefill  # noqa: E402
from attention_coresets.models.serving.evaluation import losses  # noqa: E402
from attention_coresets.models.whole.attention_matching import AttentionMatching  # noqa: E402
from attention_coresets.models.whole.influence import BASE, RATIOS, exchanged, head_curves  # noqa: E402
from attention_coresets.models.whole.measured import Measured  # noqa: E402
from attention_coresets.models.whole.replay import read  # noqa: E402
from serving_models import make, text  # noqa: E402


def test_exchanges_end_at_the_best_allocation_of_convex_curves() -> None:
    steep = torch.tensor([[0.1], [3.0], [1.0]], dtype=torch.float64)
    curves = steep / (0.1 + torch.tensor(RATIOS, dtype=torch.float64))
    found = exchanged(curves, 1 / 4, step=1 / 16)
    assert float(found.sum()) == pytest.approx(3 / 4)

    def loss(ratios) -> float:
        grid = list(RATIOS)
        total = 0.0
        for row, ratio in zip(curves.tolist(), ratios, strict=True):
            i = min(max(j for j, x in enumerate(grid) if x <= max(ratio, grid[0])), len(grid) - 2)
            part = (max(ratio, grid[0]) - grid[i]) / (grid[i + 1] - grid[i])
            total += row[i] + part * (row[i + 1] - row[i])
        return total

    steps = [i / 16 for i in range(1, 17)]
    best = min(loss(r) for r in itertools.product(steps, repeat=3) if abs(sum(r) - 3 / 4) < 1e-9)
    assert loss(found.tolist()) == pytest.approx(best)
    assert found[steep.argmax()] > found[steep.argmin()]


def test_a_curve_is_the_loss_with_one_head_of_another_size() -> None:
    model, ids, more = make("Llama"), text(), text(seed=3)[:, :12]
    prefilled = prefill(model, ids, 40)
    found = Measured(read(prefilled, ids))
    sizes = []

    def loss(cache) -> float:
        sizes.append([core.sizes for layer in cache.layers for core in layer.cores])
        return float(losses(continuation(model, cache, more), more).mean())

    curves = head_curves(prefilled, found, loss)
    assert curves.shape == (2, 2, len(RATIOS))
    assert not curves[..., RATIOS.index(BASE)].any()
    construct = AttentionMatching(budget="even", refit=True)
    base, more_of = (construct.choose(found, 4 * size) for size in (5, 20))
    values, other = (construct.values(found, each) for each in (base, more_of))
    base[1][0], values[1][0] = more_of[1][0], other[1][0]
    cache = keep(prefilled, {i: [h] for i, h in base.items()}, {i: [v] for i, v in values.items()})
    alone = loss(cache) - loss(
        keep(
            prefilled,
            {i: [h] for i, h in construct.choose(found, 20).items()},
            {i: [v] for i, v in construct.values(found, construct.choose(found, 20)).items()},
        )
    )
    assert float(curves[1, 0, RATIOS.index(1 / 2)]) == pytest.approx(alone, abs=1e-6)
    assert sizes[0] == [(5, 5), (5, 5)]
