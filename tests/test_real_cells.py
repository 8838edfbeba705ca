"""Cells on a real head: the columns it adds, and errors over an ellipsoid of its queries in place of a ball."""

import dataclasses

import numpy as np
import pytest
import torch

from attention_coresets.adversary import worst_query
from attention_coresets.attention import Cache, Coreset, WeightedCache
from attention_coresets.bodies import ellipsoid
from attention_coresets.caches import CACHES, make_cache
from attention_coresets.coresets import CORESETS
from attention_coresets.models.capture import capture
from attention_coresets.models.captured import Model, load_head, read_layer
from attention_coresets.study.cell import run_cell
from attention_coresets.study.checks import check
from attention_coresets.study.disk import StudyError
from attention_coresets.study.identity import cell_hash

HEAD = Model(model="tiny-random", n=48, queries=16, layer=1, kv_head=1)
SIZES = [8, 20]


@pytest.fixture(scope="module", autouse=True)
def captured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_CORESETS_CAPTURES", str(tmp_path_factory.mktemp("captures")))
        capture(HEAD.source, progress=False)
        yield


def cell(name: str, rho: float = 1.0, **changes) -> dict:
    return {
        "cache": {"name": "model", **dataclasses.asdict(HEAD)},
        "coreset": {"name": name, **dataclasses.asdict(CORESETS[name]())},
        "rho": rho,
        "seed": 3,
        "heads": 1,
        "sizes": SIZES,
        "adversary": {"restarts": 32, "steps": 100, "polish": 30, "certify": False},
        "compute": {"device": "cpu", "dtype": "float64", "threads": None},
        **changes,
    }


class Spy:
    """A construction that keeps what it was given and gave."""

    def __init__(self, name: str) -> None:
        self.construct = CORESETS[name]()
        self.given: list[Cache] = []
        self.gave: list[Coreset] = []

    def __getattr__(self, name: str):
        return getattr(self.construct, name)

    def __call__(self, cache, **options):
        self.given.append(cache)
        self.gave.append(self.construct(cache, **options))
        return self.gave[-1]


@pytest.fixture
def spied(monkeypatch):
    def run(name: str, **changes) -> tuple[Spy, list[dict]]:
        spy = Spy(name)
        monkeypatch.setattr("attention_coresets.study.errors.make_coreset", lambda *_, **__: spy)
        return spy, run_cell(cell(name, **changes))

    return run


def attention(queries: np.ndarray, keys: np.ndarray, values: np.ndarray, log_weights=0.0) -> np.ndarray:
    logits = queries @ keys.T + log_weights
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights @ values / weights.sum(1, keepdims=True)


def test_sensitivity_and_sink_from_the_raw_capture():
    """Keys and queries as the model has them, in NumPy: normalisation changes no softmax."""
    layer = read_layer(HEAD.source, 1)
    keys = layer.keys[1].double().numpy()
    moved, later = (x[2:].flatten(0, 1).double().numpy() * layer.scaling for x in (layer.moved, layer.queries))
    everything = np.eye(len(keys))
    sensitivity = attention(moved, keys, everything).max(0).sum()
    sink = attention(later, keys, everything)[:, 0].mean()
    for row in run_cell(cell("uniform")):
        assert row["total_sensitivity"] == pytest.approx(sensitivity, rel=1e-9)
        assert row["sink_weight"] == pytest.approx(sink, rel=1e-9)


@pytest.mark.parametrize("name", ["gram_schmidt_walk", "uniform", "query_exchange"])
def test_an_ellipsoid_cell_has_the_worst_query_of_the_body(name, spied, monkeypatch):
    """No query of the body, of thousands on its boundary and inside, errs more, and one errs so much; the ellipsoid is
    of the moved queries, and what takes weighted caches gets its view."""
    found = []

    def kept(*arguments, **options):
        found.append(worst_query(*arguments, **options))
        return found[-1]

    monkeypatch.setattr("attention_coresets.study.errors.worst_query", kept)
    spy, rows = spied(name, body="ellipsoid")
    head = load_head(HEAD)
    body = ellipsoid(head.moved)
    cache = make_cache("model", seed=3, heads=1, **dataclasses.asdict(HEAD))
    keys, values = cache.keys[0].numpy(), cache.values[0].numpy()
    u = torch.from_numpy(np.random.default_rng(0).standard_normal((4000, body.axes.shape[-1])))
    u = u / u.norm(dim=-1, keepdim=True) * torch.linspace(0.5, 1, len(u), dtype=u.dtype).unsqueeze(-1)
    queries = body.queries(u).numpy()
    center = keys @ body.center.numpy()
    for row, gave, worst in zip(rows, spy.gave, found, strict=True):
        kept_tokens = gave.indices[0].numpy()
        weights = np.zeros(len(kept_tokens)) if gave.log_weights is None else gave.log_weights[0].numpy()
        if name == "gram_schmidt_walk":
            weights = weights - center[kept_tokens]  # of the view, in whose logits <center, k> is a weight
        apart = attention(queries, keys, values) - attention(queries, keys[kept_tokens], values[kept_tokens], weights)
        sampled = np.linalg.norm(apart, axis=1).max()
        assert sampled * (1 - 1e-6) <= row["error"] <= 20 * sampled
        assert row["error"] > 0
        assert float(body.radii(worst.query)) <= 1 + 1e-6
        at = worst.query.numpy()
        there = attention(at, keys, values) - attention(at, keys[kept_tokens], values[kept_tokens], weights)
        assert row["error"] == pytest.approx(np.linalg.norm(there), rel=1e-6)
    assert all(isinstance(seen, WeightedCache) == (name == "gram_schmidt_walk") for seen in spy.given)
    if name == "gram_schmidt_walk":
        assert all(seen.d == body.axes.shape[-1] for seen in spy.given)


def test_what_makes_a_cell_another():
    """The ball is what all cells were before bodies came; another body is another cell."""
    plain = cell("uniform")
    assert cell_hash(plain) == cell_hash(plain | {"body": "ball"}) != cell_hash(plain | {"body": "ellipsoid"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"body": "cube"}, "body=cube"),
        (
            {"body": "ellipsoid", "cache": {"name": "sphere", **dataclasses.asdict(CACHES["sphere"](n=48, d=4))}},
            "model",
        ),
    ],
)
def test_bodies_that_are_none_are_refused(changes, message):
    labels = {"tier": "smoke", "tracking": {"name": "none"}, "task": "errors", "keep_recent": 0}
    config = cell("uniform") | labels
    config["adversary"] = config["adversary"] | {"gap": 1e-3}
    check(config | {"body": "ellipsoid"})
    with pytest.raises(StudyError, match=message):
        check(config | changes)
