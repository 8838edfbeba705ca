"""KeyDiff: the keys least like the mean direction of the keys."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.eviction.scores import check_request, top_scores
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class KeyDiff:
    """score_i = -cos(k_i, mean_j k_j / |k_j|) (Park et al., arXiv 2504.15364). Cost O(n d).

    Directions are taken about the origin of the keys given: those of a model as it computes them.
    """

    model: ClassVar[str] = "unweighted"
    model_units: ClassVar[bool] = True
    needs_queries: ClassVar[bool] = False
    needs_positions: ClassVar[bool] = False
    agreement: ClassVar[Agreement] = Agreement.TOKENS

    def __call__(
        self,
        cache: Cache,
        size: int,
        rho: float,
        generator: Generators,
        queries: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Coreset:
        """Exactly `size` tokens a head; only the keys play a part."""
        check_request(cache, size, rho, generator)
        anchor = normalize(cache.keys, dim=-1).mean(dim=-2, keepdim=True)  # [*heads, 1, d]
        return top_scores(-cosine_similarity(cache.keys, anchor, dim=-1), size)
