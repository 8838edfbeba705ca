"""Checks that a construction keeps what its type promises: tries it, and says in one line what is wrong."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

import torch

from attention_coresets.attention import Cache, Coreset, WeightedCache, attend
from attention_coresets.coresets.agreement import DIGITS, SOLVED, Agreement
from attention_coresets.coresets.base import MODELS, Construction
from attention_coresets.registry import check_dataclass, nearest

_FLAGS = [name for name in Construction.__annotations__ if not name.startswith("_")]
_N, _D, _RHO, _HEADS, _QUERIES = 24, 4, 1.5, 3, 8


def check_type(construction: object) -> None:
    """Raises ValueError unless this is a class that can be registered: a Construction with all that it must have.

    A class attribute whose name is almost a flag's is refused: as a flag it would do nothing, and nobody would know.
    """
    name = getattr(construction, "__name__", repr(construction))
    if not (isinstance(construction, type) and issubclass(construction, Construction)):
        raise ValueError(f"{name} is no Construction; inherit from attention_coresets.Construction")
    if inspect.isabstract(construction):
        missing = ", ".join(sorted(construction.__abstractmethods__))
        raise ValueError(f"{name} has no {missing}; write it")
    if not hasattr(construction, "model"):
        raise ValueError(f"{name} has no model; set it to one of {', '.join(MODELS)}")
    check_dataclass(construction)
    known = {*_FLAGS, *dir(Construction), *(field.name for field in fields(cast(Any, construction)))}
    for kind in construction.__mro__[: construction.__mro__.index(Construction)]:
        for attribute, value in vars(kind).items():
            close = nearest(attribute, _FLAGS, cutoff=0.85)
            if attribute not in known and not attribute.startswith("_") and close and not callable(value):
                raise ValueError(f"{name}.{attribute} is no flag of a Construction; did you mean {close}?")


def check_construction(construct: Construction, n: int = _N, d: int = _D) -> None:
    """Tries a construction on small caches, and refuses it where it breaks its type.

    It checks:
    - the type and `model`;
    - exact sizes, sorted distinct tokens, shapes of heads, and every token at size n;
    - finite weights, and none in the model "unweighted";
    - that the cache is left as it is;
    - the same tokens for the same seed, and the same coreset of a head alone or in a batch, as far as `agreement`
      promises;
    - weighted tokens, where it takes them.

    Cost: some ten constructions of n tokens.

    Parameters
    ----------
    construct : Construction
        With the parameters that it is to be used with.
    n, d : int
        Tokens and dimensions of the caches tried. Only a construction for larger caches needs other numbers.

    Raises
    ------
    ValueError
        In one line: the construction, what it did, what it should have done.
    """
    check_type(type(construct))
    name = type(construct).__name__
    if construct.model not in MODELS:
        raise ValueError(f"{name} has model {construct.model!r}; it must be one of {', '.join(MODELS)}")
    if not isinstance(construct.agreement, Agreement):
        raise ValueError(f"{name} has agreement {construct.agreement!r}; it must be one of Agreement")
    cache, text = _example(n, d)
    run = _runner(construct, text)
    for size in sorted({construct.sinks + 1, max(construct.sinks + 1, n // 3), n - 1, n}):
        _tried(name, f"for size {size} of {n} tokens", run, cache, size)
    _check_repeats(construct, name, cache, text, max(construct.sinks + 1, n // 3))
    if construct.takes_weights:
        weighted = WeightedCache(cache.keys, cache.values, cache.keys[..., 0])
        coreset = _tried(name, "for a WeightedCache", run, weighted, n // 3)
        if coreset.log_weights is None:
            raise ValueError(f"{name} takes_weights but returned no log-weights for a WeightedCache")


def _example(n: int, d: int) -> tuple[Cache, dict[str, Any]]:
    """Makes a batch of heads of unit norm, queries of the last positions and the positions of the tokens."""
    g = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(_HEADS, n, d, dtype=torch.float64, generator=g) for _ in range(2))
    queries = torch.randn(_HEADS, 2, _QUERIES, d, dtype=torch.float64, generator=g)
    keys, values = (x / x.norm(dim=-1, keepdim=True) for x in (keys, values))
    return Cache(keys, values), {"queries": queries, "positions": torch.arange(n).repeat(_HEADS, 1)}


def _generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def _runner(construct: Construction, text: dict[str, Any]) -> Callable[[Cache, int], Coreset]:
    return lambda cache, size: construct(cache, size, _RHO, _generators(_HEADS), **text)


def _tried(name: str, where: str, run: Callable[[Cache, int], Coreset], cache: Cache, size: int) -> Coreset:
    """Returns the coreset, the cache unchanged; whatever the construction raises becomes one line."""
    before = [x.clone() for x in (cache.keys, cache.values)]
    try:
        coreset = run(cache, size)
    except Exception as error:
        text = " ".join(str(error).split())
        known = text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
        raise ValueError(f"{name} fails {where}: {known}") from error
    if not all(torch.equal(x, y) for x, y in zip(before, (cache.keys, cache.values), strict=True)):
        raise ValueError(f"{name} changed the cache it was given; work on a copy")
    return coreset


def _check_repeats(construct: Construction, name: str, cache: Cache, text: dict[str, Any], size: int) -> None:
    """Tries the same seeds again, and each head alone."""
    first, again = (construct(cache, size, _RHO, _generators(_HEADS), **text) for _ in range(2))
    if not torch.equal(first.indices, again.indices) or not _same_weights(first, again):
        raise ValueError(f"{name} made another coreset from the same seeds; draw from request.generator alone")
    if construct.agreement == Agreement.ERROR:  # rounding, which the batch changes, may lead it to other tokens
        return
    for head, g in enumerate(_generators(_HEADS)):
        alone = construct(cache[head], size, _RHO, g, **{key: x[head] for key, x in text.items()})
        if not _agree(construct.agreement, alone, first[head], cache[head]):
            raise ValueError(
                f"{name} gives head {head} another coreset in a batch than alone; a head must not see its batch, and "
                "random numbers must come head by head (coresets.randomness.draw)"
            )


def _same_weights(one: Coreset, other: Coreset) -> bool:
    if one.log_weights is None or other.log_weights is None:
        return one.log_weights is other.log_weights
    return torch.equal(one.log_weights, other.log_weights)


def _agree(agreement: Agreement, one: Coreset, other: Coreset, cache: Cache) -> bool:
    """Tells whether two coresets of one head are as near as the class of agreement says."""
    if not torch.equal(one.indices, other.indices):
        return False
    if one.log_weights is None or other.log_weights is None:
        return one.log_weights is other.log_weights
    if agreement == Agreement.TOKENS:
        return bool(((one.log_weights - other.log_weights).abs() <= DIGITS * one.log_weights.abs().clamp_min(1)).all())
    queries = _RHO * torch.nn.functional.normalize(cache.keys, dim=-1)
    outputs = [attend(queries, *cache.take(c.indices), c.log_weights) for c in (one, other)]
    return bool(((outputs[0] - outputs[1]).norm(dim=-1) <= SOLVED).all())
