"""What heads that are worked on in step need: rows of a table head by head, and a choice head by head."""

from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Found = TypeVar("Found", bound=tuple[Tensor, ...])


def rows(which: Int[Tensor, "H k"], *tables: Float[Tensor, "rows ..."]) -> list[Float[Tensor, "H k ..."]]:
    """Returns the rows `which` of each table, which has those of all heads in one axis."""
    flat = which.flatten()
    return [x.index_select(0, flat).view(*which.shape, *x.shape[1:]) for x in tables]


def chosen(which: Bool[Tensor, "H *one"], new: Tensor, old: Tensor) -> Tensor:
    """Returns `new` ``[H, ...]`` for the heads in `which`, `old` for the others."""
    return torch.where(which.view(-1, *(1,) * (new.dim() - 1)), new, old)


def lower_of(one: Found, other: Found) -> Found:
    """Returns for each head the one of less error, `one` where they are equal; the first field ``[H]`` is the error."""
    lower = other[0] < one[0]
    return type(one)(*(chosen(lower, x, y) for x, y in zip(other, one, strict=True)))
