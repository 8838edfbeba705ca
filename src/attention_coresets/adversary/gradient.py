"""Computes the error at many queries, and its gradient, in four matrix products a side.

Beside them, a side costs one exponential and one product of every query and token.

Let w_i = e^{<q,k_i> + log-weight_i} and A = sum w_i v_i / sum w_i, the attention of one side. A column of ones beside
the values gives both sums in one product. With D the difference of the two attentions, the gradient of |D|^2 / 2 is
Cov_P(k,v) D - Cov_P'(k,v) D, where

    Cov_P(k,v) D = sum_i w_i <(v_i, 1), (D, -<A,D>)> k_i / sum w_i.

The same column of ones takes <A,D> off.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.portions import spread
from attention_coresets.adversary.sides import Sides
from attention_coresets.adversary.steps import compiled, rows
from attention_coresets.compiled import runs_compiled

Rooms = tuple[Tensor, Tensor]


def errors(query: Float[Tensor, "H b d"], sides: Sides) -> Float[Tensor, "H b"]:
    """Returns |D| at each query.

    Cost: 2 b (n + m)(d + dv) flops a head, and memory of a few MB a thread.
    """

    @torch.no_grad()
    def work(part: Tensor, its_sides: Sides) -> tuple[Tensor, ...]:
        return _contrast(*_sums(part, its_sides, rooms(part, its_sides, 1)))[:1]

    return spread(work, query, sides)[0]


def error_and_gradient(
    query: Float[Tensor, "H b d"], sides: Sides, room: Rooms
) -> tuple[Float[Tensor, "H b"], Float[Tensor, "H b d"]]:
    """Returns |D| and the gradient of |D|^2 / 2 at each query; overwrites `room` = rooms(query, sides, 2).

    Cost: 4 b (n + m)(d + dv) flops a head.
    """
    error, *factors = _contrast(*_sums(query, sides, room))
    gradient = torch.zeros_like(query, memory_format=torch.contiguous_format)
    for side, factor, (weights, along) in zip(sides, factors, room, strict=True):
        torch.bmm(factor, side.values.mT, out=along).mul_(weights)  # [H, b, n]
        gradient.baddbmm_(along, side.keys)
    return error, gradient


def rooms(query: Float[Tensor, "H b d"], sides: Sides, count: int) -> Rooms:
    """Makes room for `count` numbers for every query and token of each side.

    It is kept from step to step: fresh memory is slow.
    """
    one, other = (query.new_empty(count, *query.shape[:2], side.keys.shape[1]) for side in sides)
    return one, other


def _sums(query: Tensor, sides: Sides, room: Rooms) -> tuple[Tensor, Tensor]:
    """Returns sum w (v, 1) of each side ``[H, b, dv + 1]``; leaves the w in room[side][0]."""
    ours, theirs = (torch.bmm(side.weights(query, out[0]), side.values) for side, out in zip(sides, room, strict=True))
    return ours, theirs


def _contrast(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns |D| ``[H, b]`` and, for each side, +-(D, -<A,D>) over its sum of weights ``[H, b, dv + 1]``."""
    if runs_compiled(compiled, ours):
        out = torch.empty_like(ours[..., 0]), torch.empty_like(ours), torch.empty_like(theirs)
        compiled.contrast(*rows(ours, theirs, *out))
        return out
    one, other = ours[..., :-1] / ours[..., -1:], theirs[..., :-1] / theirs[..., -1:]
    difference = one - other

    def factor(attention: Tensor, total: Tensor) -> Tensor:
        return torch.cat([difference, -(difference * attention).sum(-1, keepdim=True)], dim=-1) / total

    return difference.norm(dim=-1), factor(one, ours[..., -1:]), factor(other, -theirs[..., -1:])
