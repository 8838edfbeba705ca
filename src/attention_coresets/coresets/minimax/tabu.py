"""Tabu search for a subset of small energy x^T G x: exchanges that go on after the first local optimum."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_TENURE = 20  # moves at most, and half as many at least, that an exchanged token must stay where it is
_SAME = 1e-12  # of the energy: less is no improvement


def tabu_search(
    gram: Float[Tensor, "n n"], kept: Bool[Tensor, "S n"], moves: int, uniforms: Float[Tensor, "S 2 moves"]
) -> tuple[Bool[Tensor, "S n"], Float[Tensor, "S"]]:
    """Lowers sum_{i, j kept} G_ij from each of S subsets, all side by side, and returns the best of each on its way.

    A move takes out the token that leaves the least energy and puts in the one that then adds the least, whether or
    not the energy falls. A token that was put in may not leave again for 10 to 20 moves, nor one that was taken out
    come back, and so the search leaves a local optimum. It is for fewer moves where that would hold more than half of
    the kept tokens, or of the others.

    Cost: S n numbers read and written some ten times a move, and 2 S rows of G; O(S n m) to begin.

    Source: Glover 1989 (tabu search).

    Parameters
    ----------
    gram : Float[Tensor, "n n"]
        Symmetric.
    kept : Bool[Tensor, "S n"]
        Subsets to begin with, all of one size m, 1 <= m < n.
    moves : int
        Exchanges, each of one token for another.
    uniforms : Float[Tensor, "S 2 moves"]
        In [0, 1): how long the two tokens of each move must stay.

    Returns
    -------
    Bool[Tensor, "S n"], Float[Tensor, "S"]
        The best subsets and their energies, none above that of its start.
    """
    rows = torch.arange(len(kept), device=gram.device)
    size = int(kept[0].sum())
    # half of each side must always be free, or there would be nothing to choose
    room = torch.tensor([[size - 1], [kept.shape[-1] - size - 1]], device=gram.device) // 2
    most = room.clamp_max(_TENURE)
    stay = most // 2 + (uniforms * (most - most // 2 + 1)).floor().to(torch.int64)  # [S, 2, moves]
    diagonal, kept = gram.diagonal(), kept.clone()
    slope = kept.to(gram.dtype) @ gram  # [S, n], sum_j kept G_ij
    energy = (slope * kept).sum(-1)
    best, least = kept.clone(), energy.clone()
    until = torch.zeros_like(kept, dtype=torch.int64)  # the first move at which a token may change sides
    for move in range(moves):
        free = until <= move
        leaving = (diagonal - 2 * slope).masked_fill_(~(kept & free), torch.inf).min(-1)
        i = leaving.indices
        slope -= gram[i]
        coming = (diagonal + 2 * slope).masked_fill_(~free | kept, torch.inf).min(-1)
        j = coming.indices
        slope += gram[j]
        kept[rows, i], kept[rows, j] = False, True
        until[rows, i], until[rows, j] = move + 1 + stay[:, 1, move], move + 1 + stay[:, 0, move]
        energy = energy + leaving.values + coming.values
        better = energy < least - _SAME * least.abs()
        best, least = torch.where(better[:, None], kept, best), torch.where(better, energy, least)
    return best, least
