"""Constructions on a model's own queries: kernel and error against loops over queries, marginals, sizes, sinks."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from agreement import assert_agree
from attention_coresets import Cache, Coreset, WeightedCache, attention_error, make_coreset
from attention_coresets.coresets.base import place_in_text
from attention_coresets.coresets.kernel.law import capped_marginals
from attention_coresets.coresets.queries.calibration import calibration, error_moment, gram, log_sensitivities
from oracles import softmax
from tables import generators

N, D, DV, HEADS, GROUP, QUERIES, RHO = 26, 5, 3, 2, 2, 9, 1.0
NAMES = ("query_walk", "query_exchange")


def random_head(rng, queries=QUERIES, n=N):
    """Cache [HEADS, n] off the origin, queries and positions, tokens in no order."""
    keys = rng.standard_normal((HEADS, n, D)) * 1.2 + rng.standard_normal(D)
    values = rng.standard_normal((HEADS, n, DV)) * rng.uniform(0.3, 2.0, (HEADS, n, 1))
    asked = rng.standard_normal((HEADS, GROUP, queries, D))
    positions = np.stack([2 * rng.permutation(n) + 3 for _ in range(HEADS)])
    return Cache(torch.from_numpy(keys), torch.from_numpy(values)), torch.from_numpy(asked), torch.from_numpy(positions)


def by_loops(cache, queries, positions, h, moved):
    """Softmax weights of each query of a head, one after another, and centred values of largest norm 1."""
    k, v, p = (x[h].numpy() for x in (cache.keys, cache.values, positions))
    place = [int((p < x).sum()) for x in p]
    rows = []
    for head in queries[h].numpy():
        for j, query in enumerate(head):
            sees = [i for i in range(len(k)) if moved or place[i] <= len(k) - len(head) + j]
            row = np.zeros(len(k))
            row[sees] = softmax(k[sees] @ query)
            rows.append(row)
    v = v - v.mean(0)
    return rows, v / np.linalg.norm(v, axis=1).max()


@pytest.mark.parametrize("moved", [True, False])
def test_kernel_marginals_and_error_are_the_definitions(rng, moved):
    cache, queries, positions = random_head(rng)
    found = calibration(cache, queries, None if moved else place_in_text(positions, cache))
    moment, total = error_moment(found)
    for h in range(HEADS):
        rows, v = by_loops(cache, queries, positions, h, moved)
        b = len(rows)
        kernel = sum(N**2 * np.outer(t, t) * (v @ v.T + 1) for t in rows) / b
        np.testing.assert_allclose(gram(found)[h].numpy(), kernel, atol=1e-10)
        # the error of weights w at query q, its denominator left out, is |sum_i w_i n t_i (v_i - t v)|
        w = rng.uniform(0, 1, N)
        squares = [np.linalg.norm((w * N * t) @ (v - t @ v)) ** 2 for t in rows]
        assert float(w @ moment[h].numpy() @ w) == pytest.approx(np.mean(squares), rel=1e-9)
        np.testing.assert_allclose(total[h].numpy(), N * np.mean(rows, axis=0), atol=1e-12)
        rms = np.sqrt(np.mean(np.square(rows), axis=0))
        for name, law in {
            "max": np.max(rows, axis=0),
            "rms": rms,
            "smoothed": 0.9 * rms / rms.sum() + 0.1 / N,
        }.items():
            p = log_sensitivities(found, name)[h].exp().numpy()
            np.testing.assert_allclose(p / p.sum(), law / law.sum(), atol=1e-12)


@pytest.mark.parametrize("refinement", ["none", "kernel_swaps"])
@pytest.mark.parametrize("marginals", ["rms", "max", "smoothed"])
def test_the_walks_weights_are_those_of_its_marginals(rng, marginals, refinement):
    cache, queries, positions = random_head(rng)
    construct = make_coreset("query_walk", marginals=marginals, refinement=refinement, moved=False)
    coreset = construct(cache, 10, RHO, *generators(0), queries=queries, positions=positions)
    pi = capped_marginals(
        log_sensitivities(calibration(cache, queries, place_in_text(positions, cache)), marginals), 10
    )
    assert coreset.indices.shape == (HEADS, 10)
    torch.testing.assert_close(coreset.log_weights, -pi.gather(-1, coreset.indices).log(), rtol=0, atol=1e-9)


def test_the_walk_keeps_each_token_with_its_marginal(rng):
    cache, queries, _ = random_head(rng, n=8)
    draws, size = 600, 4
    pi = capped_marginals(log_sensitivities(calibration(cache, queries, None), "rms"), size)
    many = Cache(*(x[:, None].repeat(1, draws, 1, 1) for x in (cache.keys, cache.values)))
    asked = queries[:, None].repeat(1, draws, 1, 1, 1)
    coreset = make_coreset("query_walk")(many, size, RHO, torch.Generator().manual_seed(1), queries=asked)
    kept = torch.zeros(HEADS, draws, 8, dtype=torch.float64).scatter_(-1, coreset.indices, 1.0).mean(dim=1)
    spread = (pi * (1 - pi) / draws).sqrt()
    assert ((kept - pi).abs() <= 4.5 * spread + 1e-9).all()


def test_the_walk_beats_draws_at_its_own_queries(rng):
    """Balancing against a random subset of the same marginals and weights, mean error over draws."""
    cache, queries, _ = random_head(rng, queries=24, n=96)
    pi = capped_marginals(log_sensitivities(calibration(cache, queries, None), "rms"), 24)
    errors = {"walk": [], "draws": []}
    for seed in range(12):
        g = torch.Generator().manual_seed(seed)
        walk = make_coreset("query_walk")(cache, 24, RHO, g, queries=queries)
        chosen = torch.multinomial(pi, 24, generator=g).sort(dim=-1).values
        draws = Coreset(chosen, -pi.gather(-1, chosen).log())
        for name, coreset in (("walk", walk), ("draws", draws)):
            errors[name].append(float(attention_error(queries.flatten(1, 2), cache, coreset).mean()))
    assert np.mean(errors["walk"]) < 0.85 * np.mean(errors["draws"])


def test_sinks_are_kept_whatever_the_queries(rng):
    cache, queries, positions = random_head(rng)
    construct = make_coreset("query_walk", sinks=3, moved=False)
    coreset = construct(cache, 6, RHO, *generators(0), queries=queries, positions=positions)
    for h in range(HEADS):
        sinks = set(positions[h].argsort()[:3].tolist())
        kept = dict(zip(coreset.indices[h].tolist(), coreset.log_weights[h].tolist(), strict=True))
        assert sinks <= set(kept)
        assert all(abs(kept[i]) < 1e-12 for i in sinks)  # pi = 1


def test_exchange_reproduces_few_queries_and_moves_never_hurt(rng):
    """18 queries x (3 values + 1) conditions: 73 tokens suffice for any, so that of 80 tokens 76 give no error."""
    cache, queries, _ = random_head(rng, n=80)
    exact = make_coreset("query_exchange", moves=8)(cache, 76, RHO, *generators(0), queries=queries)
    assert float(attention_error(queries.flatten(1, 2), cache, exact).max()) < 1e-4
    moment, total = error_moment(calibration(cache, queries, None))
    objective = []
    for moves in (0, 2, 8, 64):
        coreset = make_coreset("query_exchange", moves=moves)(cache, 12, RHO, *generators(0), queries=queries)
        w = torch.zeros(HEADS, 80, dtype=torch.float64).scatter_(-1, coreset.indices, coreset.log_weights.exp())
        w = w / (w * total).sum(-1, keepdim=True)
        objective.append(torch.einsum("hi,hij,hj->h", w, moment, w))
    assert all((later <= before * (1 + 1e-9)).all() for before, later in pairwise(objective))
    assert (objective[-1] < 0.8 * objective[0]).all()


@pytest.mark.rounding
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_chosen_by_what_they_are_not_by_where_they_stand(rng, name):
    """One head alone, and everything in another order, with positions that say so (the walk draws by place: moved)."""
    cache, queries, positions = random_head(rng)
    construct = make_coreset(name, moved=False)
    both = construct(cache, 7, RHO, generators(0, 1), queries=queries, positions=positions)
    alone = construct(cache[1:], 7, RHO, generators(1), queries=queries[1:], positions=positions[1:])
    assert_agree(construct.agreement, both[1:], alone, cache[1:], RHO)
    if name == "query_exchange":
        order = torch.from_numpy(rng.permutation(N))
        other = construct(
            Cache(cache.keys[:, order], cache.values[:, order]),
            7,
            RHO,
            *generators(0),
            queries=queries,
            positions=positions[:, order],
        )
        tokens, places = order[other.indices].sort(dim=-1)
        back = Coreset(tokens, other.log_weights.gather(-1, places))
        assert_agree(construct.agreement, both, back, cache, RHO)


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_done_is_refused(rng, name):
    cache, queries, _ = random_head(rng)
    construct = make_coreset(name)
    assert construct.needs_queries
    assert construct.needs_positions
    assert construct.model_units
    assert construct(cache, N, RHO, *generators(0)).size == N
    with pytest.raises(ValueError, match="pass queries"):
        construct(cache, 5, RHO, *generators(0))
    with pytest.raises(ValueError, match="must have shape"):
        construct(cache, 5, RHO, *generators(0), queries=queries[..., :-1])
    with pytest.raises(ValueError, match="at most"):
        make_coreset(name, moved=False)(cache, 5, RHO, *generators(0), queries=queries.repeat(1, 1, 4, 1))
    with pytest.raises(ValueError, match="size must be at least 1"):
        construct(cache, 0, RHO, *generators(0), queries=queries)
    weighted = WeightedCache(cache.keys, cache.values, cache.keys[..., 0])
    for size in (5, N):
        with pytest.raises(ValueError, match="whatever the cache's log-weights"):
            construct(weighted, size, RHO, *generators(0), queries=queries)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("query_walk", {"marginals": "mean"}, "one of rms, max, smoothed"),
        ("query_walk", {"refinement": "minimax"}, "one of none, kernel_swaps"),
        ("query_walk", {"sinks": -1}, "sinks must be at least 0"),
        ("query_walk", {"ridge": 0.0}, "ridge must be above 0"),
        ("query_exchange", {"moves": -1}, "moves must be at least 0"),
    ],
)
def test_bad_parameters(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_coreset(name, **parameters)


def test_exchange_weighs_tokens_absolutely(rng):
    """The mean over queries of kept over whole softmax denominators is 1: new tokens may join with log-weight 0."""
    cache, queries, _ = random_head(rng)
    coreset = make_coreset("query_exchange")(cache, 9, RHO, *generators(0), queries=queries)
    logits = queries.flatten(1, 2) @ cache.keys.mT
    kept = logits.gather(-1, coreset.indices.unsqueeze(-2).expand(-1, logits.shape[-2], -1))
    share = (kept + coreset.log_weights.unsqueeze(-2)).exp().sum(-1) / logits.exp().sum(-1)
    torch.testing.assert_close(share.mean(-1), torch.ones(HEADS, dtype=torch.float64), rtol=0, atol=1e-9)
