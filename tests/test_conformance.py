"""The type of a construction: every built-in one keeps it, each way of breaking it is refused in one line."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import attention_coresets as ac
from attention_coresets import CORESETS, Cache, Construction, Coreset, Request, check_construction, make_coreset
from attention_coresets.caches import CACHES, check_family, make_cache, register_cache
from attention_coresets.coresets.arms import ARMS, AXES
from attention_coresets.coresets.conformance import check_type


@dataclass(frozen=True)
class TopNorm(Construction):
    """The tokens of largest value norm."""

    model: ClassVar[str] = "unweighted"

    def choose(self, request: Request) -> Coreset:
        norms = request.cache.values.norm(dim=-1) + 1e-9 * torch.arange(request.cache.n)  # no ties
        return Coreset(norms.topk(request.size, dim=-1).indices.sort(dim=-1).values)


pytestmark = pytest.mark.usefixtures("registries")


@pytest.mark.parametrize("name", CORESETS)
def test_every_construction_keeps_its_type(name):
    check_construction(make_coreset(name), n=8 if name == "optimum" else 24, d=2 if name == "optimum" else 4)


@pytest.mark.parametrize("label", [label for label, arm in ARMS.items() if arm.construction != "optimum"])
def test_every_arm_is_a_construction_in_its_model(label):
    arm = ARMS[label]
    construct = make_coreset(arm.construction, **arm.parameters)
    assert make_coreset(label) == (CORESETS[label]() if label in CORESETS else construct)  # a construction comes first
    assert arm.axis in AXES
    words = arm.title.rpartition("(")[2].rstrip(")")
    if words in ("tilted", "unweighted", "free"):  # what the legend says is what is built
        assert construct.model == words


def test_a_construction_of_ones_own_is_found_by_name():
    ac.register_construction("top_norm", TopNorm)
    ac.register_construction("top_norm", TopNorm)  # a module read again
    check_construction(make_coreset("top_norm"))
    cache = make_cache("sphere", n=20, d=3)
    assert make_coreset("top_norm")(cache, 5, 1.0, torch.Generator()).size == 5


def broken(**changes):
    """TopNorm with class attributes or methods replaced."""
    return dataclass(frozen=True)(type("Broken", (TopNorm,), {"__annotations__": {}, **changes}))()


def chosen(coreset):
    return {"choose": lambda self, request: coreset(request)}


def first(request, size=None):
    return torch.arange(size or request.size).expand(*request.cache.heads, -1)


def nan(request):
    return Coreset(first(request), torch.full(first(request).shape, torch.nan, dtype=request.cache.keys.dtype))


def touched(request):
    request.cache.keys.mul_(2)
    return Coreset(first(request))


def one_for_all(request):
    """Numbers drawn for the whole batch at once: a head's depend on how many heads there are."""
    g = request.generator if isinstance(request.generator, torch.Generator) else request.generator[0]
    score = torch.rand(request.cache.heads.numel(), request.cache.n, generator=g)
    return Coreset(score.reshape(*request.cache.heads, -1).topk(request.size).indices.sort(dim=-1).values)


@pytest.mark.parametrize(
    ("construct", "message"),
    [
        (broken(model="unweighed"), "Broken has model 'unweighed'; it must be one of tilted, unweighted, free"),
        (
            broken(**chosen(lambda r: Coreset(first(r, r.size + 1)))),
            "for size 1 of 24 tokens: Broken kept (3, 2) tokens",
        ),
        (
            broken(**chosen(lambda r: Coreset(first(r)[..., 0, :]))),
            "Broken kept (1,) tokens [*heads, size], not (3, 1)",
        ),
        (broken(**chosen(lambda r: Coreset(first(r).flip(-1)))), "coreset indices must be distinct and sorted"),
        (broken(**chosen(lambda r: Coreset(first(r) + r.cache.n))), "coreset indices must lie in 0..23, got 24..24"),
        (broken(**chosen(nan), model="free"), "coreset log_weights hold NaN or Inf"),
        (
            broken(**chosen(lambda r: Coreset(first(r), 0.0 * first(r)))),
            'has model "unweighted" but returned log-weights',
        ),
        (broken(**chosen(touched)), "Broken changed the cache it was given"),
        (broken(**chosen(lambda r: first(r))), "Broken.choose must return a Coreset, got Tensor"),
        (
            broken(**chosen(lambda r: 1 / 0)),
            "Broken fails for size 1 of 24 tokens: ZeroDivisionError: division by zero",
        ),
        (broken(**chosen(one_for_all)), "Broken gives head 1 another coreset in a batch than alone"),
        (broken(agreement="exact"), "Broken has agreement 'exact'"),
        (broken(takes_weights=True), "Broken takes_weights but returned no log-weights for a WeightedCache"),
    ],
)
def test_each_broken_promise_is_one_line(construct, message):
    with pytest.raises(ValueError) as refusal:
        check_construction(construct)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_drawn_elsewhere_is_refused():
    def drawn(request):
        return Coreset(torch.rand(*request.cache.heads, request.cache.n).topk(request.size).indices.sort(-1).values)

    with pytest.raises(ValueError, match="another coreset from the same seeds"):
        check_construction(broken(**chosen(drawn)))


