"""Kernel swaps: takes each kept token out and puts the best one in, the refinement of kernel thinning (KT-SWAP)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.compiled import compiled_module, runs_compiled

_fast = compiled_module("attention_coresets.coresets.kernel.kernel_swaps_compiled")
swap = _fast.swap if _fast else None  # None without numba: the torch loop below does the same, slower
TIE = 1e-11  # of the largest inner product: a gain this small is none


def kernel_swaps(
    gram: Float[Tensor, "H n n"], kept: Bool[Tensor, "H n"], target: Float[Tensor, "H n"]
) -> Bool[Tensor, "H n"]:
    """Lowers |t - sum of g_i over the kept|^2 by swaps: g_i is token i's weighted feature, t the sum to reach.

    In one pass each kept token in turn, in order of index, is taken out, and the token that leaves the least distance
    is put in. That is the token itself where nothing beats it, and otherwise the first of equal ones. The distance
    never rises, and no token is kept twice.

    Cost: O(n m) a head, and O(n^2) to begin. `swaps_by_rows` needs no matrix.

    Source: Dwivedi and Mackey 2021.

    Parameters
    ----------
    gram : Float[Tensor, "H n n"]
        <g_i, g_j> (`balancing_gram` of kernel/law.py).
    kept : Bool[Tensor, "H n"]
        As many tokens in every head.
    target : Float[Tensor, "H n"]
        <g_i, t>: sum_j pi_j gram_ij for the whole cache's t = sum_j pi_j g_j.

    Returns
    -------
    Bool[Tensor, "H n"]
        As many kept tokens as before.

    Raises
    ------
    ValueError
        For sizes that differ between heads.
    """
    sizes = kept.sum(-1)
    if not bool((sizes == sizes[:1]).all()):
        raise ValueError(f"kernel swaps need one size for all heads, got {sizes.tolist()}; give heads one by one")
    kept = kept.clone()
    inner = (gram @ kept.to(gram.dtype).unsqueeze(-1)).squeeze(-1)  # [H, n], <g_i, the coreset>
    diagonal = gram.diagonal(dim1=-2, dim2=-1).contiguous()
    tie = TIE * (diagonal.amax(-1) + target.abs().amax(-1))
    tokens = kept.nonzero()[:, 1].reshape(len(kept), -1)  # [H, m]
    if runs_compiled(swap, gram):
        for h in range(len(gram)):
            g, diag, products, mask, aim = (x[h].numpy() for x in (gram, diagonal, inner, kept, target))
            swap(g, diag, products, mask, aim, float(tie[h]), tokens[h].numpy())
    else:
        _pass(gram, diagonal, inner, kept, target, tie, tokens)
    return kept


def _pass(
    gram: Tensor, diagonal: Tensor, inner: Tensor, kept: Tensor, target: Tensor, tie: Tensor, tokens: Tensor
) -> None:
    """Does `swap` of kernel_swaps_compiled.py for all heads at once; `inner` and `kept` change in place."""
    heads = torch.arange(len(gram), device=gram.device)
    for token in tokens.unbind(-1):
        best = swapped(token, gram[heads, token], diagonal, inner, kept, target, tie)
        inner += gram[heads, best]


def swapped(
    token: Tensor, row: Tensor, diagonal: Tensor, inner: Tensor, kept: Tensor, target: Tensor, tie: Tensor
) -> Int[Tensor, "H"]:
    """Takes out a token of each head, puts in the best one and returns it; `row` [H, n] is the token's of the matrix.

    `kept` changes in place, and `inner` but for the row of the token put in.
    """
    heads = torch.arange(len(kept), device=kept.device)
    kept[heads, token] = False
    inner -= row
    cost = (diagonal - 2 * (target - inner)).masked_fill_(kept, torch.inf)
    limit = cost.amin(-1) + tie
    first = (cost <= limit.unsqueeze(-1)).to(torch.uint8).argmax(-1)
    best = torch.where(cost[heads, token] > limit, first, token)
    kept[heads, best] = True
    return best
