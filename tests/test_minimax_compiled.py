"""Compiled passes of the minimax refinement beside torch's: the same swaps and the same moves, one by one."""

import pytest
import torch

from attention_coresets import Cache, make_coreset
from attention_coresets.compiled import NUMBA_MISSING, compiled_runs
from attention_coresets.coresets.minimax import swaps as swaps_module
from attention_coresets.coresets.minimax import tabu as tabu_module
from attention_coresets.coresets.minimax.minimax import Minimax, minimax
from attention_coresets.coresets.minimax.query_bank import bank_of, random_queries
from attention_coresets.coresets.minimax.swap_tables import SwapTables
from attention_coresets.coresets.minimax.tabu import tabu_search
from tables import generators, small_cache

pytestmark = pytest.mark.skipif(NUMBA_MISSING is not None, reason="needs numba")
CASES = [("clusters", 96, 4, 12, 300), ("product", 61, 9, 7, 77), ("signed_clusters", 48, 4, 6, 128)]


def both_tables(family, n, d, m, b, doublings=2):
    """Torch's tables and the compiled ones of the same head."""
    cache, g = small_cache(family, n, d), generators(4)[0]
    cache = Cache(cache.keys[None], cache.values[None])
    bank = bank_of(cache, random_queries([g], b, cache.d, 2.0))
    log_weights, order = torch.randn(1, cache.n, generator=g, dtype=torch.float64), torch.randperm(cache.n, generator=g)
    kept = torch.zeros(1, cache.n, dtype=torch.bool)
    kept[0, torch.randperm(cache.n, generator=g)[:m]] = True
    logits = bank.queries @ cache.keys.mT
    return [
        kind(logits.clone(), log_weights, cache.values, bank.outputs, kept.clone(), doublings, order[None])
        for kind in (SwapTables, swaps_module.compiled.OneHead)
    ]


def same(found, expected):
    """Equal but for a rounding in float32, which a processor may make in another place."""
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6 * float(y.abs().max()))


@pytest.mark.parametrize("case", CASES)
def test_tables_are_those_of_torch(case):
    torchs, compiled = both_tables(*case)
    names = ("T", "N", "T_of", "N_of", "F", "Z", "now")
    same([getattr(compiled, name) for name in names], [getattr(torchs, name) for name in names])


@pytest.mark.parametrize("doublings", [0, 3])
@pytest.mark.parametrize("case", CASES)
def test_each_part_of_a_turn_is_that_of_torch(case, doublings):
    torchs, compiled = both_tables(*case, doublings=doublings)
    i, j = (torchs.order[:, k : k + 1] for k in (3, 5))
    left = torchs.without(i)
    same(compiled.without(i), left)
    same([compiled.screened(left)], [torchs.screened(left)])
    same([compiled.tried(left, torchs.order[:, :8])], [torchs.tried(left, torchs.order[:, :8])])
    same(compiled.moved(i, j), torchs.moved(i, j))


@pytest.mark.parametrize("case", CASES)
def test_turns_make_the_same_swaps(case):
    torchs, compiled = both_tables(*case)
    first = torchs.kept.clone()
    for _ in range(case[3]):
        for tables in (torchs, compiled):
            tables.turn(1e-3)
        assert torch.equal(torchs.kept, compiled.kept)
    assert not torch.equal(torchs.kept, first)


@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_rounds_of_swaps_keep_the_same_tokens(model, monkeypatch):
    cache, quick = small_cache("clusters", 64, 4), Minimax(rounds=2, random=128, restarts=24, steps=6, bank=160)
    start = make_coreset("gram_schmidt_walk", model=model)(cache, 8, 2.0, generators(1)[0])
    found, runs = [], []
    for compiled in (swaps_module.compiled, None):
        monkeypatch.setattr(swaps_module, "compiled", compiled)
        before = sum(compiled_runs().values())
        fixed = None if model == "unweighted" else torch.linspace(-1, 1, 64, dtype=torch.float64)
        found.append(minimax(cache, start, 2.0, model, fixed, generators(1)[0], quick))
        runs.append(sum(compiled_runs().values()) - before)
    assert runs[0] == runs[1] + quick.rounds
    assert torch.equal(found[0].indices, found[1].indices)
    assert not torch.equal(found[0].indices, start.indices)


@pytest.mark.parametrize("repeated", [False, True])
def test_compiled_searches_are_torchs(repeated, monkeypatch):
    """Move for move: from several subsets, with equal tokens too, where the first of equal ones is moved."""
    g = generators(2)[0]
    x = torch.randn(2, 50, 12, generator=g, dtype=torch.float64)
    x = x[:, torch.randint(9, (50,), generator=g)] if repeated else x
    order = torch.rand(2, 3, 50, generator=g).argsort(-1)
    kept = torch.zeros(2, 3, 50, dtype=torch.bool).scatter_(-1, order[..., :14], True)
    uniforms = torch.rand(2, 3, 2, 120, generator=g, dtype=torch.float64)
    found = tabu_search(x @ x.mT, kept, 120, uniforms)
    monkeypatch.setattr(tabu_module, "compiled", None)
    expected = tabu_search(x @ x.mT, kept, 120, uniforms)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=1e-12)
    assert not torch.equal(found[0], kept)
