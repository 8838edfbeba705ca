"""Exchanges tokens of a subset, all weights refitted after each exchange, for a small mean squared error."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.coresets.minimax.supports import RIDGE, Supports
from attention_coresets.devices import at_once, in_parts

_REFACTOR = 32  # moves between two factorizations: rank-one updates collect rounding errors


def exchange(
    gram: Float[Tensor, "H n n"],
    total: Float[Tensor, "H n"],
    tokens: Int[Tensor, "H m"],
    *,
    moves: int | None = None,
    gain: float = 1e-6,
) -> tuple[Int[Tensor, "H m"], Float[Tensor, "H m"]]:
    """Lowers w^T G w over subsets S of m tokens and weights w > 0 on them with c^T w = 1, from the subset `tokens` on.

    G is `gram`, the error's quadratic form, and c is `total` (query_bank.py has both).

    Best weights. On a fixed S the least value is 1 / tau, with tau = c_S^T P c_S and P = G_SS^-1, and w is along P c_S.
    (A penalty kappa (c^T w - 1)^2 in place of the constraint gives the same direction for every kappa > 0, and the
    value kappa / (1 + kappa tau).) In what follows w = P c_S.

    Best exchange. Taking token i out lowers tau by w_i^2 / P_ii. Putting token j in then raises it by r_j^2 / D_j,
    where r_j = c_j - G_jS w and D_j = G_jj - G_jS P G_Sj, both without i. Of all m x n pairs the best one that keeps
    every weight positive is made, if it is among the 4096 best. Rank-one updates of P and P G_S bring all up to date.

    Before the first exchange, tokens of weight <= 0 are taken out and others put in. Slots that no positive weight can
    fill hold tokens of negligible weight in the end.

    What it ends at is a local optimum: other starts end some per cent apart.

    Cost: O(m n) an exchange, one compiled pass where numba is. 2 n^2 + 8 m n numbers of memory a head: one head at a
    time on the CPU, and on a GPU as many as its memory holds, in step.

    Parameters
    ----------
    gram : Float[Tensor, "H n n"]
        Positive semidefinite. 1e-9 of its mean diagonal is added to its diagonal.
    total : Float[Tensor, "H n"]
    tokens : Int[Tensor, "H m"]
        The subset to begin with.
    moves : int, optional
        Exchanges at most. None: m.
    gain : float
        Stop when no exchange raises tau by this share of it.

    Returns
    -------
    Int[Tensor, "H m"], Float[Tensor, "H m"]
        Tokens, sorted, and weights with c^T w = 1.
    """
    (heads, m), n = tokens.shape, gram.shape[-1]
    moves = m if moves is None else moves
    # on the CPU one by one: each then ends with its own last exchange
    together = at_once(max(n * n, 2 * m * n), gram.device, on_cpu=1)
    found = in_parts(lambda part: _exchange(gram[part], total[part], tokens[part], moves, gain), heads, together)
    chosen, weights = (torch.cat(part) for part in zip(*found, strict=True))
    order = chosen.argsort(dim=-1)
    return chosen.gather(-1, order), weights.gather(-1, order)


def _exchange(gram: Tensor, total: Tensor, tokens: Tensor, moves: int, gain: float) -> tuple[Tensor, Tensor]:
    """Exchanges in all heads of a batch at once; one that is done waits for the others."""
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    errs = level > 0
    # a copy, for the ridge is added in place; in this unit all thresholds are relative
    gram = gram / torch.where(errs, level, 1.0)[:, None, None]
    gram.diagonal(dim1=-2, dim2=-1).add_(RIDGE)
    supports, going = Supports(gram, total, tokens), errs
    supports.repair(going)
    for move in range(moves):
        # rank-one updates drift, and a weight near 0 may have turned negative unseen
        if move % _REFACTOR == _REFACTOR - 1:
            supports.factor()
            supports.repair(going)
        going, some = supports.swap(gain, going)
        if not some:
            break
    chosen, weights = supports.filled(errs)
    # where no error is at all, whatever the weights, the tokens stay
    errs = errs.unsqueeze(-1)
    even = 1 / total.gather(-1, tokens).sum(-1, keepdim=True).clamp_min(1e-300)
    return torch.where(errs, chosen, tokens), torch.where(errs, weights, even)
