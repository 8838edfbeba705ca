"""TOVA: the tokens that the last query attends to."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, attention_weights
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.eviction.scores import (
    check_queries,
    check_request,
    top_scores,
)
from attention_coresets.coresets.uniforms import Generators


@dataclass(frozen=True)
class TOVA:
    """score_i = softmax_i of the last query, mean over the group (Oren et al., arXiv 2401.06104). Cost O(group n d).

    kvpress averages over all heads of a layer; here a KV head has its own tokens. The last query sees every
    token.
    """

    model: ClassVar[str] = "unweighted"
    model_units: ClassVar[bool] = True
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = False
    agreement: ClassVar[Agreement] = Agreement.TOKENS

    def __call__(
        self,
        cache: Cache,
        size: int,
        rho: float,
        generator: Generators,
        queries: Float[Tensor, "*heads group b d"] | None = None,
        positions: Tensor | None = None,
    ) -> Coreset:
        """Exactly `size` tokens a head. Raises ValueError without queries; positions play no part."""
        check_request(cache, size, rho, generator)
        last = check_queries(queries, cache, "tova")[..., -1:, :]
        return top_scores(attention_weights(last, cache.keys).mean(dim=(-3, -2)), size)
