"""Eviction heuristics: each score against a loop over tokens and queries, exact sizes, positions, real heads."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from attention_coresets import CACHES, CORESETS, Cache, make_cache, make_coreset
from attention_coresets.attention import attention_weights, seen
from attention_coresets.caches import token_order
from attention_coresets.coresets.eviction import EVICTION
from attention_coresets.coresets.eviction.base import top_scores
from attention_coresets.coresets.eviction.curdkv import CurDKV
from attention_coresets.models.capture import capture
from attention_coresets.models.captured import Model, load_head, read_layer
from attention_coresets.study.cell import run_cell
from oracles import softmax
from tables import generators

N, D, DV, HEADS, GROUP, QUERIES, SIZE, RHO = 41, 5, 3, 2, 3, 11, 17, 2.0
ENTRIES = [
    ("streaming_llm", {}),
    ("streaming_llm", {"sinks": 0}),
    ("h2o", {}),
    ("h2o", {"recent": 0.0}),
    ("snapkv", {"window": 6}),
    ("snapkv", {"window": 4, "pool": 1}),
    ("tova", {}),
    ("knorm", {}),
    ("keydiff", {}),
    ("expected_attention", {}),
    ("expected_attention", {"sinks": 0, "epsilon": 0.02}),
    ("curdkv", {}),
    ("curdkv", {"window": 7, "sinks": 2}),
    ("curdkv", {"leverage": "exact"}),
]
IDS = ["-".join([name, *(f"{k}={v}" for k, v in p.items())]) for name, p in ENTRIES]
USES_QUERIES = ("h2o", "snapkv", "tova", "expected_attention")


def random_cache(rng, heads=HEADS, n=N):
    """A cache off the origin, with keys of very different norms, queries that favour a few tokens, and positions."""
    keys = rng.standard_normal((heads, n, D)) * rng.uniform(0.3, 2.0, (heads, n, 1)) + rng.standard_normal(D)
    values = rng.standard_normal((heads, n, DV)) * rng.uniform(0.3, 2.0, (heads, n, 1))
    queries = rng.standard_normal((heads, GROUP, QUERIES, D)) * rng.uniform(0.3, 2.0, (heads, GROUP, 1, D))
    positions = np.stack([3 * rng.permutation(n) + 7 for _ in range(heads)])
    cache = Cache(torch.from_numpy(keys), torch.from_numpy(values))
    return cache, torch.from_numpy(queries), torch.from_numpy(positions)


# the definitions, head by head; k, v, q, positions of one head -> score of each token -------------------------------


def place(positions):
    return [sum(other < p for other in positions) for p in positions]


def streaming_llm(k, v, q, positions, sinks=4):
    return [math.inf if p < sinks else p for p in place(positions)]


def causal(k, where, head, j):
    """Softmax weights of query j of b, which stands at place n - b + j and sees up to there; 0 beyond."""
    sees = [i for i, p in enumerate(where) if p <= len(k) - len(head) + j]
    weights = np.zeros(len(k))
    weights[sees] = softmax(k[sees] @ head[j])
    return weights


def h2o(k, v, q, positions, recent=0.5):
    where, n, b = place(positions), len(k), len(q[0])
    total = sum(causal(k, where, head, j) for head in q for j in range(b))
    mean = [total[i] / sum(p <= n - b + j for j in range(b)) for i, p in enumerate(where)]
    keep = int(recent * SIZE)
    return [math.inf if p >= n - keep else mean[i] for i, p in enumerate(where)]


def snapkv(k, v, q, positions, window=64, pool=5):
    where, n = place(positions), len(k)
    at = {p: i for i, p in enumerate(where)}
    score = np.zeros(n)
    for head in q:
        seen = np.mean([causal(k, where, head[-window:], j) for j in range(len(head[-window:]))], axis=0)
        for i, p in enumerate(where):
            around = [p + s for s in range(-(pool // 2), pool // 2 + 1)]
            score[i] += sum(seen[at[a]] for a in around if 0 <= a < n - window) / pool
    return [math.inf if p >= n - window else score[i] for i, p in enumerate(where)]


def tova(k, v, q, positions):
    return sum(softmax(k @ head[-1]) for head in q)


def knorm(k, v, q, positions):
    return [-math.sqrt(sum(x * x for x in key)) for key in k]


def keydiff(k, v, q, positions):
    anchor = np.mean([key / np.linalg.norm(key) for key in k], axis=0)
    return [-(key @ anchor) / np.linalg.norm(key) / np.linalg.norm(anchor) for key in k]


def expected_attention(k, v, q, positions, sinks=4, epsilon=0.0):
    where = np.array(place(positions))
    rest = where >= sinks
    weights = np.zeros(len(k))
    for head in q:
        mean, covariance = head.mean(0), np.cov(head.T, bias=True)
        logits = np.array([mean @ key + key @ covariance @ key / 2 for key in k])
        weights[rest] += softmax(logits[rest]) / len(q)
    score = (weights + epsilon) * np.linalg.norm(v, axis=1)
    return np.where(rest, score, math.inf)


def curdkv(k, v, q, positions, leverage="local", sinks=4, window=16):
    where = np.array(place(positions))

    def of(x):
        if leverage == "exact":
            return np.array([row @ np.linalg.pinv(x.T @ x) @ row for row in x])
        squares = (x**2).sum(1)
        return np.array([squares[i] / squares[where // window == where[i] // window].sum() for i in range(len(x))])

    return np.where(where < sinks, math.inf, of(k) * of(v))


def best(scores, size):
    """The tokens of the `size` largest scores, and by how much the last one kept beats the next."""
    order = np.argsort(-np.asarray(scores, dtype=float), kind="stable")
    return sorted(order[:size].tolist())


@pytest.mark.rounding
@pytest.mark.parametrize(("name", "parameters"), ENTRIES, ids=IDS)
def test_scores_are_the_definition(name, parameters, rng):
    for _ in range(4):
        cache, queries, positions = random_cache(rng)
        construct = make_coreset(name, **parameters)
        coreset = construct(cache, SIZE, RHO, *generators(0), queries=queries, positions=positions)
        assert coreset.log_weights is None
        for h in range(HEADS):
            parts = (x[h].numpy() for x in (cache.keys, cache.values, queries, positions))
            assert coreset.indices[h].tolist() == best(globals()[name](*parts, **parameters), SIZE)


def test_exact_leverage_of_keys_that_span_less(rng):
    """Rank 2 in five dimensions: the diagonal of the projection onto the two, whatever rounding leaves in the rest."""
    left, right = rng.standard_normal((N, 2)), rng.standard_normal((2, D))
    keys = left @ right
    basis, _ = np.linalg.qr(left)
    found = CurDKV(leverage="exact")._leverage(torch.from_numpy(keys)[None], torch.arange(N)[None], torch.Generator())
    np.testing.assert_allclose(found[0], (basis**2).sum(-1), atol=1e-9)


def test_half_of_h2os_budget_is_recent(rng):
    """As in the paper, unless said: of 40 tokens the last 20, and of the others those most attended to."""
    cache, queries, _ = random_cache(rng, n=80)
    wide = queries.repeat(1, 1, 7, 1)
    kept = make_coreset("h2o")(cache, 40, RHO, *generators(0), queries=wide).indices
    assert ((kept >= 60).sum(-1) == 20).all()
    weights = attention_weights(wide, cache.keys, torch.arange(80).expand(HEADS, -1)).mean(dim=-3).sum(dim=-2)
    scores = weights / seen(torch.arange(80).expand(HEADS, -1), wide.shape[-2]).sum(dim=-2)
    assert torch.equal(kept[:, :20], scores[:, :60].topk(20, dim=-1).indices.sort(dim=-1).values)


def test_projected_leverage_is_the_exact_gram_of_many_projections(rng):
    """|x G|^2 has mean |x|^2: with thousands of columns the order is that of the squared norms."""
    cache, _, positions = random_cache(rng)
    construct = make_coreset("curdkv", leverage="projected", rank=20_000, sinks=0)
    found = construct(cache, SIZE, RHO, *generators(0), positions=positions).indices
    scores = cache.keys.square().sum(-1) * cache.values.square().sum(-1)
    for h in range(HEADS):
        assert len(set(found[h].tolist()) & set(best(scores[h].numpy(), SIZE))) >= SIZE - 1
    few = [
        make_coreset("curdkv", leverage="projected", rank=1)(cache, SIZE, RHO, *generators(seed)).indices
        for seed in (0, 0, 1)
    ]
    assert torch.equal(few[0], few[1])
    assert not torch.equal(few[0], few[2])


@pytest.mark.rounding
@pytest.mark.parametrize(("name", "parameters"), ENTRIES, ids=IDS)
def test_exact_size_in_every_head_and_the_same_in_every_batch(name, parameters, rng):
    cache, queries, positions = random_cache(rng, heads=4)
    construct = make_coreset(name, **parameters)
    for size in (5, 8, N - 1, N, N + 3):
        coreset = construct(cache, size, RHO, generators(1, 2, 3, 4), queries=queries, positions=positions)
        assert coreset.indices.shape == (4, min(size, N))
        for h in range(4):
            alone = construct(cache[h], size, RHO, *generators(1 + h), queries=queries[h], positions=positions[h])
            assert torch.equal(alone.indices, coreset.indices[h])
        square = Cache(*(x.unflatten(0, (2, 2)) for x in (cache.keys, cache.values)))
        folded = construct(
            square,
            size,
            RHO,
            *generators(1),
            queries=queries.unflatten(0, (2, 2)),
            positions=positions.unflatten(0, (2, 2)),
        )
        assert torch.equal(folded.indices.flatten(0, 1), coreset.indices)
    tiny = Cache(cache.keys[:, :3], cache.values[:, :3])  # fewer tokens than sinks: all are kept
    every = construct(tiny, 3, RHO, *generators(1), queries=queries[..., :3, :], positions=positions[:, :3])
    assert every.indices.tolist() == [[0, 1, 2]] * 4
    single = Cache(*(x.float() for x in (cache.keys, cache.values)))
    found = construct(single, SIZE, RHO, *generators(1), queries=queries, positions=positions)
    assert found.indices.shape == (4, SIZE)


@pytest.mark.rounding
@pytest.mark.parametrize(("name", "parameters"), ENTRIES, ids=IDS)
def test_positions_say_where_a_token_is_wherever_it_stands(name, parameters, rng):
    cache, queries, positions = random_cache(rng)
    order = torch.from_numpy(np.argsort(positions.numpy(), axis=1))
    inorder = Cache(*cache.take(order))
    construct = make_coreset(name, **parameters)
    shuffled = construct(cache, SIZE, RHO, *generators(0), queries=queries, positions=positions).indices
    default = construct(inorder, SIZE, RHO, *generators(0), queries=queries).indices
    assert torch.equal(order.gather(-1, default).sort(dim=-1).values, shuffled)


def test_snapkv_of_a_budget_below_the_window_and_of_a_cache_below_it(rng):
    cache, queries, positions = random_cache(rng)
    for size, window in ((5, 9), (5, 64)):
        found = make_coreset("snapkv", window=window)(cache, size, RHO, *generators(0), queries, positions)
        for h in range(HEADS):
            assert set(positions[h][found.indices[h]].tolist()) == set(sorted(positions[h].tolist())[-size:])


def test_of_equal_scores_the_earlier_token_is_kept():
    assert top_scores(torch.tensor([[1.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]), 2).indices.tolist() == [
        [0, 1],
        [0, 1],
    ]


def test_queries_and_positions_that_do_not_fit(rng):
    cache, queries, positions = random_cache(rng)
    for name in EVICTION:
        construct = make_coreset(name)
        assert construct.needs_queries == (name in USES_QUERIES)
        if construct.needs_queries:
            with pytest.raises(ValueError, match=rf"{type(construct).__name__} chooses tokens by .* pass queries"):
                construct(cache, SIZE, RHO, *generators(0))
            with pytest.raises(ValueError, match="must have shape"):
                construct(cache, SIZE, RHO, *generators(0), queries=queries[..., :-1])
            with pytest.raises(ValueError, match="queries hold NaN"):
                construct(cache, SIZE, RHO, *generators(0), queries=queries * math.nan)
        if construct.needs_positions:
            same = torch.zeros_like(positions)
            with pytest.raises(ValueError, match="distinct"):
                construct(cache, SIZE, RHO, *generators(0), queries=queries, positions=same)
            with pytest.raises(ValueError, match="must have shape"):
                construct(cache, SIZE, RHO, *generators(0), queries=queries, positions=positions[:, 1:])
    for name in ("streaming_llm", "expected_attention", "curdkv"):
        with pytest.raises(ValueError, match="size must exceed the 4 sinks"):
            make_coreset(name)(cache, 4, RHO, *generators(0), queries=queries)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("streaming_llm", {"sinks": -1}),
        ("h2o", {"recent": 1.5}),
        ("snapkv", {"window": 0}),
        ("snapkv", {"pool": 4}),
        ("expected_attention", {"epsilon": -1.0}),
        ("curdkv", {"leverage": "approximate"}),
        ("curdkv", {"rank": 0}),
    ],
)
def test_parameters_refused(name, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        make_coreset(name, **parameters)


# real heads ---------------------------------------------------------------------------------------------------------

TINY = {"name": "model", "model": "tiny-random", "n": 48, "queries": 16, "layer": 1, "kv_head": 1}


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_CORESETS_CAPTURES", str(tmp_path_factory.mktemp("captures")))
        capture(Model(**{key: value for key, value in TINY.items() if key != "name"}).source, progress=False)
        yield


def cell(name, parameters, **cache):
    filled = dataclasses.asdict(CORESETS[name](**parameters))
    return {
        "cache": dataclasses.asdict(CACHES["model"](**{k: v for k, v in (TINY | cache).items() if k != "name"}))
        | {"name": "model"},
        "coreset": {"name": name, **filled},
        "rho": 2.0,
        "seed": 3,
        "heads": 1,
        "sizes": [8, 20],
        "adversary": {"restarts": 8, "steps": 5, "polish": 5, "certify": False},
        "compute": {"device": "cpu", "dtype": "float64", "threads": None},
    }


@pytest.mark.usefixtures("captured")
def test_model_units_are_what_the_model_computed():
    head = load_head(Model(**{key: value for key, value in TINY.items() if key != "name"}))
    layer = read_layer(Model(model="tiny-random", n=48, queries=16).source, 1)
    cache, queries = head.in_model_units()
    assert torch.allclose(cache.keys, layer.keys[1].double(), atol=1e-12)
    assert torch.allclose(cache.values, layer.values[1].double(), atol=1e-12)
    assert torch.allclose(queries, layer.calibration[2:].double() * layer.scaling, atol=1e-12)  # heads 2 and 3


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("name", EVICTION)
def test_real_heads_whatever_the_order_of_the_tokens(name, monkeypatch):
    """The cell hands over text order, queries and the model's own units: the definition on the raw capture is kept."""
    kept = {}

    class Spy(CORESETS[name]):
        def __call__(self, cache, size, *args, **options):
            kept[size] = super().__call__(cache, size, *args, **options)
            return kept[size]

    parameters = {"window": 4} if name == "snapkv" else {}
    rows = {}
    for shuffle in (False, True):
        config = cell(name, parameters, shuffle=shuffle)
        monkeypatch.setattr("attention_coresets.study.errors.make_coreset", lambda _, **p: Spy(**p))
        rows[shuffle] = run_cell(config)
        order = token_order(Model(**{k: v for k, v in TINY.items() if k != "name"} | {"shuffle": shuffle}), 48, 3)
        layer = read_layer(Model(model="tiny-random", n=48, queries=16).source, 1)
        k, v = layer.keys[1].double().numpy(), layer.values[1].double().numpy()
        asked = layer.moved if CORESETS[name].moved else layer.calibration
        q = asked[2:].double().numpy() * layer.scaling
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "SIZE", 20)
            wanted = best(globals()[name](k, v, q, list(range(48)), **parameters), 20)
        assert sorted(order[kept[20].indices[0].numpy()].tolist()) == wanted
    for a, b in zip(rows[False], rows[True], strict=True):
        assert a["model"] == "unweighted"
        assert a["heldout_max"] == pytest.approx(b["heldout_max"], rel=1e-9)


@pytest.mark.usefixtures("captured")
@pytest.mark.parametrize("variant", ["published", "shipped"])
def test_balancekv_on_a_real_head(variant):
    rows = run_cell(cell("balancekv", {"variant": variant}))
    assert [row["size"] for row in rows] == [8, 20]
    assert {row["model"] for row in rows} == {"unweighted" if variant == "published" else "free"}
    assert all(math.isfinite(row["heldout_max"]) for row in rows)


def test_shuffled_order_is_the_caches(captured):
    family = Model(**{key: value for key, value in TINY.items() if key != "name"})
    shuffled = make_cache("model", seed=3, **{key: value for key, value in TINY.items() if key != "name"})
    assert torch.equal(shuffled.keys, load_head(family).cache.keys[token_order(family, 48, 3)])
