"""Hard caches: the best of all subsets against brute force, derivatives against differences, cells that repeat."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from attention_coresets import Cache, Coreset, make_cache, make_coreset, worst_query
from attention_coresets.adversary.ascent import climb
from attention_coresets.adversary.enclosure import branch_and_bound
from attention_coresets.attention import attention_error
from attention_coresets.coresets.exact.optimum import best_subset
from attention_coresets.coresets.kernel.law import capped_marginals
from attention_coresets.hardness import (
    BestSubsets,
    Draws,
    Effort,
    Rate,
    all_subsets,
    best_of_all,
    search_hard_cache,
    weighting,
)
from attention_coresets.hardness.all_subsets import screen_all, subset_errors
from attention_coresets.hardness.moves import log_constant, on_sphere
from attention_coresets.hardness.pool import Pool, pool_errors
from attention_coresets.hardness.rate import Spread, weighting_near
from attention_coresets.study.cell import run_cell
from attention_coresets.study.checks import check
from attention_coresets.study.disk import StudyError
from attention_coresets.study.identity import cell_hash
from attention_coresets.study.table import COLUMNS, HEADS, LABELS, LANGUAGE, to_frame
from attention_coresets.theory import tilt, tilt_step

EVERY = torch.float64


def random_pool(generator: torch.Generator, heads: int, n: int, size: int, d: int) -> Pool:
    kept = torch.rand(heads, 5, n, generator=generator).argsort(-1) < size
    return Pool(kept, torch.randn(heads, 5, 3, d, generator=generator, dtype=EVERY))


@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_errors_of_pools_and_of_all_subsets_are_those_of_attention(model, generator):
    cache = make_cache("sphere", n=9, d=3, heads=2, seed=1)
    weights = weighting(cache.keys, Rate(1.5, 4, model)).log_weights
    pool = random_pool(generator, 2, 9, 4, 3)
    found = pool_errors(cache.keys, cache.values, weights, pool)
    for head, one in ((0, 2), (1, 4)):
        chosen, queries = pool.kept[head, one].nonzero().squeeze(-1), pool.queries[head, one]
        coreset = Coreset(chosen, None if model == "unweighted" else weights[head, chosen])
        wanted = attention_error(queries, cache[head], coreset)
        torch.testing.assert_close(found[head, one], wanted)
        every = subset_errors(cache[head], weights[head], pool.kept[head].to(EVERY), queries)
        torch.testing.assert_close(every[one], wanted)


@pytest.mark.parametrize(("model", "rho"), [("tilted", 1.0), ("unweighted", 2.0)])
def test_the_best_of_all_subsets_is_that_of_branch_and_bound_over_each(model, rho):
    """Every one of the 20 subsets of 6 tokens is enclosed on its own."""
    cache = make_cache("sphere", n=6, d=2, seed=3)
    weights = weighting(cache.keys[None], Rate(rho, 3, model)).log_weights[0]
    found = best_of_all(cache, weights, 3, rho)
    boxes = []
    for chosen in combinations(range(6), 3):
        tokens = torch.tensor(chosen)
        boxes.append(branch_and_bound(cache, Coreset(tokens, weights[tokens]), rho, gap=1e-5))
    least, most = (min(float(getattr(box, end)) for box in boxes) for end in ("lower", "upper"))
    assert found.proven <= most
    assert least - 1e-5 <= float(found.errors[0]) <= most + 1e-5
    assert found.proven == pytest.approx(float(found.errors[0]), rel=1e-3)
    assert found.indices[0].tolist() == list(list(combinations(range(6), 3))[int(np.argmin([b.upper for b in boxes]))])


def test_the_best_of_all_subsets_is_the_optimum_by_mixed_integer_programming():
    cache = make_cache("sphere", n=10, d=3, seed=5)
    weights = weighting(cache.keys[None], Rate(1.0, 5)).log_weights[0]
    found, other = best_of_all(cache, weights, 5, 1.0), best_subset(cache, 5, 1.0)
    assert float(found.errors[0]) <= other.upper + 1e-6
    assert found.proven >= 0.99 * other.lower - 1e-5  # the other's own tolerance
    assert other.upper >= found.proven


def test_what_is_known_before_changes_neither_end(generator):
    cache = make_cache("sphere", n=10, d=3, seed=6)
    zero = torch.zeros(10, dtype=EVERY)
    plain = screen_all(cache, zero, 5, 1.0, tolerance=1e-4)
    guesses = torch.stack([torch.randperm(10, generator=generator)[:5].sort().values for _ in range(3)])
    helped = screen_all(cache, zero, 5, 1.0, bank=plain.bank[:7], guesses=guesses, tolerance=1e-4)
    assert helped.indices[0].tolist() == plain.indices[0].tolist()
    assert float(helped.errors[0]) == pytest.approx(float(plain.errors[0]), rel=1e-4)
    assert helped.proven == pytest.approx(plain.proven, rel=2e-4)


def test_no_subset_errs_by_less_than_is_proven_after_one_round():
    """A search stops early, and what it proves must hold all the same: held against the worst query of every subset."""
    cache = make_cache("sphere", n=8, d=2, seed=8)
    zero = torch.zeros(8, dtype=EVERY)
    subsets = torch.tensor(list(combinations(range(8), 4)))
    many = Cache(*(x.expand(len(subsets), -1, -1) for x in (cache.keys, cache.values)))
    least = float(worst_query(many, Coreset(subsets), 2.0, restarts=16).error.min())
    early = screen_all(cache, zero, 4, 2.0, rounds=1, top=1, steps=1, tolerance=0.0)
    assert 0.5 * least < early.proven <= least + 1e-9


@pytest.mark.parametrize(("size", "n"), [(0, 6), (6, 6), (10, 21)])
def test_what_is_not_to_be_enumerated_is_refused(size, n):
    cache = make_cache("sphere", n=n, d=2)
    with pytest.raises(ValueError, match=f"size {size} of n = {n}"):
        best_of_all(cache, torch.zeros(n, dtype=EVERY), size, 1.0)


def test_sigma_and_weights_have_the_derivatives_of_the_exact_tilt(generator):
    rate, step = Rate(1.5, 3), 1e-5
    keys = make_cache("sphere", n=7, d=3, heads=2, seed=2).keys
    way = torch.randn(keys.shape, generator=generator, dtype=EVERY)
    wanted = torch.randn(2, 7, generator=generator, dtype=EVERY)

    def exact(x):
        found = weighting(x, rate)
        return (found.log_weights * wanted).sum(-1), found.exponent

    x = keys.clone().requires_grad_(True)
    found, spread = weighting_near(x, rate, Spread.of(keys, rate.rho))
    for place, value in enumerate(((found.log_weights * wanted).sum(-1), found.exponent)):
        torch.testing.assert_close(value.detach(), exact(keys)[place])
        slope = (torch.autograd.grad(value.sum(), x, retain_graph=True)[0] * way).sum((-2, -1))
        ahead, behind = exact(keys + step * way)[place], exact(keys - step * way)[place]
        torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(spread.sigma, tilt(keys, rate.rho).sigma)


@pytest.mark.parametrize("model", ["tilted", "unweighted"])
@pytest.mark.parametrize("objective", ["own", "rho"])
def test_the_constant_is_raised_along_its_derivative(model, objective, generator):
    """In keys and in values, sigma included, against differences of the constant computed from an exact tilt."""
    rate, step = Rate(1.0, 3, model, objective), 1e-5
    cache = make_cache("sphere", n=7, d=3, heads=2, seed=4)
    pool = random_pool(generator, 2, 7, 3, 3)

    def constant(keys, values):
        return log_constant(keys, values, pool, rate, Spread.of(keys, 1.0), 0.1)[0].detach()

    keys, values = (x.clone().requires_grad_(True) for x in (cache.keys, cache.values))
    value, _ = log_constant(keys, values, pool, rate, Spread.of(cache.keys, 1.0), 0.1)
    slopes = torch.autograd.grad(value.sum(), (keys, values))
    for place, slope in enumerate(slopes):
        way = torch.randn(slope.shape, generator=generator, dtype=EVERY)
        ends = []
        for sign in (1, -1):
            moved = [cache.keys, cache.values]
            moved[place] = moved[place] + sign * step * way
            ends.append(constant(*moved))
        torch.testing.assert_close((slope * way).sum((-2, -1)), (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-6)


def test_the_constant_is_the_least_error_over_the_rate(generator):
    """As the softness falls: m err / (sqrt(d) e^{rho sigma}) of the best coreset of the pool."""
    cache, rate = make_cache("sphere", n=7, d=3, heads=2, seed=4), Rate(1.0, 3)
    pool = random_pool(generator, 2, 7, 3, 3)
    found, _ = log_constant(cache.keys, cache.values, pool, rate, Spread.of(cache.keys, 1.0), 1e-4)
    weights = weighting(cache.keys, rate)
    least = pool_errors(cache.keys, cache.values, weights.log_weights, pool).amax(-1).amin(-1)
    torch.testing.assert_close(
        found.exp(), 3 * least / math.sqrt(3) / tilt(cache.keys, 1.0).sigma.exp(), rtol=1e-3, atol=0
    )
    mean, _ = log_constant(cache.keys, cache.values, pool, rate, Spread.of(cache.keys, 1.0), math.inf)
    assert bool((mean > found).all())


def simplex_cache(d: int, n: int) -> Cache:
    """Equal keys, values at the d vertices of a regular simplex, an odd number of tokens at each."""
    vertices = torch.eye(d, dtype=EVERY) - 1 / d
    counts = torch.full((d,), 1) + 2 * (torch.arange(d) < (n - d) // 2)
    assert int(counts.sum()) == n
    keys = torch.zeros(n, d, dtype=EVERY)
    keys[:, 0] = 1
    return Cache(keys, on_sphere(vertices).repeat_interleave(counts, dim=0))


@pytest.mark.parametrize(("d", "n"), [(4, 4), (4, 8), (8, 12)])
def test_equal_keys_and_a_simplex_of_values_leave_more_than_half(d, n):
    """sqrt(d / (d - 1)) / 2, where balanced signs of a basis leave 1/2: the query plays no part."""
    cache = simplex_cache(d, n)
    weights = weighting(cache.keys[None], Rate(1.0, n // 2))
    assert float(weights.exponent) == pytest.approx(0, abs=1e-6)
    found = best_of_all(cache, weights.log_weights[0], n // 2, 1.0)
    assert n / 2 * float(found.errors[0]) / math.sqrt(d) == pytest.approx(math.sqrt(d / (d - 1)) / 2, rel=1e-6)


def test_a_search_finds_harder_caches_and_stays_on_the_sphere():
    start, rate = make_cache("sphere", n=8, d=2, heads=2, seed=1), Rate(1.0, 4)
    found = search_hard_cache(start, BestSubsets(rate), rate, Effort(12, 2), torch.Generator().manual_seed(0))

    def constants(cache):
        weights = weighting(cache.keys, rate)
        each = [best_of_all(cache[h], w, 4, 1.0).proven for h, w in enumerate(weights.log_weights)]
        return torch.tensor(each, dtype=EVERY) * (-weights.exponent).exp()

    assert bool((constants(found) > 1.2 * constants(start)).all())
    for x in (found.keys, found.values):
        torch.testing.assert_close(x.norm(dim=-1), torch.ones(2, 8, dtype=EVERY))


def test_draws_are_the_constructions_own_and_new_each_round():
    cache, rate = make_cache("sphere", n=8, d=2, heads=2, seed=1), Rate(1.0, 4)
    weights = weighting(cache.keys, rate).log_weights
    answers, again = (Draws(make_coreset("walk_tilted"), rate, seed=3, draws=40, steps=60) for _ in range(2))
    first, second = answers.answer(cache, weights), answers.answer(cache, weights)
    assert not torch.equal(first.pool.kept, second.pool.kept)
    assert torch.equal(first.pool.kept, again.answer(cache, weights).pool.kept)
    indices = first.pool.kept[1].nonzero()[:, 1].unflatten(0, (40, 4))
    many = Cache(*(x[1].expand(40, -1, -1) for x in (cache.keys, cache.values)))
    exact = worst_query(many, Coreset(indices, weights[1][indices]), 1.0).error
    assert float(first.error[1]) == pytest.approx(float(exact.mean()), rel=1e-2)


@pytest.mark.parametrize(("n", "d", "clusters"), [(12, 4, 3), (16, 4, 4), (20, 4, 5), (12, 8, 2), (20, 8, 3)])
def test_ragged_clusters_have_near_balanced_signs_and_near_equal_groups(n, d, clusters):
    keys, values = (x.numpy() for x in (lambda c: (c.keys, c.values))(make_cache("ragged_clusters", n=n, d=d, seed=2)))
    assert set(np.abs(values.sum(0)).round(12)) <= {0.0, 1.0}
    assert np.allclose(np.sort(np.abs(values), axis=1)[:, -1], 1)
    assert np.allclose(np.abs(values).sum(1), 1)
    centers, counts = np.unique(keys.round(9), axis=0, return_counts=True)
    assert len(centers) == clusters
    assert counts.max() - counts.min() <= 2
    if n == clusters * d:  # each group has each coordinate once
        for center in centers:
            group = np.abs(values[(keys.round(9) == center).all(1)])
            assert np.array_equal(group.sum(0), np.ones(d))


def configuration(**changes) -> dict:
    base = {
        "cache": {"name": "sphere", "n": 8, "d": 2},
        "coreset": {"name": "optimum", "model": "tilted", "tolerance": 0.01, "seconds": 600.0},
        "rho": 1.0,
        "seed": 3,
        "heads": 2,
        "sizes": [4],
        "task": "hardness",
        "body": "ball",
        "keep_recent": 0,
        "tier": "smoke",
        "search": {"objective": "own", "rounds": 4, "cycles": 2, "moves": 3},
        "adversary": {"restarts": 16, "steps": 30, "polish": 30, "certify": False, "gap": 1e-4},
        "compute": {"device": "cpu", "dtype": "float64", "threads": None},
        "tracking": {"name": "none"},
    }
    return base | changes


WALK = {"name": "gram_schmidt_walk", "model": "tilted", "recursion": "one_walk"}


@pytest.mark.parametrize("coreset", [configuration()["coreset"], WALK], ids=["optimum", "walk"])
def test_a_cell_repeats_itself_to_the_last_digit(coreset):
    config = configuration(coreset=coreset)
    check(config)
    first, again = run_cell(config), run_cell(config)
    changing = {"seconds_construct", "seconds_adversary", "fast_path"}
    assert _same(first, again, changing)
    assert {*first[0]} == set(COLUMNS) - {*LABELS, *LANGUAGE, *HEADS, "probe"}
    frame = to_frame([row | dict.fromkeys(LABELS, "x") for row in first])
    assert list(frame["objective"]) == ["own", "own"]
    for row in first:
        unit = math.sqrt(2) * math.exp(row["sigma"]) / 4
        assert row["constant"] == pytest.approx(row["error"] / unit)
        if coreset is not WALK:
            assert row["proven"] == pytest.approx(row["error"], rel=2e-3)
        assert row["start_error"] != row["error"]


def _same(first: list[dict], again: list[dict], changing: set[str]) -> bool:
    return all(
        row[key] == other[key] or (isinstance(row[key], float) and math.isnan(row[key]) and math.isnan(other[key]))
        for row, other in zip(first, again, strict=True)
        for key in row
        if key not in changing
    )


def test_the_start_error_is_that_of_the_familys_own_cache():
    row = run_cell(configuration(heads=1))[0]
    cache = make_cache("sphere", n=8, d=2, seed=3)
    best = best_subset(cache, 4, 1.0, tolerance=1e-3)
    assert best.lower * 0.998 <= row["start_error"] <= best.upper * 1.002


def test_the_objective_and_the_effort_name_a_cell():
    plain = configuration()
    named = {
        cell_hash(configuration(search=plain["search"] | change)) for change in ({}, {"objective": "rho"}, {"moves": 4})
    }
    assert len(named) == 3
    errors = configuration(task="errors")
    assert cell_hash(errors) == cell_hash({key: value for key, value in errors.items() if key != "search"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coreset": {"name": "uniform", "sinks": 0}}, "coreset=uniform: must be one of optimum, gram_schmidt_walk"),
        ({"coreset": WALK | {"model": "free"}}, "coreset.model=free: must be one of tilted, unweighted"),
        ({"sizes": [8]}, r"sizes=\[8\]: must be below cache.n=8"),
        ({"cache": {"name": "sphere", "n": 21, "d": 2}}, "cache.n=21: must be at most 20"),
        (
            {"search": {"objective": "sigma", "rounds": 1, "cycles": 1, "moves": 1}},
            "search.objective=sigma: must be own",
        ),
        (
            {"search": {"objective": "own", "rounds": 3, "cycles": 2, "moves": 1}},
            "search: rounds must be a multiple of",
        ),
    ],
)
def test_searches_that_cannot_be_are_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        check(configuration(**changes))


def test_a_worst_query_that_the_screening_misses_is_found(monkeypatch):
    """Blinded to all queries but one, the screening proves little, and the ascent sends it back until the ends meet."""
    cache = make_cache("sphere", n=8, d=3, seed=9)
    zero = torch.zeros(8, dtype=EVERY)
    wanted = best_of_all(cache, zero, 4, 2.0)
    monkeypatch.setattr(all_subsets, "first_queries", lambda keys, rho, count: torch.full((1, 3), 1e-3, dtype=EVERY))
    monkeypatch.setattr(all_subsets, "climb", lambda cache, coreset, rho, q, steps: climb(cache, coreset, rho, q, 0))
    blind = screen_all(cache, zero, 4, 2.0)
    assert blind.proven < 0.9 * wanted.proven
    found = best_of_all(cache, zero, 4, 2.0)
    assert float(found.errors[0]) == pytest.approx(float(wanted.errors[0]), rel=2e-3)
    assert found.indices[0].tolist() == wanted.indices[0].tolist()


@pytest.mark.parametrize("scale", [1e-3, 1e-9, 1e-11, 0.0])
def test_a_step_near_equal_keys_keeps_to_the_tilt(scale, rng):
    """Keys that shrink towards one point, as those of the hardest caches do: no singular system, and the tilt's p*."""
    x = torch.from_numpy(rng.standard_normal((2, 9, 3)))
    keys, moved = 0.3 + scale * x, 0.3 + scale * (1 + 1e-4) * x
    log_p, center, sigma = tilt_step(moved, 1.5, *Spread.of(keys, 1.5))
    exact = tilt(moved, 1.5)
    torch.testing.assert_close(log_p, exact.log_p, rtol=0, atol=1e-6)
    torch.testing.assert_close(center, exact.center, rtol=0, atol=1e-7 * scale + 1e-12)
    torch.testing.assert_close(sigma, exact.sigma, rtol=1e-4, atol=1e-11)


def test_marginals_have_gradients_with_and_without_tokens_that_are_capped():
    """The search climbs through them."""
    log_p = torch.tensor([[0.0, 0.1, -0.2, 0.3, -0.1], [3.0, 0.1, -0.2, 2.5, -0.1]], dtype=torch.float64)
    capped = capped_marginals(log_p, 3)[..., 0] == 1
    assert capped.tolist() == [False, True]
    assert torch.autograd.gradcheck(lambda x: capped_marginals(x, 3), log_p.requires_grad_())
