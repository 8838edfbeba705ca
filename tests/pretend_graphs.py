"""CUDA graphs of the pretended GPU: operations are written down while they are captured, and run by a replay alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pretend_counts import Counts
from pretend_operations import tensors_among


def run(func: Callable, args: Any, kwargs: dict) -> Any:
    return func(*args, **kwargs)


class Graph:
    """torch.cuda.CUDAGraph: what it has captured, in memory that stays where it was."""

    counts: Counts  # of the pretended GPU: torch makes graphs without arguments

    def __init__(self) -> None:
        self.work: list[tuple] = []
        self.before: list[tuple[torch.Tensor, torch.Tensor]] = []  # what the operations wrote into

    def capture(self, func: Any, args: Any, kwargs: dict) -> Any:
        """Finds the shapes that the operation makes."""
        writes = [a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments]
        written = [x for x, w in zip(args, writes, strict=False) if w]
        written += [
            kwargs[a.name] for a, w in zip(func._schema.arguments, writes, strict=True) if w and a.name in kwargs
        ]
        self.before += [(x, x.clone()) for x in tensors_among(written)]
        out = run(func, args, kwargs)
        self.work.append((func, args, kwargs, out))
        return out

    def end(self) -> None:
        """Nothing was computed: what was written into is as before, what was made holds nothing."""
        for func, _, _, out in self.work:
            for x in _made(func, out):
                x.fill_(float("nan") if x.is_floating_point() else 0)
        for x, old in reversed(self.before):
            x.copy_(old)

    def replay(self) -> None:
        self.counts.launches["a graph"] += 1
        for func, args, kwargs, out in self.work:
            for x, y in zip(_made(func, out), _made(func, run(func, args, kwargs)), strict=True):
                x.copy_(y)


def _made(func: Any, out: Any) -> list[torch.Tensor]:
    """The results of an operation that are neither views nor written in place."""
    results = out if isinstance(out, list | tuple) else [out]
    return [x for x, r in zip(results, func._schema.returns, strict=False) if r.alias_info is None]


@contextmanager
def captured(device: Any, graph: Graph, **_: Any) -> Iterator[None]:
    """torch.cuda.graph."""
    device.graph = graph
    try:
        yield
    finally:
        device.graph = None
        graph.end()
