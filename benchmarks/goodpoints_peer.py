"""The compiled peer goodpoints 0.6.3 (MIT), optional: a source build that needs gcc."""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.kernel import LENGTH, gaussian
from benchmarks.records import Ratio, Target, ratio
from benchmarks.timing import Task, in_threads, interleaved

WANTED = "0.6.3"
INSTALL = "not installed: pip install -r requirements-benchmarks.txt (a source build, needs gcc)"


def absent() -> str:
    """Why it cannot be measured; empty where it can."""
    if find_spec("goodpoints") is None:
        return INSTALL
    try:
        found = version("goodpoints")
    except PackageNotFoundError:
        return f"goodpoints has no version: {INSTALL}"
    return "" if found == WANTED else f"goodpoints {found} is there, {WANTED} is wanted; {INSTALL}"


def halve(gram: np.ndarray, uniforms: np.ndarray, delta: float) -> np.ndarray:
    """halve_K with uniforms given: the indices of the list that gets the first of a pair with its stated chance."""
    coresets = np.empty((2, len(gram) // 2), dtype=int)
    _module("ktc").halve_K(gram, delta, uniforms, coresets)
    return np.sort(coresets[1])


def thin(gram: np.ndarray, rounds: int, seed: int) -> np.ndarray:
    """thin_K: n / 2^rounds distinct indices, split then swapped."""
    return np.sort(_module("kt").thin_K(gram, gram, rounds, seed=seed, unique=True))


def compress(points: np.ndarray, oversampling: int, seed: int, *, swaps: bool = False) -> np.ndarray:
    """Compress(g) with kernel halving of the Gaussian kernel, compiled throughout: 2^g sqrt(n) indices.

    `swaps` refines each halving by swaps, its own default.
    """
    compiled, length = _module("compress").compress_kt, np.array([LENGTH])
    return np.sort(compiled(points, b"gaussian", length, g=oversampling, skip_swap=not swaps, seed=seed))


def compress_by_calls(points: np.ndarray, oversampling: int, seed: int) -> np.ndarray:
    """Compress(g) as its Python front does it: any halving called back, here halve_K on the same kernel."""
    return np.sort(_module("compress").compress(points, _halver(seed), oversampling))


def in_two_threads(tasks: Mapping[str, Task], n: int, budget: float, target: Target) -> Ratio:
    """The time of the first task over the second's, both given two threads."""
    with in_threads(2):
        spent = interleaved(tasks, budget).seconds
    ours, theirs = tasks
    return ratio(f"time of {ours} / {theirs}, n = {n}, in two threads", spent[ours], spent[theirs], target=target)


def _halver(seed: int) -> Callable[[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)

    def halving(x: np.ndarray) -> np.ndarray:
        return halve(gaussian(x), rng.random(len(x) // 2), 0.5)

    return halving


def _module(name: str) -> Any:
    return import_module(f"goodpoints.{name}")
