"""Knorm: the keys of smallest norm."""

from dataclasses import dataclass

from torch import Tensor

from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction.base import Scorer


@dataclass(frozen=True)
class Knorm(Scorer):
    """Keeps the tokens whose keys have the smallest norm: in language models these draw much attention.

    score_i = -|k_i|. Norms are taken about the origin of the keys given: those of a model as it computes them.

    Cost: O(n d) a head.

    Source: Devoto et al., arXiv 2406.11430.
    """

    def scores(self, request: Request) -> Tensor:
        return -request.cache.keys.norm(dim=-1)
