"""Systematic sampling: exact size, the marginals asked for, one random number."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.coresets.base import kept_tokens
from attention_coresets.coresets.kernel.law import capped_marginals


def systematic(
    marginals: Float[Tensor, "H n"], shift: Float[Tensor, "H"], order: Int[Tensor, "H n"]
) -> Bool[Tensor, "H n"]:
    """Keeps a token where a point of the grid shift, shift + 1, ... falls in its share of the marginals' total.

    The total runs over the tokens in `order`. Marginals are at most 1 and sum to a whole number m; shift is uniform in
    [0, 1). Then m tokens are kept, each with its marginal as probability. Of any run in `order` whose marginals sum to
    s, floor(s) or ceil(s) are kept. Neighbours exclude each other: randomise the order.
    """
    total = marginals.gather(-1, order).cumsum(-1)
    total = total * (total[:, -1:].round() / total[:, -1:])  # the sum is an integer; take away rounding
    before = torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], dim=-1)
    kept = (total - shift.unsqueeze(-1)).ceil() > (before - shift.unsqueeze(-1)).ceil()
    return kept.new_zeros(kept.shape).scatter_(-1, order, kept)


def weighted_draws(
    log_p: Float[Tensor, "H n"], size: int, shift: Float[Tensor, "H"], order: Int[Tensor, "H n"]
) -> tuple[Int[Tensor, "H m"], Float[Tensor, "H m"]]:
    """Draws `size` tokens at marginals pi = min(1, c p), with log-weights -log pi, which make every sum unbiased."""
    marginals = capped_marginals(log_p, size)
    kept = systematic(marginals, shift, order)
    tokens = kept_tokens(kept, size)
    return tokens, -marginals.gather(-1, tokens).clamp_min(1e-300).log()
