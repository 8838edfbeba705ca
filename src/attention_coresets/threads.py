"""How work is shared among torch's threads: on one where operations are small, or a part of the work on each."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def one_thread() -> Iterator[None]:
    """Gives torch one thread within: between two small operations its threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_threads(work: Callable[..., T], parts: Sequence[tuple]) -> list[T]:
    """Returns work(*part) for each part: as many at a time as torch has threads, each on one. Passes no autograd on."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(lambda part: work(*part), parts))
    finally:
        # new threads start with what was last set, by whatever thread: the workers' 1 must not stay
        torch.set_num_threads(threads)
