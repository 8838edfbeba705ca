"""TOVA: the tokens that the last query attends to."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.attention import attention_weights
from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction.base import Scorer


@dataclass(frozen=True)
class TOVA(Scorer):
    """Keeps the tokens that the last query attends to, which sees all of them.

    score_i = softmax_i of the last query, averaged over the group. (kvpress averages over all heads of a layer; here a
    KV head has its own tokens.)

    Cost: O(group n d) a head.

    Source: Oren et al., arXiv 2401.06104.
    """

    needs_queries: ClassVar[bool] = True

    def scores(self, request: Request) -> Tensor:
        last = request.asked[..., -1:, :]
        return attention_weights(last, request.cache.keys).mean(dim=(-3, -2))
