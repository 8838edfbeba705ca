"""Tokens and weights fitted to a model's own queries, for the least mean squared error of attention at them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.base import Construction, Request
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.queries.calibration import Calibration, calibration, error_moment


@dataclass(frozen=True)
class QueryExchange(Construction):
    """Minimise the mean over calibration queries of |Attn(q) - Attn_coreset(q)|^2, linearised (`error_moment`), over
    tokens and positive weights: this project's construction for a model's cache (docs/real_caches.md).

    Weights are absolute: in the mean over the queries the kept tokens' softmax denominator is the cache's, so that
    tokens may be added beside them. Starts from the `size` tokens whose own term of the error is largest, all weights
    fitted in closed form, then makes up to `moves` best exchanges of a kept for a dropped token, each with all weights
    refitted (exchange.py). Where the calibration queries determine fewer weights than `size`, near-ties are broken by a
    ridge of 1e-9. moved: the caller passes the queries as if they were asked right after the cache (rotary positions
    moved on), which sees all of it; False: as they were asked, each sees what came before it. Nothing is random: the
    generator is not drawn from. Cost a head: 2 b n^2 + n^2 dv multiply-adds for the moments, O(size^3 + size^2 n) for
    the first weights, O(size n) a move; memory 3 n^2 + 8 size n numbers for one head after another.
    """

    moves: int = 32
    moved: bool = True
    model: ClassVar[str] = "free"
    model_units: ClassVar[bool] = True
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True
    agreement: ClassVar[Agreement] = Agreement.TIES

    def __post_init__(self) -> None:
        if self.moves < 0:
            raise ValueError(f"moves must be at least 0, got {self.moves}")

    def choose(self, request: Request) -> Coreset:
        shape = (*request.cache.heads, request.size)
        found = calibration(request.cache, request.asked, None if self.moved else request.rank)
        chosen = [
            self._head(*error_moment(Calibration(weights[None], values[None])), request.size)
            for weights, values in zip(*found, strict=True)  # one by one: the moments are n x n
        ]
        indices, log_weights = (torch.stack(part).reshape(shape) for part in zip(*chosen, strict=True))
        return Coreset(indices, log_weights.to(request.cache.keys.dtype))

    def _head(self, gram: Tensor, total: Tensor, size: int) -> tuple[Tensor, Tensor]:
        start = gram[0].diagonal().sort(descending=True, stable=True).indices[:size].sort().values
        tokens, weights = exchange(gram, total, start[None], moves=self.moves)
        return tokens[0], weights[0].log() + math.log(total.shape[-1])
