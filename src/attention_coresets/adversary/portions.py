"""Cuts the queries of many heads into portions, and shares these among the cores.

The logits of a portion stay in a core's own memory. A portion runs from start to end on one core, so that no core waits
for another between two small operations.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.sides import Sides
from attention_coresets.threads import on_threads, one_thread

T = TypeVar("T")

_NUMBERS = 2**19  # queries x tokens of a portion, all its heads together: 2 MB in float32
_NUMBERS_ELSEWHERE = 2**25  # on a device that takes all at once
_FEWEST = 64  # queries of a head, unless there are fewer for each thread: below, matrix products are slow
_WORTH_THREADS = 2**16  # numbers in all, below which one core is done before others have begun


def spread(
    work: Callable[[Tensor, Sides], tuple[Tensor, ...]], query: Float[Tensor, "H b d"], sides: Sides
) -> tuple[Tensor, ...]:
    """Calls work(query, sides) portion by portion and joins the results ``[H, b, ...]``.

    Each row of a result may depend on its own query alone.
    """
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
    """Returns work(*part) for each part, on the CPU on as many threads as torch is set to, each on one core.

    A single part runs on one core too. Within `work`, another `share` finds one thread. Autograd is not passed on.
    """
    if device.type != "cpu" or torch.get_num_threads() == 1:
        return [work(*part) for part in parts]
    if len(parts) == 1:
        with one_thread():
            return [work(*parts[0])]
    return on_threads(work, parts)


def _shape(query: Tensor, sides: Sides) -> tuple[int, int]:
    """Returns heads and queries of a portion: at least a portion for every thread, where the work is worth it."""
    heads, count, tokens = len(query), query.shape[1], sides[0].keys.shape[1]
    cpu = query.device.type == "cpu"
    numbers = _NUMBERS if cpu else _NUMBERS_ELSEWHERE
    threads = torch.get_num_threads() if cpu and heads * count * tokens > _WORTH_THREADS else 1
    # heads are shared out first; their queries are cut only where there are fewer heads than threads
    each = count if heads >= threads else -(-count * heads // threads)
    rows = min(each, max(_FEWEST, numbers // tokens))
    rows = -(-count // -(-count // rows))  # as equal as they can be
    return max(1, min(numbers // (rows * tokens), heads // threads)), rows
