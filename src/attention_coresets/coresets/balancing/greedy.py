"""Greedy signs: each pair goes to the end of less discrepancy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.walks.pairs import Features, Rule, pair_signs

_TIE, _ROUNDING = 1e-9, 1e-14  # a gain this small is none: rounding, which the batch changes, must not decide


@dataclass(frozen=True)
class Greedy(Balancing):
    """Karnin and Liberty's deterministic rule (2019) on pairs: sign -<f, discrepancy>; a fair coin only at a tie.

    Parameters as Balancing's. From marginals other than 1/2 it does not keep the mean.
    Cost: O(n^2) a stage.
    """

    def signs(self, vectors: Features, x: Tensor, uniforms: Tensor) -> Tensor:
        return pair_signs(vectors, x, uniforms[:, 0], _GreedySign())


class _GreedySign(Rule):
    compiled = ("greedy", 0.0)

    def chance(self, alpha: Tensor, norm2: Tensor, fair: Tensor) -> Tensor:
        # in half-lengths the ends are 2(1 - fair) up and 2 fair down: the difference of their squared discrepancies / 4
        gain = alpha + (1 - 2 * fair) * norm2
        return torch.where(gain.abs() <= _TIE * norm2 + _ROUNDING, fair, (gain < 0).to(fair.dtype))
