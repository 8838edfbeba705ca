"""Draws uniform random numbers up front, so that a construction is a pure function of its input and these."""

import numpy as np
import torch
from torch import Tensor

from attention_coresets.inputs import Generators


def draw(generator: Generators, heads: int, *shape: int) -> Tensor:
    """Draws float64 uniforms ``[heads, *shape]`` on the CPU, head after head.

    One generator: head h gets the same numbers in every batch of more than h heads. A sequence: one generator a head,
    so that each head is the same whatever it is batched with.

    Raises ValueError for a sequence of another length.
    """
    if isinstance(generator, torch.Generator):
        generator = [generator] * heads
    if len(generator) != heads:
        raise ValueError(f"got {len(generator)} generators for {heads} heads; pass one for all, or one a head")
    return torch.stack([torch.rand(shape, dtype=torch.float64, generator=g) for g in generator])


def seed_of(*numbers: int) -> int:
    """Makes a seed for a torch generator, as good as random in each of these numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seeded(numbers: Tensor) -> list[torch.Generator]:
    """Makes a generator a head, seeded by that head's number in [0, 1): whatever it draws is the same in any batch."""
    return [torch.Generator().manual_seed(int(number * 2**53)) for number in numbers.tolist()]
