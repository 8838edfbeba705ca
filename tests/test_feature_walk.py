"""The walk on features against dense solves, the Gram form path for path, and what its features must be."""

import numpy as np
import pytest
import torch

import oracles
from attention_coresets import make_cache, make_coreset
from attention_coresets.compiled import NUMBA_MISSING, backend
from attention_coresets.coresets.kernel.law import balancing_features, balancing_gram, capped_marginals, law
from attention_coresets.coresets.walks.feature_walk import feature_signs
from attention_coresets.coresets.walks.features import pivoted_cholesky, random_features
from attention_coresets.coresets.walks.walk import walk_signs
from test_walk import fractional


def vectors(seed, n, rank):
    """n vectors of mixed lengths in R^rank."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, rank)) * rng.uniform(0.3, 2, (n, 1))


def kernel(n=200, model="tilted", heads=2, rho=2.0):
    """What `balanced_coreset` hands to features, for n / 4 of n tokens of a batch of caches."""
    cache = make_cache("sphere", n=n, d=3, heads=heads)
    keys, values = cache.keys.double(), cache.values.double()
    measure = law(keys, rho, model, "auto")
    return keys, values, -capped_marginals(measure.log_p, n // 4).log(), measure


@pytest.fixture(params=["compiled", "torch"])
def engine(request):
    if request.param == "compiled" and NUMBA_MISSING:
        pytest.skip("numba is not installed")
    with backend("torch" if request.param == "torch" else "auto"):
        yield


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("n", "rank"), [(2, 2), (9, 3), (24, 24), (30, 40)])
def test_path_for_path_the_dense_walk(n, rank, exact):
    features, x, ridge = vectors(n, n, rank), fractional(n, n, exact), 1e-2
    gram = features @ features.T
    uniforms = np.random.default_rng(1).random((12, n))
    place = np.stack([np.random.default_rng(h).permutation(n) for h in range(12)])
    arrays = [torch.from_numpy(a) for a in (np.tile(features, (12, 1, 1)), np.tile(x, (12, 1)), uniforms)]
    level = torch.full((12,), ridge * np.diag(gram).mean()).double()
    kept = feature_signs(*arrays, level, exact, torch.from_numpy(place)).numpy()
    for h, found in enumerate(kept):
        order = place[h].argsort()
        sub = np.ix_(order, order)
        expected, _ = oracles.walk(gram[sub], x[order], lambda step, p, h=h: uniforms[h, step] < p, ridge, exact)
        np.testing.assert_array_equal(found[order], expected > 0)


@pytest.mark.rounding
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", ["generic", "duplicates", "frozen", "fair"])
def test_path_for_path_the_gram_form(kind, exact):
    """More steps than between two fresh inverses, low rank, and heads that end at different times."""
    n, heads, rank = 200, 3, 12
    features = np.stack([vectors(s, n, rank) for s in range(heads)])
    x = np.stack([fractional(s, n, exact) for s in range(heads)])
    if kind == "duplicates":
        features = np.repeat(features[:, :50], 4, axis=1)
    if kind == "frozen":
        x[1, 100:] = np.tile([1.0, -1.0], 50)
        x[1, :100] = fractional(5, 100, exact)
    if kind == "fair":
        x[:] = 0
    rng = np.random.default_rng(2)
    uniforms, place = rng.random((heads, n)), np.stack([rng.permutation(n) for _ in range(heads)])
    features, x, uniforms, place = (torch.from_numpy(a) for a in (features, x, uniforms, place))
    alive = x.abs() < 1
    ridge = 1e-3 * (features.square().sum(-1) * alive).sum(-1) / alive.sum(-1)
    found = feature_signs(features, x, uniforms, ridge, exact, place)
    assert torch.equal(found, walk_signs(features @ features.mT, x, uniforms, 1e-3, exact, place=place))
    if exact:
        assert torch.equal(2 * found.sum(-1) - n, x.sum(-1).round().long())


@pytest.mark.usefixtures("engine")
def test_marginals_over_many_walks():
    n, walks = 8, 3_000
    features, x = vectors(6, n, 3), fractional(6, n, exact=True)
    uniforms = torch.from_numpy(np.random.default_rng(4).random((walks, n)))
    start = torch.from_numpy(x).repeat(walks, 1)
    kept = feature_signs(torch.from_numpy(features).repeat(walks, 1, 1), start, uniforms, torch.full((walks,), 0.01))
    ends = 2.0 * kept.double().numpy() - 1
    np.testing.assert_allclose(ends.sum(-1), x.sum(), atol=1e-9)
    assert np.abs((ends.mean(0) - x) / np.sqrt((1 - x**2) / walks)).max() < 4.5


def test_a_ridge_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"ridge of a feature walk must be above 0, got 0\.0"):
        feature_signs(torch.ones(1, 4, 2), torch.zeros(1, 4), torch.rand(1, 4), torch.zeros(1))


@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_pivoted_cholesky_leaves_a_positive_residual_that_shrinks(model):
    problem = kernel(model=model)
    gram = balancing_gram(*problem)
    features = pivoted_cholesky(*problem, torch.rand(2, 80, generator=torch.Generator().manual_seed(0)).double())
    traces = []
    for rank in (0, 1, 5, 20, 80):
        residual = gram - features[..., :rank] @ features[..., :rank].mT
        assert torch.linalg.eigvalsh(residual).min() > -1e-10 * gram.diagonal(dim1=-2, dim2=-1).sum(-1).max()
        traces.append(residual.diagonal(dim1=-2, dim2=-1).sum(-1))
        assert ((residual.diagonal(dim1=-2, dim2=-1) < 1e-12).sum(-1) >= rank).all()  # nothing is left at a pivot
    assert (torch.stack(traces).diff(dim=0) < 0).all()
    best = [torch.linalg.eigvalsh(gram)[:, : 200 - rank].sum(-1) for rank in (20, 80)]
    assert (traces[3] < 5 * best[0]).all()  # near the best trace that any 20 columns can leave
    assert (traces[4] < 20 * best[1]).all()


def test_pivoted_cholesky_of_all_columns_is_exact_and_duplicates_need_no_more():
    keys, values, log_weights, measure = kernel(n=40)
    uniforms = torch.rand(2, 80, generator=torch.Generator().manual_seed(1)).double()
    features = pivoted_cholesky(keys, values, log_weights, measure, uniforms[:, :40])
    gram = balancing_gram(keys, values, log_weights, measure)
    torch.testing.assert_close(features @ features.mT, gram, rtol=0, atol=1e-10)
    twice = [y.repeat_interleave(2, dim=1) for y in (keys, values, log_weights)]
    features = pivoted_cholesky(*twice, measure, uniforms)
    torch.testing.assert_close(features @ features.mT, balancing_gram(*twice, measure), rtol=0, atol=1e-8)


def test_pivots_follow_the_residual_diagonal():
    """The first pivot of many heads: token i with probability G_ii over the trace."""
    keys, values, log_weights, measure = (kernel(n=12, heads=1)[i] for i in range(4))
    heads = 4_000
    many = [y.repeat(heads, *[1] * (y.ndim - 1)) for y in (keys, values, log_weights)]
    measure = type(measure)(*(y.repeat(heads, *[1] * (y.ndim - 1)) for y in vars(measure).values()))
    features = pivoted_cholesky(
        *many, measure, torch.rand(heads, 1, generator=torch.Generator().manual_seed(2)).double()
    )
    diagonal = balancing_gram(keys, values, log_weights, law(keys, 2.0, "tilted", "auto"))[0].diagonal()
    chance = diagonal / diagonal.sum()
    # the pivot's column is G_p / sqrt(G_pp), so that it holds sqrt(G_pp) at p
    pivot = (features[..., 0].square() - diagonal).abs().argmin(-1)
    found = torch.bincount(pivot, minlength=12) / heads
    assert ((found - chance).abs() < 4.5 * (chance * (1 - chance) / heads).sqrt()).all()


def test_random_features_are_positive_in_the_exponential_and_unbiased():
    keys, values, log_weights, measure = problem = kernel(n=30, rho=1.0)
    gram = balancing_gram(*problem)
    normals = torch.randn(2, 40_000, 3, generator=torch.Generator().manual_seed(3)).double()
    features = random_features(*problem, normals)
    assert features.shape == (2, 30, 40_000 * 4)
    x = balancing_features(keys, values, log_weights, measure)[0]
    spread = (x.unsqueeze(1) + x.unsqueeze(2)).square().sum(-1).expm1().sqrt()  # of one draw, relative to the mean
    assert ((features @ features.mT / gram - 1).abs() <= 5 * spread / 200).all()  # 200 = sqrt(draws)
    assert (features.unflatten(-1, (40_000, 4))[..., -1] > 0).all()


@pytest.mark.rounding
@pytest.mark.parametrize("form", ["pivoted_cholesky", "random_features"])
@pytest.mark.parametrize("recursion", ["one_walk", "halving"])
def test_a_head_is_the_same_in_any_batch(form, recursion):
    cache = make_cache("sphere", n=60, d=3, heads=3)
    construct = make_coreset("gram_schmidt_walk", form=form, rank=16, recursion=recursion)
    seeds = [torch.Generator().manual_seed(s) for s in range(3)]
    batch = construct(cache, 13, 2.0, seeds)
    alone = construct(cache[1:2], 13, 2.0, [torch.Generator().manual_seed(1)])
    assert torch.equal(batch.indices[1], alone.indices[0])


@pytest.mark.rounding
def test_whole_rank_gives_the_gram_forms_coreset():
    cache = make_cache("sphere", n=80, d=3)
    coresets = [
        make_coreset("gram_schmidt_walk", ridge=1e-3, **form)(cache, 20, 2.0, torch.Generator().manual_seed(7))
        for form in ({}, {"form": "pivoted_cholesky", "rank": 80}, {"form": "pivoted_cholesky", "rank": 1000})
    ]
    assert torch.equal(coresets[0].indices, coresets[1].indices)
    assert torch.equal(coresets[0].indices, coresets[2].indices)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rank": 10}, "form gram walks on the whole matrix and has no rank, got 10; leave rank out"),
        ({"form": "pivoted_cholesky"}, "form pivoted_cholesky needs a rank"),
        ({"form": "random_features", "rank": 0}, "rank must be above 0, got 0"),
        ({"form": "pivoted_cholesk", "rank": 4}, "did you mean 'pivoted_cholesky'"),
    ],
)
def test_forms_that_make_no_sense_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_coreset("gram_schmidt_walk", **parameters)


def test_a_rank_without_room_for_one_draw_is_refused():
    construct = make_coreset("gram_schmidt_walk", form="random_features", rank=4)
    with pytest.raises(ValueError, match=r"dv \+ 1 = 5 a draw; rank must be at least that, got 4"):
        construct(make_cache("sphere", n=20, d=4), 5, 1.0, torch.Generator())
