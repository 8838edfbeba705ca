"""Several sizes of one cache share what they have in common, and keep the tokens that each keeps alone."""

import pytest
import torch

from attention_coresets import WeightedCache, make_cache, make_coreset
from attention_coresets.compiled import backend
from attention_coresets.coresets.balancing import recursion, shared_inverse
from attention_coresets.coresets.shared import Shared
from attention_coresets.coresets.walks.walk import inverses, walk_signs
from attention_coresets.devices import DeviceWarning

SIZES = (8, 13, 24, 40, 60)


def cache_of(kind):
    """Two heads of 120 tokens; "weighted" ones stand for several each, "capped" ones hold tokens of marginal 1."""
    cache = make_cache("cap_outliers" if kind == "capped" else "sphere", n=120, d=5, heads=2, seed=3)
    if kind != "weighted":
        return cache
    numbers = torch.rand(2, 120, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return WeightedCache(cache.keys, cache.values, numbers)


@pytest.fixture
def made(monkeypatch):
    """How often an inverse was computed to be kept."""
    calls = []

    def counted(gram, ridge):
        calls.append(gram.shape)
        return inverses(gram, ridge)

    monkeypatch.setattr(shared_inverse, "inverses", counted)
    return calls


@pytest.mark.rounding
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", ["plain", "weighted"])
@pytest.mark.parametrize("parameters", [{}, {"model": "unweighted"}, {"recursion": "halving"}, {"model": "free"}])
def test_sizes_share_one_inverse_and_keep_their_tokens(parameters, kind, compiled, made):
    cache, construct, shared = cache_of(kind), make_coreset("gram_schmidt_walk", **parameters), Shared()
    with backend("auto" if compiled else "torch"):  # torch's loop takes twenty times as long
        for size in SIZES if compiled else SIZES[:2]:
            alone = construct(cache, size, 2.0, 7)
            found = construct(cache, size, 2.0, 7, shared=shared)
            assert torch.equal(found.indices, alone.indices)
            if alone.log_weights is not None:
                torch.testing.assert_close(found.log_weights, alone.log_weights)
    assert len(made) == 1


def test_a_size_with_certain_tokens_walks_on_its_own_matrix(made):
    """Marginals that are capped at 1 are not in proportion to p: no inverse serves them, and none is made."""
    cache, construct, shared = cache_of("capped"), make_coreset("gram_schmidt_walk"), Shared()
    for size in (80, 100):
        alone = construct(cache, size, 4.0, 7)
        assert alone.log_weights is not None
        assert float(alone.log_weights.min()) == 0
        assert torch.equal(construct(cache, size, 4.0, 7, shared=shared).indices, alone.indices)
    assert made == []


@pytest.mark.parametrize("name", ["kernel_halving", "uniform", "herding"])
def test_other_rules_keep_their_tokens_too(name):
    cache, construct, shared = cache_of("plain"), make_coreset(name), Shared()
    for size in SIZES:
        found = construct(cache, size, 2.0, 7, shared=shared)
        assert torch.equal(found.indices, construct(cache, size, 2.0, 7).indices)


def test_seconds_saved_are_those_that_the_first_size_spent(monkeypatch):
    """A clock that stands still but while a thing is made: its second is counted again for each further use."""
    now = iter(range(100))
    monkeypatch.setattr("attention_coresets.coresets.shared.time.perf_counter", lambda: float(next(now)))
    shared = Shared()
    assert [shared.once("law", lambda: "p"), shared.saved] == ["p", 0.0]
    assert [shared.once("law", lambda: "q"), shared.once("law", lambda: "q"), shared.saved] == ["p", "p", 2.0]


def test_another_cache_rho_or_construction_is_refused():
    cache, construct, shared = cache_of("plain"), make_coreset("gram_schmidt_walk"), Shared()
    construct(cache, 8, 2.0, 7, shared=shared)
    for other in (
        lambda: construct(cache_of("plain"), 8, 2.0, 7, shared=shared),
        lambda: construct(cache, 8, 2.1, 7, shared=shared),
        lambda: make_coreset("gram_schmidt_walk")(cache, 8, 2.0, 7, shared=shared),
    ):
        with pytest.raises(ValueError, match=r"make a new Shared\(\) for each"):
            other()


def test_inverses_are_those_of_the_regular_matrix():
    factor = torch.randn(2, 30, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gram = factor @ factor.mT
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    exact = torch.linalg.inv(gram + 1e-2 * level[:, None, None] * torch.eye(30, dtype=torch.float64))
    torch.testing.assert_close(inverses(gram.clone(), 1e-2), exact)


def test_a_walk_on_an_inverse_refuses_frozen_coordinates():
    eye, x = torch.eye(3).double()[None], torch.tensor([[1.0, 0.0, 0.0]]).double()
    with pytest.raises(ValueError, match="needs every"):
        walk_signs(eye, x, torch.rand(1, 3).double(), inverted=True)


@pytest.mark.parametrize("model", ["tilted", "unweighted"])
def test_parts_of_the_heads_do_not_take_what_others_left(model, monkeypatch):
    """As a GPU's memory ends, a size is chosen in parts of the heads; another size had them all at once."""
    cache = make_cache("cap_outliers", n=120, d=5, heads=4, seed=3)
    construct, shared = make_coreset("gram_schmidt_walk", model=model), Shared()
    alone = {size: construct(cache, size, 2.0, 7).indices for size in SIZES}
    assert torch.equal(construct(cache, 60, 2.0, 7, shared=shared).indices, alone[60])
    monkeypatch.setattr(recursion, "at_once", lambda *_, **__: 2)
    assert torch.equal(construct(cache, 40, 2.0, 7, shared=shared).indices, alone[40])
    of_heads, tried = type(construct)._of_heads, []

    def ends(self, heads, *args):
        tried.append(len(heads.keys))
        found = of_heads(self, heads, *args)
        if len(heads.keys) > 2:
            raise torch.OutOfMemoryError
        return found

    monkeypatch.setattr(type(construct), "_of_heads", ends)
    with pytest.warns(DeviceWarning, match="going on with 2"):
        found = construct(cache, 24, 2.0, 7, shared=Shared())
    assert tried == [4, 2, 2]
    assert torch.equal(found.indices, alone[24])
