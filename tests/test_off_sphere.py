"""Families off the sphere: their norms and biases, and cells of them against a search of the disc."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

import oracles
from attention_coresets import CACHES, Cache, WeightedCache, make_cache, make_coreset, tilt
from attention_coresets.caches import check_family
from attention_coresets.caches.biased_logits import BiasedLogits
from attention_coresets.study.cell import run_cell
from attention_coresets.study.checks import check
from attention_coresets.study.disk import StudyError
from tables import OFF_SPHERE, generators
from test_sweep import configuration


@pytest.mark.parametrize("family", OFF_SPHERE)
def test_a_head_is_the_same_in_every_batch(family):
    many, one = (make_cache(family, n=20, d=3, seed=4, heads=heads) for heads in (3, None))
    assert type(many) is type(one)
    assert torch.equal(many[0].keys, one.keys)
    assert torch.equal(many[0].values, one.values)
    assert not torch.equal(many[1].keys, one.keys)
    check_family(CACHES[family](n=20, d=3))


@pytest.mark.parametrize("spread", [0.3, 0.8])
def test_norms_are_lognormal_of_median_one_and_values_divided_by_their_largest(spread):
    cache = make_cache("spread_norms", n=20_000, d=3, spread=spread)
    logs = cache.keys.norm(dim=-1).log()
    assert kstest(logs.numpy() / spread, "norm").pvalue > 1e-3
    norms = cache.values.norm(dim=-1)
    assert norms.max().item() == pytest.approx(1, abs=1e-12)
    assert norms.log().std().item() == pytest.approx(spread, rel=0.03)
    assert abs(np.corrcoef(logs, norms.log())[0, 1]) < 4.5 / math.sqrt(20_000)
    directions = cache.keys / cache.keys.norm(dim=-1, keepdim=True)
    assert torch.linalg.matrix_norm(directions.T @ directions / 20_000 - torch.eye(3) / 3, ord=2) < 0.014


def test_biases_are_normal_and_the_tokens_own_in_another_order():
    cache = make_cache("biased_logits", n=5000, d=3, bias=1.5, seed=2)
    assert isinstance(cache, WeightedCache)
    assert kstest(cache.log_weights.numpy() / 1.5, "norm").pvalue > 1e-3
    torch.testing.assert_close(cache.keys.norm(dim=-1), torch.ones(5000).double(), rtol=0, atol=1e-12)
    keys, _, biases = BiasedLogits(n=5000, d=3, bias=1.5).sample(np.random.default_rng([2, 0]))
    place = {tuple(key): bias for key, bias in zip(keys.tolist(), biases.tolist(), strict=True)}
    assert [place[tuple(key)] for key in cache.keys.tolist()] == cache.log_weights.tolist()
    coarse = make_cache("biased_logits", n=5, d=2, dtype=torch.float32)
    assert (coarse.keys.dtype, coarse.log_weights.dtype) == (torch.float32, torch.float64)  # never rounded


def disc(rho: float) -> np.ndarray:
    radius, angle = np.meshgrid(np.linspace(0, rho, 61), np.linspace(0, 2 * math.pi, 181))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("family", OFF_SPHERE)
def test_a_cell_sees_norms_and_biases(family):
    """Its error is that of the worst query of a grid, its ceiling is above it, its sigma that of the weighted tilt."""
    parameters = {"n": 30, "d": 2, "bias" if family == "biased_logits" else "spread": 0.9}
    coreset = {"name": "gram_schmidt_walk", "model": "tilted", "recursion": "one_walk"}
    adversary = {"restarts": 64, "steps": 60, "polish": 60, "certify": True, "gap": 1e-4}
    changes = {"cache": {"name": family, **parameters}, "coreset": coreset, "adversary": adversary, "sizes": [9]}
    config = configuration(**changes, heads=1, rho=2.0)
    (row,) = run_cell(config)
    cache = make_cache(family, seed=3, **parameters)
    weights = cache.log_weights if isinstance(cache, WeightedCache) else torch.zeros(30).double()
    sigma = tilt(cache.keys, 2.0, weights).sigma.item()
    assert row["sigma"] == pytest.approx(sigma, abs=1e-9)
    assert row["constant"] == pytest.approx(9 * row["error"] / (math.sqrt(2) * math.exp(2 * sigma)))

    from attention_coresets.study.errors import _CONSTRUCTION
    from attention_coresets.study.parts import generator_of

    kept = make_coreset("gram_schmidt_walk")(cache, 9, 2.0, [generator_of(3, 0, _CONSTRUCTION, 9)])
    keys, values = cache.keys.numpy(), cache.values.numpy()
    chosen = kept.indices.numpy()
    errors = [
        np.linalg.norm(
            oracles.attention(q, keys, values, weights.numpy())
            - oracles.attention(q, keys[chosen], values[chosen], kept.log_weights.numpy())
        )
        for q in disc(2.0)
    ]
    assert max(errors) <= row["error"] + 1e-9 <= 1.01 * max(errors) + 1e-9
    assert row["error"] <= row["certificate"] <= row["error"] + 2e-4


def test_the_bias_changes_what_a_cell_measures():
    cell = {"coreset": {"name": "gram_schmidt_walk"}, "heads": 1, "sizes": [12]}
    cache = {"name": "biased_logits", "n": 48, "d": 4}
    errors = [run_cell(configuration(cache=cache | {"bias": bias}, **cell))[0]["error"] for bias in (1e-9, 1.5)]
    (plain,) = run_cell(configuration(cache={"name": "sphere", "n": 48, "d": 4}, **cell))
    assert errors[0] == pytest.approx(plain["error"], rel=1e-5)
    assert errors[1] != pytest.approx(plain["error"], rel=0.05)


@pytest.mark.parametrize("family", OFF_SPHERE)
def test_the_tilt_bounds_every_share(family, rng):
    cache = make_cache(family, n=200, d=3, seed=1)
    weights = cache.log_weights if isinstance(cache, WeightedCache) else None
    found = tilt(cache.keys, 2.0, weights)
    q = torch.from_numpy(rng.standard_normal((500, 3)))
    logits = 2.0 * q / q.norm(dim=-1, keepdim=True) @ cache.keys.T
    share = (logits if weights is None else logits + weights).log_softmax(-1)
    assert (share <= 2.0 * found.sigma + found.log_p + found.gap + 1e-9).all()


def test_constructions_that_take_no_weights_are_refused_before_any_work_and_in_it():
    cache = {"name": "biased_logits", "n": 48, "d": 4, "bias": 1.0}
    config = configuration(cache=cache, tier="smoke", tracking={"name": "none"})
    config["adversary"] = config["adversary"] | {"gap": 1e-3}
    with pytest.raises(StudyError, match="coreset=uniform: counts every token once, but tokens of cache=biased_logits"):
        check(config)
    with pytest.raises(ValueError, match="count once each"):
        make_coreset("uniform")(make_cache("biased_logits", n=20, d=3), 5, 1.0, generators(0))
    check(config | {"coreset": {"name": "tilted_draws"}})


class TwoOfThree(BiasedLogits):
    def sample(self, rng):
        return super().sample(rng)[:2]


class OneTooMany(CACHES["sphere"]):
    def sample(self, rng):
        return (*super().sample(rng), np.zeros(self.n))


@pytest.mark.parametrize("family", [TwoOfThree, OneTooMany])
def test_a_family_gives_log_weights_where_it_says_so(family):
    with pytest.raises(ValueError, match="sample must give keys, values"):
        check_family(family(n=8, d=2))


@pytest.mark.parametrize(("name", "parameter"), [("spread_norms", "spread"), ("biased_logits", "bias")])
def test_parameters_are_checked(name, parameter):
    with pytest.raises(ValueError, match=f"{parameter} must be above 0, got 0.0"):
        make_cache(name, n=8, d=2, **{parameter: 0.0})


def test_families_of_two_arrays_give_plain_caches():
    assert type(make_cache("spread_norms", n=8, d=2)) is Cache
