"""k-center coresets: tokens that leave no other token far away, each weighted by its cluster."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.checks import one_of
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.base import Construction, Request
from attention_coresets.coresets.selection import first_best, mark, over_heads

_TIE = 1e-9  # of the largest squared distance


@dataclass(frozen=True)
class KCenter(Construction):
    """Keeps tokens that cover the cache, so that no token is far from a kept one.

    The first centre is drawn at random. Each next one is the token farthest from all centres so far. Every token
    belongs to its nearest centre, the earliest of equally near ones, and a centre to itself. A centre's log-weight is
    the log of the number of tokens that belong to it.

    The largest distance of a token to its centre is at most twice the least that any `size` centres leave.

    metric: Euclidean distance between "keys", or between "keys_values", which puts the value behind the key. Both are
        in units of their root mean square distance to their mean.

    Cost: O(n m (d + dv)) a head, without dv for "keys".

    Source: Gonzalez 1985.
    """

    model: ClassVar[str] = "free"
    agreement: ClassVar[Agreement] = Agreement.TIES
    metric: str = "keys"

    def __post_init__(self) -> None:
        one_of("metric", self.metric, ("keys", "keys_values"))

    def choose(self, request: Request) -> Coreset:
        cache, size = request.cache, request.size

        def of_heads(keys: Tensor, values: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
            points = standardised(keys)
            if self.metric == "keys_values":
                points = torch.cat([points, standardised(values)], dim=-1)
            first = (uniforms[:, 0] * cache.n).long()
            tokens, counts = farthest_points(points, first, size)
            return tokens, counts.to(keys.dtype).log()

        return over_heads(request, of_heads, uniforms=(1,), numbers=4 * cache.n * cache.d)


def farthest_points(points: Tensor, first: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Returns centres ``[H, size]`` of points ``[H, n, e]``, from `first` ``[H]`` on, and their clusters' sizes."""
    distance = torch.full_like(points[..., 0], torch.inf)  # [H, n], squared, to the nearest centre
    nearest = torch.zeros_like(distance, dtype=torch.int64)
    taken = torch.zeros_like(distance, dtype=torch.bool)
    squares = points.square().sum(-1)
    tie = _TIE * squares.amax(-1)
    token, tokens = first, []
    for t in range(size):
        mark(taken, token)
        tokens.append(token)
        at = token.unsqueeze(-1)
        found = squared_distances(points, squares, at)
        # an exact tie stays with the earlier centre, whatever its rounding; a centre is its own
        closer = (found < distance - tie.unsqueeze(-1)).scatter(-1, at, True)
        nearest = torch.where(closer, t, nearest)
        distance = torch.minimum(distance, found)
        token = first_best(distance.masked_fill(taken, -1.0), tie)
    counts = torch.zeros_like(nearest[:, :size]).scatter_add_(-1, nearest, torch.ones_like(nearest))
    return torch.stack(tokens, dim=-1), counts


def squared_distances(points: Tensor, squares: Tensor, at: Tensor) -> Tensor:
    """Returns |x_i - x_at|^2 for every point, ``[H, n]``, up to rounding, from squares |x_i|^2 and `at` ``[H, 1]``."""
    one = points.gather(-2, at.unsqueeze(-1).expand(-1, -1, points.shape[-1]))  # [H, 1, e]
    products = (points @ one.mT).squeeze(-1)
    return (squares + squares.gather(-1, at) - 2 * products).clamp_min_(0)


def standardised(x: Tensor) -> Tensor:
    """Subtracts the mean and divides by the root mean square distance to it, where that is not 0."""
    centred = x - x.mean(dim=-2, keepdim=True)
    spread = centred.square().sum(-1).mean(-1).sqrt()
    return centred / torch.where(spread > 0, spread, torch.ones_like(spread))[:, None, None]
