"""Queries of many heads, cut into portions whose logits stay in a core's own memory and shared among the cores.

A portion runs start to end on one core, so that no core waits for another between two small operations.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.sides import Sides

T = TypeVar("T")

_NUMBERS = 2**19  # queries x tokens of a portion, all its heads together: 2 MB in float32
_NUMBERS_ELSEWHERE = 2**25  # on a device that takes all at once
_FEWEST = 64  # queries of a head, unless there are fewer for each thread: below, matrix products are slow
_WORTH_THREADS = 2**16  # numbers in all, below which one core is done before others have begun


def spread(
    work: Callable[[Tensor, Sides], tuple[Tensor, ...]], query: Float[Tensor, "H b d"], sides: Sides
) -> tuple[Tensor, ...]:
    """work(query, sides), whose results ``[H, b, ...]`` depend on their own query alone, portion by portion."""
    heads, rows = _shape(query, sides)
    parts = [
        (queries, (sides[0][a : a + heads], sides[1][a : a + heads]))
        for a in range(0, len(query), heads)
        for queries in query[a : a + heads].split(rows, dim=1)
    ]
    done = share(work, parts, query.device)
    across = -(-query.shape[1] // rows)  # portions of the same heads
    groups = (done[i : i + across] for i in range(0, len(done), across))
    strips = [[torch.cat(x, dim=1) for x in zip(*group, strict=True)] for group in groups]
    return tuple(torch.cat(x) for x in zip(*strips, strict=True))


def share(work: Callable[..., T], parts: list[tuple], device: torch.device) -> list[T]:
    """work(*part) for each part: on the CPU on as many threads as torch is set to, each of them on one core.

    One part runs on one core as well. Within, another `share` finds one thread. Autograd is not passed on.
    """
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1:
        return [work(*part) for part in parts]
    try:
        if len(parts) == 1:
            torch.set_num_threads(1)
            return [work(*parts[0])]
        with ThreadPoolExecutor(before, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda part: work(*part), parts))
    finally:
        torch.set_num_threads(before)  # the last call, from whatever thread, is what new threads start with


def _shape(query: Tensor, sides: Sides) -> tuple[int, int]:
    """Heads and queries of a portion: where the work is worth it, a portion for every thread at least."""
    heads, count, tokens = len(query), query.shape[1], sides[0].keys.shape[1]
    cpu = query.device.type == "cpu"
    numbers = _NUMBERS if cpu else _NUMBERS_ELSEWHERE
    threads = torch.get_num_threads() if cpu and heads * count * tokens > _WORTH_THREADS else 1
    each = count if heads >= threads else -(-count * heads // threads)
    rows = min(each, max(_FEWEST, numbers // tokens))
    rows = -(-count // -(-count // rows))  # as equal as they can be
    return max(1, min(numbers // (rows * tokens), heads // threads)), rows
