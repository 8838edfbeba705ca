"""Knorm: the keys of smallest norm."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.eviction.scores import check_request, top_scores
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class Knorm:
    """score_i = -|k_i| (Devoto et al., arXiv 2406.11430): in language models keys of small norm draw much attention.

    Norms are taken about the origin of the keys given: those of a model as it computes them. Cost O(n d).
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
        return top_scores(-cache.keys.norm(dim=-1), size)
