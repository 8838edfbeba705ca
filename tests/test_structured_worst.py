"""The worst query of signed clusters from r numbers, against the general ascent, branch and bound, and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from attention_coresets import Coreset, attention_error, make_cache, make_coreset, structured_worst, worst_query
from attention_coresets.adversary import branch_and_bound, structured_error
from attention_coresets.adversary.structured import _clusters, _error_and_gradient
from attention_coresets.caches import head_rng
from attention_coresets.caches.signed_clusters import SignedClusters
from attention_coresets.coresets.exact.coordinate_subset import coordinates
from attention_coresets.lower_bound import signed_clusters_layout

KINDS = ("walk", "half", "free", "few_clusters", "spread")


def drawn(d: int, r: int, design: str = "random", heads: int = 1, seed: int = 0) -> torch.Tensor:
    family = SignedClusters(d=d, clusters=r, signs=design)
    return torch.stack([torch.from_numpy(family.draw_signs(head_rng(seed, head))) for head in range(heads)])


def weights(kind: str, shape: tuple[int, ...], g: torch.Generator) -> torch.Tensor:
    """Random weights [*heads, r, d]; "few_clusters" drops half of the clusters whole."""
    w = (torch.rand(shape, generator=g) < 0.4).double()
    w[..., 0, 0] = 1
    if kind == "free":
        w *= 0.1 + torch.rand(shape, generator=g).double()
    elif kind == "few_clusters":
        w[..., shape[-2] // 2 :, :] = 0
    elif kind == "spread":
        w *= 10.0 ** (6 * torch.rand(shape, generator=g).double())
    return w


def floor_iv(d: int, r: int, k: int, rho: float) -> float:
    a = math.expm1(rho * math.sqrt(r / (r - 1)))
    return a / (r + a) / d * math.sqrt(d * (d - k) / k)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("d", "r", "rho"), [(2, 2, 1.0), (4, 4, 0.2), (8, 4, 1.0), (8, 8, 3.0), (16, 16, 1.5), (32, 8, 6.0)]
)
def test_it_is_the_worst_query_of_the_cache(d, r, rho, kind, generator):
    cache = make_cache("signed_clusters", d=d, clusters=r, seed=2)
    layout = signed_clusters_layout(cache)
    place = layout.cluster * d + layout.coordinate
    if kind == "walk":
        coreset = make_coreset("gram_schmidt_walk")(cache, max(1, r * d // 2), rho, generator)
        log_weights = coreset.log_weights
        assert log_weights is not None
        w = torch.zeros(r * d, dtype=torch.float64).scatter_(0, place[coreset.indices], log_weights.exp())
    else:
        w = weights(kind, (r, d), generator).flatten()
        kept = w[place].nonzero().flatten()
        coreset = Coreset(kept, w[place[kept]].log())
    found = structured_worst(layout.signs, w.reshape(r, d), rho)
    assert found.error.item() == pytest.approx(worst_query(cache, coreset, rho).error.item(), rel=1e-9)
    assert found.query.norm() <= rho * (1 + 1e-12)
    at_query = attention_error((found.query @ layout.centers)[None], cache, coreset)[0]
    assert found.error.item() == pytest.approx(at_query.item(), rel=1e-10)


@pytest.mark.parametrize("kind", ["half", "free", "few_clusters"])
@pytest.mark.parametrize(("d", "r", "rho"), [(3, 2, 2.0), (4, 2, 1.0), (4, 4, 0.5), (4, 4, 1.5)])
def test_branch_and_bound_encloses_it(d, r, rho, kind, generator):
    cache = make_cache("signed_clusters", d=d, clusters=r, seed=5)
    layout = signed_clusters_layout(cache)
    w = weights(kind, (r, d), generator)
    of_token = w.flatten()[layout.cluster * d + layout.coordinate]
    kept = of_token.nonzero().flatten()
    proven = branch_and_bound(cache, Coreset(kept, of_token[kept].log()), rho, gap=2e-3)
    error = structured_worst(layout.signs, w, rho).error
    assert proven.lower * (1 - 1e-9) <= error <= proven.upper
    assert proven.gap <= 2e-3


@pytest.mark.parametrize("kind", ["half", "free", "few_clusters"])
def test_the_gradient_is_that_of_automatic_differentiation(kind, generator):
    s, w = drawn(6, 4, heads=3), weights(kind, (3, 4, 6), generator)
    x = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    error, gradient = _error_and_gradient(_clusters(s, w), x)
    torch.testing.assert_close(error, structured_error(s, w, x))
    y = x.exp()
    full = y @ s / (6 * y.sum(-1, keepdim=True))
    kept = y @ (w * s) / (y @ w.sum(-1, keepdim=True))
    half_square = (full - kept).square().sum(-1) / 2
    torch.testing.assert_close(error.square() / 2, half_square)
    torch.testing.assert_close(gradient, torch.autograd.grad(half_square.sum(), x)[0], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("d", "r"), [(8, 4), (16, 16), (64, 32), (128, 128)])
@pytest.mark.parametrize("rho", [0.3, 1.0, 2.5])
def test_pairs_are_as_tight_at_an_eighth_as_at_half(d, r, rho):
    """sup = sqrt(1/k - 1/d) max |p+ - p-|, p = softmax(x): at most sqrt 2 over bound (iv), whatever k >= clusters / 8.

    The maximum over x is found by another optimiser, in a form that has no signs.
    """
    s = drawn(d, r, "hadamard")[0]
    sup = [float(structured_worst(s, coordinates(s, k).double(), rho).error) for k in (d // 2, d // 4, d // 8)]
    per_pair = [x / math.sqrt(1 / k - 1 / d) for x, k in zip(sup, (d // 2, d // 4, d // 8), strict=True)]
    np.testing.assert_allclose(per_pair, per_pair[0], rtol=1e-9)

    def apart(u: np.ndarray) -> float:
        """- |p+ - p-| where pair 1 has the logits u and all others are alike, on the sphere |x| = rho, sum x = 0."""
        free = r - 2
        level = -u.sum() / free
        x = np.array([*u, level]) * rho / math.sqrt((u**2).sum() + free * level**2)
        y = np.exp(x)
        return -abs(y[0] - y[1]) / (y[0] + y[1] + free * y[2])

    best = min(minimize(apart, start, options={"gtol": 1e-12}).fun for start in ([1.0, -1.0], [1.0, -0.1]))
    assert per_pair[0] == pytest.approx(-best, rel=1e-7)
    assert 1 <= sup[0] / floor_iv(d, r, d // 2, rho) < math.sqrt(2)


@pytest.mark.parametrize(
    ("d", "r", "k"), [(6, 4, 3), (56, 8, 28), (56, 8, 14), (56, 8, 7), (60, 16, 15), (126, 64, 63)]
)
@pytest.mark.parametrize("rho", [0.2, 1.0, 3.0])
def test_on_a_simplex_the_coordinate_subset_is_optimal(d, r, k, rho):
    """Its supremum is bound (iv) itself, which no coreset of k tokens of equal weight a cluster can be below."""
    s = drawn(d, r, "simplex")[0]
    sup = structured_worst(s, coordinates(s, k).double(), rho).error
    assert float(sup) == pytest.approx(floor_iv(d, r, k, rho), rel=1e-9)


def test_a_quarter_of_a_million_tokens():
    d = r = 512
    s = drawn(d, r, "hadamard")[0]
    rho = math.log(1 + d / 7)
    for k in (d // 2, d // 8):
        sup = structured_worst(s, coordinates(s, k).double(), rho).error
        assert 1 <= float(sup) / floor_iv(d, r, k, rho) < 1.001


def test_heads_are_independent_and_the_generator_decides(generator):
    s, w = drawn(8, 6, heads=4, seed=1), weights("free", (4, 6, 8), generator)
    whole = structured_worst(s, w, 1.5)
    for head in range(4):
        assert float(structured_worst(s[head], w[head], 1.5).error) == pytest.approx(float(whole.error[head]), rel=1e-9)
    square = structured_worst(s.unflatten(0, (2, 2)), w.unflatten(0, (2, 2)), 1.5)
    assert square.query.shape == (2, 2, 6)
    torch.testing.assert_close(square.error.flatten(), whole.error, rtol=1e-12, atol=0)
    few = {"restarts": 3, "steps": 2, "polish": 1}
    again = [structured_worst(s, w, 1.5, **few, generator=torch.Generator().manual_seed(g)).query for g in (1, 1, 2)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


def test_the_unit_of_weights_and_the_whole_cache():
    s = drawn(8, 4)
    w = weights("free", (1, 4, 8), torch.Generator().manual_seed(3))
    errors = [structured_worst(s, w * unit, 2.0).error.item() for unit in (1.0, 1e-9, 1e9)]
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-12)
    assert structured_worst(s, torch.ones_like(s), 2.0).error.item() < 1e-14


@pytest.mark.parametrize("rho", [60.0, 690.0])
def test_large_radii_do_not_overflow(rho):
    s = drawn(4, 4)[0]
    w = coordinates(s, 2).double()
    assert float(structured_worst(s, w, rho).error) == pytest.approx(0.5, rel=1e-6)  # one cluster: sqrt(1/k - 1/d)


BAD = {
    "rho": ((4, 4), (4, 4), {"rho": -1.0}, "rho must be a positive finite number"),
    "counts": ((4, 4), (4, 4), {"polish": 0}, "restarts, steps and polish must be at least 1, got 128, 40, 0"),
    "shapes": ((4, 4), (4, 3), {}, "must be of one shape [*heads, r, d] with r <= d"),
    "more clusters than dimensions": ((6, 4), (6, 4), {}, "with r <= d, got (6, 4) and (6, 4)"),
}


@pytest.mark.parametrize(("signs", "shape", "changes", "message"), BAD.values(), ids=BAD)
@pytest.mark.filterwarnings("ignore")
def test_what_is_refused(signs, shape, changes, message):
    with pytest.raises(ValueError) as refusal:
        structured_worst(torch.ones(signs), torch.ones(shape), **{"rho": 1.0, **changes})
    assert message in str(refusal.value)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 0.0])
def test_weights_that_are_none(value):
    w = torch.ones(2, 4, 4)
    w[1] = 0
    w[1, 0, 0] = value
    with pytest.raises(ValueError, match="weights must be finite, at least 0, and not all 0 in a head"):
        structured_worst(drawn(4, 4, heads=2), w, 1.0)
