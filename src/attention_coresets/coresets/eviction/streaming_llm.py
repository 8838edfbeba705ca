"""StreamingLLM: the first tokens of the text and the most recent ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.checks import not_negative
from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction.base import Scorer


@dataclass(frozen=True)
class StreamingLLM(Scorer):
    """Keeps the first `sinks` tokens of the text, which draw attention whatever they say, and the most recent ones.

    The paper also renumbers the kept tokens before it rotates them, which is no matter of choosing them. Here positions
    are the text's.

    sinks: how many first tokens.

    Cost: O(n log n) a head.

    Source: Xiao et al., arXiv 2309.17453.
    """

    sinks: int = 4
    needs_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        not_negative(sinks=self.sinks)

    def scores(self, request: Request) -> Tensor:
        return request.rank.to(torch.float64)
