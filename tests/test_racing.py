"""The racing adversary: a lower bound like any other, near the full search, the same in every batch."""

from typing import Any

import pytest
import torch

from attention_coresets import attention_error, make_cache, make_coreset, worst_query
from attention_coresets.adversary import ascent
from attention_coresets.adversary.ascent import Effort, _behind
from attention_coresets.study.identity import cell_hash
from tables import FAMILIES, generators, small_cache

RHO = 2.0


def parameters(family: str, rho: float) -> dict[str, Any]:
    """antipodal's keys are made for one rho."""
    return {"rho": rho} if family == "antipodal" else {}


def test_rounds_spend_a_sixth_of_the_steps():
    race, full = Effort(384, 80, 30, racing=True), Effort(128, 80, 80)
    assert (race.rounds, race.finalists) == ([(384, 8), (96, 12), (24, 32)], 4)
    assert (race.plain, full.plain) == (Effort(128, 80, 30), full)
    assert (full.rounds, full.finalists) == ([(128, 80)], 16)
    assert Effort(1, 1, 1, racing=True).rounds == [(1, 1)] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_it_finds_what_the_full_search_finds(family):
    """On caches this small every search finds the top: what a race gives up must not be the best."""
    rho = 1.5
    cache = small_cache(family, heads=3, **parameters(family, rho))
    coreset = make_coreset("tilted_draws")(cache, max(1, cache.n // 4), rho, generators(0, 1, 2))
    full = worst_query(cache, coreset, rho, restarts=128, steps=80)
    race = worst_query(cache, coreset, rho, restarts=256, steps=80, polish=60, racing=True)
    torch.testing.assert_close(race.error, full.error, rtol=1e-4, atol=1e-12)
    assert (race.query.norm(dim=-1) <= rho * (1 + 1e-12)).all()
    there = attention_error(race.query.unsqueeze(-2), cache, coreset).squeeze(-1)
    torch.testing.assert_close(race.error, there.to(torch.float64), rtol=1e-9, atol=1e-12)
    assert ((race.reached >= 1) & (race.reached <= 256)).all()


def test_a_head_is_the_same_in_any_batch():
    cache = make_cache("clusters", n=300, d=6, heads=3, seed=1)
    coreset = make_coreset("uniform")(cache, 30, RHO, generators(0, 1, 2))
    batch = worst_query(cache, coreset, RHO, restarts=64, racing=True)
    for head in range(3):
        alone = worst_query(cache[head], coreset[head], RHO, restarts=64, racing=True)
        torch.testing.assert_close(alone.error, batch.error[head], rtol=1e-9, atol=0)


def test_a_climb_that_ends_alone_is_not_believed(monkeypatch):
    """Then the full search runs too, from the same starts, and the larger error counts: here it always does."""
    cache = make_cache("sphere", n=200, d=16, heads=2, seed=4)
    coreset = make_coreset("gram_schmidt_walk")(cache, 40, 3.0, generators(0, 1))
    full = worst_query(cache, coreset, 3.0, restarts=16, steps=20, polish=5)
    effort = {"restarts": 48, "steps": 20, "polish": 5, "racing": True}
    race = worst_query(cache, coreset, 3.0, **effort)
    monkeypatch.setattr(ascent, "RACE_AGREES", 49)
    both = worst_query(cache, coreset, 3.0, **effort)
    assert torch.equal(both.error, torch.maximum(full.error, race.error))
    assert not torch.equal(full.error, race.error)


def test_of_climbs_on_one_hill_all_but_the_best_are_behind():
    generator = torch.Generator().manual_seed(0)
    hills = torch.randn(2, 6, 3, generator=generator)
    query = hills.repeat_interleave(3, dim=1) + 1e-3 * torch.randn(2, 18, 3, generator=generator)
    error = torch.rand(2, 18, generator=generator)
    error[0, :3] = 0.5  # a tie
    behind = _behind(query, error, rho=1.0).view(2, 6, 3)
    ahead = error.view(2, 6, 3).argmax(-1)
    assert torch.equal((~behind).to(torch.uint8).argmax(-1), ahead)
    assert ((~behind).sum(-1) == 1).all()


def test_a_cell_without_it_keeps_its_name_and_one_with_it_has_another():
    adversary = {"restarts": 128, "steps": 80, "polish": 80, "certify": False, "gap": 1e-4}
    cell = {
        "cache": {"name": "sphere", "n": 64, "d": 4},
        "coreset": {"name": "uniform"},
        "rho": 1.0,
        "seed": 0,
        "heads": 1,
        "sizes": [8],
        "compute": {"dtype": "float64"},
    }
    before = cell_hash(cell | {"adversary": adversary})
    assert cell_hash(cell | {"adversary": adversary | {"racing": False}}) == before
    assert cell_hash(cell | {"adversary": adversary | {"racing": True}}) != before
