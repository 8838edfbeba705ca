"""What a GPU asks for: random numbers drawn on the CPU, work cut to its memory, and a line where it is slow."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

_COPIES = 5  # of the largest array at once: a walk has its Gram matrix, a factor and an inverse, or two being compacted
_FULL_RATE = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}  # compute capabilities whose float64 has half of float32's rate


class DeviceWarning(RuntimeWarning):
    """The work goes on, but not as fast, or not with the random numbers, that one might expect."""


def drawn_on_cpu(generator: torch.Generator) -> torch.Generator:
    """Returns a generator of the CPU, where all random numbers are drawn so that no device changes them.

    One of another device draws the seed of a new one, and a DeviceWarning says so.
    """
    if generator.device.type == "cpu":
        return generator
    warnings.warn(
        f"random numbers are drawn on the CPU: this generator on {generator.device} draws a seed for them; "
        "pass one of the CPU, torch.Generator().manual_seed(seed), to get the same numbers as there",
        DeviceWarning,
        stacklevel=3,
    )
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator().manual_seed(int(seed))


def warn_if_slow(device: torch.device) -> None:
    """Warns of a GPU that is slow in float64, in which constructions and certificates compute."""
    if device.type != "cuda" or torch.version.hip is not None:
        return
    found = torch.cuda.get_device_properties(device)
    if (found.major, found.minor) not in _FULL_RATE:
        warnings.warn(
            f"{found.name} (compute capability {found.major}.{found.minor}) is slow in float64, which constructions "
            "and certificates need: the CPU may be faster",
            DeviceWarning,
            stacklevel=3,
        )


def at_once(numbers: int, device: torch.device, on_cpu: int) -> int:
    """Returns how many heads, or the like, to work on together, at least 1; the results do not depend on it.

    numbers: of float64, in the largest array of a head.
    on_cpu: numbers in all heads together there. A GPU takes as many as its memory holds five times over, for a launch
        costs the same whatever its size.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, not in use
        return max(1, free // (8 * _COPIES) // numbers)
    return max(1, on_cpu // numbers)


def in_parts(work: Callable[[slice], T], count: int, together: int) -> list[T]:
    """Returns work(part) for parts of `count` things, `together` in each: fewer wherever a GPU's memory ends.

    Then a DeviceWarning says how many it goes on with. Raises torch.OutOfMemoryError where one alone is too large.
    """
    done, start = [], 0
    while start < count:
        part = slice(start, min(start + together, count))
        size = part.stop - start
        try:
            done.append(work(part))
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            together = size // 2
        else:
            start = part.stop
            continue
        torch.cuda.empty_cache()  # here, where nothing holds what the failed try had made
        warnings.warn(f"out of memory with {size} heads at once: going on with {together}", DeviceWarning, stacklevel=2)
    return done


@contextmanager
def one_line_of_memory(what: str, device: torch.device) -> Iterator[None]:
    """Has torch.OutOfMemoryError say in one line what was too large, and what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"{what}: {device} is out of memory; take fewer heads or tokens at once, or the CPU"
        ) from error
