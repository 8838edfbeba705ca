"""Cells of heads that a replay asks, against NumPy on the model's own arrays; and what tells their errors."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from attention_coresets import Cache, make_coreset
from attention_coresets.analysis.stats.cross_validation import explained
from attention_coresets.analysis.topics.head_sizes import prose, tables
from attention_coresets.analysis.topics.head_sizes.measures import needed
from attention_coresets.coresets.queries import query_walk
from attention_coresets.coresets.randomness import seed_of
from attention_coresets.coresets.shared import Shared
from attention_coresets.models.capture import Source
from attention_coresets.models.captured import Model
from attention_coresets.models.whole import replayed_heads
from attention_coresets.models.whole.replayed_heads import _readings, replayed_head
from attention_coresets.study.cell import run_cell
from attention_coresets.study.checks import check
from attention_coresets.study.disk import StudyError
from attention_coresets.study.table import to_frame
from synthetic_results import synthetic_results

N = 48
HEAD = Model(model="tiny-random", n=N, queries=16, layer=1, kv_head=1, calibration=16, shuffle=False)
CPU = torch.device("cpu")


def cell(name: str, **changes) -> dict:
    return {
        "task": "replayed",
        "cache": {"name": "model", **dataclasses.asdict(HEAD)},
        "coreset": {"name": name, **{f.name: f.default for f in dataclasses.fields(make_coreset(name))}},
        "rho": 4.0,
        "seed": 0,
        "heads": 1,
        "sizes": [8, 20],
        "adversary": {"restarts": 8, "steps": 10, "polish": 5, "certify": False, "gap": 1e-3},
        "compute": {"device": "cpu", "dtype": "float64", "threads": None},
        "tier": "smoke",
        "tracking": {"name": "none"},
        "keep_recent": 0,
        **changes,
    }


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keys, values, and the queries of both replays as the model computes them, float64."""
    plain, asked = _readings(HEAD.source, CPU)
    here, told = plain.layers[1], asked.layers[1]
    queries = [
        np.concatenate([look.queries[1].double().numpy() for look in x.replays], axis=1) for x in (here, told)
    ]  # [group, q, d]
    return here.keys[1].double().numpy(), here.values[1].double().numpy(), *(x.reshape(-1, 16) for x in queries)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_rows_are_those_of_the_replays_arrays() -> None:
    keys, values, repeating, told = arrays()
    v = values - values.mean(0)
    v /= np.linalg.norm(v, axis=1).max()
    T, full = softmax(repeating @ keys.T), softmax(told @ keys.T) @ v
    rows = run_cell(cell("query_walk"))
    to_frame([row | {"experiment": "x", "tier": "smoke", "arm": "query_walk"} for row in rows])  # all columns are there
    construct = make_coreset("query_walk")
    for row in rows:
        assert row["total_sensitivity"] == pytest.approx(T.max(0).sum(), rel=1e-6)
        assert (row["layer"], row["kv_head"], row["n"], row["d"]) == (1, 1, N, 16)
        assert np.isnan(row["error"])
        generator = torch.Generator().manual_seed(seed_of(0, 0, 4, row["size"]))
        queries = torch.from_numpy(repeating).view(1, 2, -1, 16)
        kept = construct(Cache(*map(torch.from_numpy, (keys, values))), row["size"], 4.0, generator, queries[0])
        tokens, weights = kept.indices.numpy(), np.exp(kept.log_weights.numpy())
        few = np.exp(told @ keys[tokens].T) * weights
        errors = np.linalg.norm(few / few.sum(1, keepdims=True) @ v[tokens] - full, axis=1)
        assert row["heldout_max"] == pytest.approx(errors.max(), rel=1e-5)
        assert row["heldout_p99"] == pytest.approx(np.quantile(errors, 0.99), rel=1e-5)
        assert row["heldout_mean"] == pytest.approx(errors.mean(), rel=1e-5)


def test_predictors_by_their_definitions() -> None:
    """Tokens left out one by one; singular values of the features themselves; the variance of draws, token by token."""
    keys, values, repeating, _ = arrays()
    v = values - values.mean(0)
    v /= np.linalg.norm(v, axis=1).max()
    T = softmax(repeating @ keys.T)
    outputs, left_out = T @ v, np.empty_like(T)
    for i in range(N):
        rest = np.delete(np.arange(N), i)
        left_out[:, i] = np.linalg.norm(softmax(repeating @ keys[rest].T) @ v[rest] - outputs, axis=1)
    features = T[:, :, None] * np.concatenate([v, np.ones((N, 1))], axis=1) / np.sqrt(len(T))  # [q, n, dv + 1]
    singular = np.linalg.svd(features.transpose(0, 2, 1).reshape(-1, N), compute_uv=False)
    p = np.sqrt((T**2).mean(0))
    for row in run_cell(cell("uniform")):
        size = row["size"]
        assert row["leave_out"] == pytest.approx(left_out.max(0).sum(), rel=1e-5)
        assert row["spectral_tail"] == pytest.approx(np.sqrt((singular[size:] ** 2).sum()), rel=1e-5)
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if np.minimum(1, middle * p).sum() < size else (low, middle)
        marginals = np.minimum(1, low * p)
        apart = ((v[None] - outputs[:, None]) ** 2).sum(-1)
        deviations = np.sqrt((T**2 * apart * (1 / marginals - 1)).sum(1))
        assert row["query_variance"] == pytest.approx(np.quantile(deviations, 0.99), rel=1e-2)
        assert row["gamma"] >= row["total_sensitivity"] * (1 - 1e-9)  # of all queries, as there are few