class NoModel(Construction):
    def choose(self, request):
        return Coreset(first(request))


class NoChoice(Construction):
    model = "unweighted"


@dataclass(frozen=True)
class Typo(TopNorm):
    need_queries: ClassVar[bool] = True


@dataclass
class Thawed(TopNorm.__base__):
    model: ClassVar[str] = "unweighted"

    def choose(self, request):
        return Coreset(first(request))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoModel, "NoModel has no model; set it to one of tilted, unweighted, free"),
        (NoChoice, "NoChoice has no choose; write it"),
        (Typo, "Typo.need_queries is no flag of a Construction; did you mean needs_queries?"),
        (Thawed, "Thawed must be frozen"),
        (type("Plain", (TopNorm.__base__,), {"model": "free", "choose": first}), "Plain is no dataclass"),
    ],
)
def test_what_cannot_be_registered(kind, message):
    with pytest.raises(ValueError) as refusal:
        ac.register_construction("mine", kind)
    assert message in str(refusal.value)
    assert "mine" not in CORESETS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uniform", "the name is taken by attention_coresets.coresets"),
        ("walk_tilted", "the name is that of an arm"),
        ("top-norm", "letters, digits and underscores"),
    ],
)
def test_names_that_cannot_be_had(name, message):
    with pytest.raises(ValueError, match=message):
        ac.register_construction(name, TopNorm)


def test_a_function_is_no_construction():
    for other in (lambda cache, size, rho, generator: None, TopNorm(), int):
        with pytest.raises(ValueError, match="is no Construction; inherit from"):
            check_type(other)


@dataclass(frozen=True)
class Ring:
    n: int = 16
    d: int = 2
    spoil: str = ""

    def sample(self, rng):
        angle = (np.random.default_rng() if self.spoil == "seed" else rng).random(self.n) * 2 * np.pi
        keys = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        values = keys.astype(np.float32) if self.spoil == "float32" else keys.copy()
        if self.spoil == "nan":
            values[3] = np.nan
        return (keys[1:] if self.spoil == "short" else keys), values


def test_a_family_of_ones_own():
    register_cache("ring", Ring)
    check_family(Ring())
    cache = make_cache("ring", n=12, heads=2, seed=1)
    assert isinstance(cache, Cache)
    torch.testing.assert_close(cache.keys.norm(dim=-1), torch.ones(2, 12, dtype=torch.float64))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("seed", "drew other tokens from the same rng"),
        ("float32", "values must be a float64 array"),
        ("nan", "values hold NaN"),
        ("short", r"keys must be a float64 array \[n = 16, ...\], got float64 \(15, 2\)"),
    ],
)
def test_families_that_break_their_type(spoil, message):
    with pytest.raises(ValueError, match=message):
        check_family(Ring(spoil=spoil))


def test_families_that_cannot_be_registered():
    with pytest.raises(ValueError, match="taken by"):
        register_cache("sphere", Ring)
    with pytest.raises(ValueError, match="NoD has no field d"):
        register_cache("mine", dataclass(frozen=True)(type("NoD", (), {"n": 3, "__annotations__": {"n": int}})))
    assert "mine" not in CACHES
