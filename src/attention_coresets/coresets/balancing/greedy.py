"""Greedy signs: each pair goes to the end of less discrepancy."""

from dataclasses import dataclass

from torch import Tensor

from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.walks.pairs import Features, Rule, pair_signs

_TIE, _ROUNDING = 1e-9, 1e-14  # a gain this small is none: rounding, which the batch changes, must not decide


@dataclass(frozen=True)
class Greedy(Balancing):
    """Keeps one of each pair of tokens, the one that leaves less discrepancy.

    Let f be the feature of a pair's first token less that of its second. The first is kept where <f, discrepancy so
    far> is below 0, the second where it is above, and a coin decides a tie. From marginals other than 1/2 the ends of a
    pair have other lengths; the end of less discrepancy is taken, which does not keep the mean.

    Parameters are those of `Balancing`.

    Cost: O(n^2) a stage.

    Source: the deterministic rule of Karnin and Liberty 2019, on pairs.
    """

    def signs(self, vectors: Features, x: Tensor, uniforms: Tensor) -> Tensor:
        return pair_signs(vectors, x, uniforms[:, 0], _GreedySign())


class _GreedySign(Rule):
    compiled, sharp = ("greedy", 0.0), True

    def start(self, norm2: Tensor, fair: Tensor) -> tuple[Tensor, Tensor]:
        # in half-lengths the ends are 2(1 - fair) up and 2 fair down: the difference of their squared discrepancies / 4
        # is alpha + (1 - 2 fair) |h f|^2; in units of a tie no smaller gain counts, and any other decides
        tie = _TIE * norm2 + _ROUNDING
        return (1 - 2 * fair) * norm2 / tie, 1 / tie