def test_nothing_is_left_where_everything_is_kept() -> None:
    *_, row = run_cell({**cell("uniform"), "sizes": [4, N]})
    assert (row["size"], row["spectral_tail"], row["query_variance"]) == (N, 0.0, 0.0)


def test_held_out_queries_are_of_another_replay(monkeypatch) -> None:
    monkeypatch.setattr(replayed_heads, "HELD_OUT", 10)
    head = replayed_head(HEAD.source, CPU, 1, 1)
    assert len(head.moved) == 2 * N
    assert len(head.heldout) == 2 * 10
    apart = torch.cdist(head.heldout, head.moved).amin(1)
    assert bool((apart > 1e-3 * head.moved.norm(dim=-1).mean()).all())


@pytest.mark.parametrize(
    ("layer", "kv_head", "message"), [(2, 0, "layers 0, 1, got layer = 2"), (0, 2, "KV heads 0 to 1")]
)
def test_heads_that_there_are_not_are_refused(layer, kv_head, message) -> None:
    with pytest.raises(ValueError, match=message):
        replayed_head(Source("tiny-random", "britannica", N, 16, 16), CPU, layer, kv_head)


def test_a_synthetic_cache_has_no_replay() -> None:
    check(cell("query_walk"))
    with pytest.raises(StudyError, match="cache=sphere: must be model for task=replayed"):
        check(cell("uniform", cache={"name": "sphere", "n": 48, "d": 4}))


def test_sizes_share_the_walks_kernel_and_keep_their_tokens(monkeypatch) -> None:
    made = []
    gram = query_walk.gram
    monkeypatch.setattr(query_walk, "gram", lambda found: made.append(1) or gram(found))
    keys, values, repeating, _ = (torch.from_numpy(x) for x in arrays())
    cache, queries, shared = Cache(keys, values), repeating.view(2, -1, 16), Shared()
    construct = make_coreset("query_walk")
    for size in (6, 12, 24):
        alone, found = (construct(cache, size, 1.0, 5, queries, shared=given) for given in (None, shared))
        assert torch.equal(alone.indices, found.indices)
        assert torch.equal(alone.log_weights, found.log_weights)
    assert len(made) == 3 + 1
    with pytest.raises(ValueError, match="or queries"):
        construct(cache, 6, 1.0, 5, queries.clone(), shared=shared)


def test_explained_variance_is_that_of_groups_left_out() -> None:
    """Fold by fold, with a fit of its own for each group's rows."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 30)
    x = rng.standard_normal((240, 2))
    luck = rng.standard_normal(8)[groups]
    y = 1 + x @ [2.0, -1.0] + luck + 0.1 * rng.standard_normal(240)
    missed, spread = 0.0, 0.0
    for left in range(8):
        out = groups == left
        design = np.c_[np.ones(240), x]
        beta = np.linalg.solve(design[~out].T @ design[~out], design[~out].T @ y[~out])
        missed += ((y[out] - design[out] @ beta) ** 2).sum()
        spread += ((y[out] - y[~out].mean()) ** 2).sum()
    found = explained(y, x, groups)
    assert found.value == pytest.approx(1 - missed / spread)
    assert found.low < found.value < found.high < 1
    assert explained(y, x, groups.astype(float)).caches == 8
    with pytest.raises(ValueError, match="at least 2"):
        explained(y, x, np.zeros(240))


def test_sizes_needed_lie_on_the_curve_between_sizes() -> None:
    """Errors 2 / m of one head and of another so small, or so large, that the grid does not reach."""
    sizes = (32, 64, 128)
    heads = {"a": (1.0, 2.0), "b": (2.0, 1e-3), "c": (3.0, 1e3)}
    rows = pd.DataFrame(
        {"cache_params": name, "d": 64, "n": 1024, "total_sensitivity": T, "size": size, "heldout_p99": times / size}
        for name, (T, times) in heads.items()
        for size in sizes
    )
    found = needed(rows, [0.05, 0.02]).set_index(["cache_params", "epsilon"])["at"]
    assert found["a", 0.05] == pytest.approx(2 / 0.05)
    assert found["a", 0.02] == pytest.approx(2 / 0.02)
    assert list(found["b"]) == [32, 32]
    assert list(found["c"]) == [128, 128]


def test_pages_say_of_the_second_model_what_its_heads_are_asked():
    """In the synthetic table T is 2 * 100^(layer / 11), of n = 2048 tokens; the second model has layers 5 and 11."""
    results = synthetic_results(noise=0)
    first, second = ([2 * 100 ** (layer / 11) / 2048 for layer in layers] for layers in (range(12), (5, 11)))
    assert prose.second(results) == (
        f"{sum(second) / 2:.3g} of the tokens in the mean over heads, on SmolLM2-135M {sum(first) / 12:.3g}"
    )
    lines = [line.split(" | ") for line in tables.gemma(results).splitlines() if "layer" in line]
    assert [line[0] for line in lines] == [f"| {text}, layer {n}" for text in ("britannica", "code") for n in (11, 5)]
    for line, layer in zip(lines, (11, 5, 11, 5), strict=True):
        total = 2 * 100 ** (layer / 11)
        assert [float(x) for x in line[1:3]] == pytest.approx([total, total / 2048], rel=0.01)
        assert float(line[3]) == pytest.approx(0.3 * 8 * total / 256, rel=0.01)
        needs = 0.3 * 8 * total / 0.1
        assert line[5] == ("> 1024 |" if needs > 1024 else "(256, 512] |")
