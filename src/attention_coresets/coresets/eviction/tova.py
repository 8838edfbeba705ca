"""TOVA: the tokens that the last query attends to."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.attention import attention_weights
from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction.base import Scorer


@dataclass(frozen=True)
class TOVA(Scorer):
    """score_i = softmax_i of the last query, mean over the group (Oren et al., arXiv 2401.06104). Cost O(group n d).

    kvpress averages over all heads of a layer; here a KV head has its own tokens. The last query sees every
    token.
    """

    needs_queries: ClassVar[bool] = True

    def scores(self, request: Request) -> Tensor:
        last = request.asked[..., -1:, :]
        return attention_weights(last, request.cache.keys).mean(dim=(-3, -2))
