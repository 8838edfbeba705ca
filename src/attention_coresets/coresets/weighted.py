"""A cache whose tokens stand for many: what a streaming coreset reduces again."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache


@dataclass(frozen=True)
class WeightedCache(Cache):
    """Keys and values of n tokens, token i standing for exp(log_weights_i) equal ones; log_weights ``[*heads, n]``.

    A balancing construction (recursion.py) called with it gives log-weights relative to the tokens stood for, in the
    unweighted model too, where they are all equal unless a weight exceeds the mean weight of the coreset.
    """

    log_weights: Float[Tensor, "*heads n"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log_weights.shape != self.keys.shape[:-1]:
            raise ValueError(
                f"log_weights {tuple(self.log_weights.shape)} must be one a token, {tuple(self.keys.shape[:-1])}"
            )
        if not bool(self.log_weights.isfinite().all()):
            raise ValueError("log_weights hold NaN or Inf")
