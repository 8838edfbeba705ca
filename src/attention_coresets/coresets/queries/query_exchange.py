"""Fits tokens and weights to a model's own queries, for the least mean squared error of attention at them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.checks import not_negative
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.base import Construction, Cost, Request
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.queries.calibration import Calibration, calibration, error_moment
from attention_coresets.devices import at_once, in_parts


@dataclass(frozen=True)
class QueryExchange(Construction):
    """Keeps the tokens and weights that come closest to the model's attention at the queries it asked.

    Over tokens and positive weights it lowers the mean over calibration queries of |Attn(q) - Attn_coreset(q)|^2,
    linearised as w^T G w with c^T w = 1 (`error_moment` has G and c). It starts from the `size` tokens of largest G_ii,
    with all weights fitted in closed form. Then it exchanges a kept token for a dropped one, the best exchange each
    time, with all weights refitted (minimax/exchange.py).

    Weights are absolute: in the mean over the queries the kept tokens' softmax denominator is the cache's, so that
    tokens may be added beside them. Where the queries determine fewer weights than `size`, a ridge of 1e-9 decides
    between near-ties. Nothing is random: the generator is not drawn from.

    moves: exchanges at most.
    moved: True where the caller passes the queries as if asked right after the cache, which they then see all of
        (rotary positions moved on). False: as they were asked, and each sees what came before it.

    Cost: for one head, 2 b n^2 + n^2 dv multiply-adds for G and c, O(size^3 + size^2 n) for the first weights and
    O(size n) a move. Memory 3 n^2 + 8 size n numbers a head: one head at a time on the CPU, and on a GPU as many as its
    memory holds, in step.

    Source: this project's construction for a model's cache (docs/real_caches.md).
    """

    moves: int = 32
    moved: bool = True
    model: ClassVar[str] = "free"
    model_units: ClassVar[bool] = True
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True
    agreement: ClassVar[Agreement] = Agreement.TIES

    def __post_init__(self) -> None:
        not_negative(moves=self.moves)

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Estimates the error's quadratic form, first weights and exchanges."""
        return Cost(3 * n**2 + 8 * size * n, 4 * n**2 * d + size**2 * (size + n) + self.moves * size * n)

    def choose(self, request: Request) -> Coreset:
        found = calibration(request.cache, request.asked, None if self.moved else request.rank)
        (heads, rows, n), device = found.weights.shape, found.weights.device

        def work(part: slice) -> tuple[Tensor, Tensor]:
            return self._heads(*error_moment(Calibration(found.weights[part], found.values[part])), request.size)

        # on the CPU one by one: the moments are n x n
        chosen = in_parts(work, heads, at_once(max(n, rows) * n, device, on_cpu=1))
        shape = (*request.cache.heads, request.size)
        indices, log_weights = (torch.cat(part).reshape(shape) for part in zip(*chosen, strict=True))
        return Coreset(indices, log_weights)

    def _heads(self, gram: Tensor, total: Tensor, size: int) -> tuple[Tensor, Tensor]:
        largest = gram.diagonal(dim1=-2, dim2=-1).sort(dim=-1, descending=True, stable=True).indices
        tokens, weights = exchange(gram, total, largest[:, :size].sort(dim=-1).values, moves=self.moves)
        return tokens, weights.log() + math.log(total.shape[-1])
