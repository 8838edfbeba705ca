"""The soft cap of logits that some models have, such as Gemma 2."""

from torch import Tensor


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """Returns c tanh(logits / c) for a soft cap c, the logits themselves for None."""
    return logits if cap is None else cap * (logits / cap).tanh()
