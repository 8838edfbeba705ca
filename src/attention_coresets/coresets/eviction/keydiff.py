"""KeyDiff: the keys least like the mean direction of the keys."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from attention_coresets.coresets.base import Request
from attention_coresets.coresets.eviction.base import Scorer


@dataclass(frozen=True)
class KeyDiff(Scorer):
    """Keeps the tokens whose keys are least like the others.

    score_i = -cos(k_i, mean_j k_j / |k_j|). Directions are taken about the origin of the keys given: those of a model
    as it computes them.

    Cost: O(n d) a head.

    Source: Park et al., arXiv 2504.15364.
    """

    def scores(self, request: Request) -> Tensor:
        keys = request.cache.keys
        anchor = normalize(keys, dim=-1).mean(dim=-2, keepdim=True)  # [*heads, 1, d]
        return -cosine_similarity(keys, anchor, dim=-1)
