"""Signs of signed clusters drawn three ways, and the coreset that attains their floor at every centre."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from attention_coresets import Cache, attention_error, make_cache, make_coreset
from attention_coresets.caches import head_rng
from attention_coresets.caches.signed_clusters import SignedClusters
from attention_coresets.caches.signs import sylvester
from attention_coresets.coresets.conformance import check_type
from attention_coresets.coresets.exact.coordinate_subset import CoordinateSubset, coordinates
from attention_coresets.lower_bound import signed_clusters_bounds, signed_clusters_layout
from attention_coresets.study.cell import run_cell
from attention_coresets.study.identity import cell_hash
from tables import generators

HADAMARD = [(2, 2), (8, 2), (8, 6), (8, 8), (16, 4), (32, 20), (64, 64)]  # d, clusters
SIMPLEX = [(5, 2), (6, 4), (21, 8), (56, 8), (30, 16)]
DESIGNS = [("hadamard", *shape) for shape in HADAMARD] + [("simplex", *shape) for shape in SIMPLEX]
DESIGNS += [("random", 8, 8), ("random", 7, 4), ("random", 16, 6)]


def signs(design: str, d: int, r: int, seed: int = 0) -> np.ndarray:
    return SignedClusters(d=d, clusters=r, signs=design).draw_signs(head_rng(seed))


# signs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "r"), [(8, 4), (8, 8), (4, 10), (5, 2)])
def test_random_signs_are_drawn_as_before_there_were_others(d, r):
    """As committed tables have them: the draws of revision f794cf2, written out."""
    rng = np.random.default_rng([7, 1])
    x = rng.standard_normal((d, d) if r <= d else (r, d))
    centers = np.linalg.qr(x)[0][:r] if r <= d else x / np.linalg.norm(x, axis=-1, keepdims=True)
    half = np.repeat([[1.0], [-1.0]], r // 2, axis=0)
    drawn = rng.permuted(np.repeat(half, d, axis=1), axis=0)
    keys, values = SignedClusters(d=d, clusters=r).sample(np.random.default_rng([7, 1]))
    np.testing.assert_array_equal(keys, np.repeat(centers, d, axis=0))
    np.testing.assert_array_equal(values, (drawn[:, :, None] * np.eye(d)).reshape(r * d, d))


@pytest.mark.parametrize(("design", "d", "r"), DESIGNS)
def test_signs_balance_and_are_those_of_the_cache(design, d, r):
    cache = make_cache("signed_clusters", d=d, clusters=r, signs=design, seed=4, heads=2)
    for head in range(2):
        drawn = SignedClusters(d=d, clusters=r, signs=design).draw_signs(head_rng(4, head))
        assert set(np.unique(drawn)) == {-1.0, 1.0}
        assert (drawn.sum(axis=0) == 0).all()
        centers, cluster = torch.unique(cache.keys[head], dim=0, return_inverse=True)
        held = torch.zeros(r, d, dtype=torch.float64).index_add_(0, cluster, cache.values[head]).numpy()
        own, _ = SignedClusters(d=d, clusters=r, signs=design).sample(head_rng(4, head))
        place = [int((centers - torch.from_numpy(key)).norm(dim=-1).argmin()) for key in own[::d]]
        np.testing.assert_array_equal(held[place], drawn)


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_sylvester_s_matrix(size):
    np.testing.assert_array_equal(sylvester(size), hadamard(size))


@pytest.mark.parametrize(("d", "r"), HADAMARD)
def test_hadamard_signs_are_pairs_of_opposite_orthogonal_rows(d, r):
    gram = signs("hadamard", d, r) @ signs("hadamard", d, r).T / d
    assert np.isin(gram, (-1, 0, 1)).all()
    assert ((gram == 1).sum(axis=0) == 1).all()
    assert ((gram == -1).sum(axis=0) == 1).all()
    assert np.linalg.norm(signs("hadamard", d, r), 2) ** 2 == pytest.approx(2 * d)


@pytest.mark.parametrize(("d", "r"), SIMPLEX)
def test_simplex_signs_are_the_vertices_of_a_simplex(d, r):
    gram = signs("simplex", d, r) @ signs("simplex", d, r).T
    np.testing.assert_allclose(gram, d * r / (r - 1) * (np.eye(r) - 1 / r), atol=1e-12)


@pytest.mark.parametrize("design", ["random", "hadamard", "simplex"])
def test_heads_have_signs_of_their_own(design):
    d, r = (16, 16) if design == "hadamard" else (30, 16) if design == "simplex" else (16, 16)
    assert not np.array_equal(signs(design, d, r, 0), signs(design, d, r, 1))
    np.testing.assert_array_equal(signs(design, d, r, 2), signs(design, d, r, 2))


@pytest.mark.parametrize(
    ("design", "d", "r", "message"),
    [
        ("hadamard", 12, 4, "needs d a power of two and clusters <= d, got d = 12, clusters = 4"),
        ("hadamard", 8, 16, "needs d a power of two and clusters <= d, got d = 8, clusters = 16"),
        ("simplex", 15, 6, "needs clusters a power of two and d a multiple of clusters - 1, got clusters = 6, d = 15"),
        ("simplex", 16, 4, "needs clusters a power of two and d a multiple of clusters - 1, got clusters = 4, d = 16"),
        ("paley", 8, 8, "signs must be one of random, hadamard, simplex, got 'paley'"),
    ],
)
def test_designs_that_there_are_not(design, d, r, message):
    with pytest.raises(ValueError) as refusal:
        make_cache("signed_clusters", d=d, clusters=r, signs=design)
    assert message in str(refusal.value)


def cell(**cache) -> dict:
    return {
        "cache": {"name": "signed_clusters", "n": None, "d": 4, "clusters": 4, **cache},
        "coreset": {"name": "coordinate_subset"},
        "rho": 1.0,
        "seed": 0,
        "heads": 1,
        "sizes": [8],
        "adversary": {"restarts": 8, "steps": 20, "polish": 20, "certify": False},
        "compute": {"device": "cpu", "dtype": "float64", "threads": None},
    }


def test_cells_of_random_signs_keep_the_name_they_had():
    assert cell_hash(cell(signs="random")) == cell_hash(cell())
    assert cell_hash(cell(signs="hadamard")) != cell_hash(cell())
    old, new, other = (run_cell(x)[0] for x in (cell(), cell(signs="random"), cell(signs="hadamard")))
    assert new["cache_params"] == old["cache_params"]  # by which rows are paired
    assert '"signs": "hadamard"' in other["cache_params"]


# the coordinate subset -----------------------------------------------------------------------------------------------


def shares(design: str, d: int, r: int) -> list[int]:
    return [k for k in range(1, d) if design == "random" or d % k == 0 or k == 3]


@pytest.mark.parametrize("rho", [0.3, 2.0])
@pytest.mark.parametrize(("design", "d", "r"), DESIGNS)
def test_the_error_at_every_centre_is_bound_iv(design, d, r, rho):
    cache = make_cache("signed_clusters", d=d, clusters=r, signs=design, seed=1, heads=2)
    centers = signed_clusters_layout(cache).centers
    sharp = centers - centers.mean(dim=-2, keepdim=True)
    queries = rho * sharp / sharp.norm(dim=-1, keepdim=True)
    a = math.expm1(rho * math.sqrt(r / (r - 1)))
    for k in shares(design, d, r):
        coreset = make_coreset("coordinate_subset")(cache, k * r, rho, generators(0, 1))
        assert coreset.log_weights is None
        keys = cache.take(coreset.indices)[0]
        assert torch.unique(keys[0], dim=0, return_counts=True)[1].tolist() == [k] * r
        found = attention_error(queries, cache, coreset)
        torch.testing.assert_close(
            found, torch.full_like(found, a / (r + a) / d * math.sqrt(d * (d - k) / k)), rtol=1e-10, atol=0
        )
        bound = signed_clusters_bounds(cache, coreset, rho).iv
        assert (found.amax(dim=-1) >= bound * (1 - 1e-12)).all()


@pytest.mark.parametrize(("design", "d", "r"), DESIGNS)
def test_kept_signs_balance_in_the_coordinates_that_clusters_share(design, d, r):
    s = torch.from_numpy(np.stack([signs(design, d, r, seed) for seed in range(3)]))
    for k in shares(design, d, r):
        kept = coordinates(s, k)
        assert (kept.sum(dim=-1) == k).all()
        assert ((kept * s).sum(dim=-2) == 0).all()
        if design != "hadamard" or r <= 2 * k:
            assert torch.equal(kept, (torch.arange(d) < k).expand_as(kept))


@pytest.mark.parametrize(("d", "r"), [(8, 6), (8, 8), (16, 16), (64, 64), (64, 20)])
def test_pairs_err_orthogonally_down_to_an_eighth(d, r):
    """What pair i adds to the error is (p_i+ - p_i-) f_i: the f_i are orthogonal, so that their squares add up."""
    s = torch.from_numpy(signs("hadamard", d, r))
    pairs = s @ s.T / d  # 1 on the diagonal, -1 at the opposite cluster
    for k in (d // 2, d // 4, d // 8):
        f = s / d - coordinates(s, k) * s / k
        torch.testing.assert_close(f @ f.T, (1 / k - 1 / d) * pairs, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("d", "r"), [(6, 4), (56, 8), (60, 16)])
def test_vertices_err_like_vertices_where_their_copies_are_kept_whole(d, r):
    s = torch.from_numpy(signs("simplex", d, r))
    for k in range(r - 1, d, r - 1):
        f = s / d - coordinates(s, k) * s / k
        expected = (1 / k - 1 / d) * r / (r - 1) * (torch.eye(r, dtype=torch.float64) - 1 / r)
        torch.testing.assert_close(f @ f.T, expected, rtol=0, atol=1e-14)


def test_it_keeps_the_type_of_a_construction():
    """As `check_construction` asks of others on its own caches; nothing is drawn, so a batch cannot matter."""
    check_type(CoordinateSubset)
    cache = make_cache("signed_clusters", d=8, clusters=4, heads=4, signs="hadamard", seed=3)
    construct, whole = CoordinateSubset(), CoordinateSubset()(cache, 8, 1.0, torch.Generator())
    assert whole.indices.shape == (4, 8)
    for head in range(4):
        assert torch.equal(construct(cache[head], 8, 1.0, torch.Generator()).indices, whole.indices[head])
    square = Cache(*(x.unflatten(0, (2, 2)) for x in (cache.keys, cache.values)))
    assert torch.equal(construct(square, 8, 1.0, torch.Generator()).indices, whole.indices.unflatten(0, (2, 2)))
    single = construct(cache.to(torch.float32), 8, 1.0, torch.Generator())
    assert single.log_weights is None
    assert torch.equal(single.indices.sort(dim=-1).values, single.indices)
    assert construct(cache, cache.n, 1.0, torch.Generator()).size == cache.n


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        ("signed_clusters", 10, "keeps as many tokens of each of 8 clusters, got size 10"),
        ("sphere", 8, "this is no signed-clusters cache: a value is not"),
        ("equal_keys", 8, "this is no signed-clusters cache"),
    ],
)
def test_other_caches_and_sizes_are_refused(family, size, message):
    cache = make_cache(family, d=8, n=64)
    with pytest.raises(ValueError) as refusal:
        make_coreset("coordinate_subset")(cache, size, 1.0, torch.Generator())
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
