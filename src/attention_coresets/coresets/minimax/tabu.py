"""Tabu search for a subset of small energy x^T G x: exchanges that go on after the first local optimum."""

import itertools

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.compiled import compiled_module, runs_compiled
from attention_coresets.coresets.minimax.in_step import rows

# None without numba: the torch lines below make the same moves, slower
compiled = compiled_module("attention_coresets.coresets.minimax.tabu_compiled")

_TENURE = 20  # moves at most, and half as many at least, that an exchanged token must stay where it is
_SAME = 1e-12  # of the energy: less is no improvement


def tabu_search(
    gram: Float[Tensor, "H n n"], kept: Bool[Tensor, "H S n"], moves: int, uniforms: Float[Tensor, "H S 2 moves"]
) -> tuple[Bool[Tensor, "H S n"], Float[Tensor, "H S"]]:
    """Lowers sum_{i, j kept} G_ij from each of S subsets a head, all side by side; returns the best of each on its way.

    A move takes out the token that leaves the least energy and puts in the one that then adds the least, whether or
    not the energy falls. A token that was put in may not leave again for 10 to 20 moves, nor one that was taken out
    come back, and so the search leaves a local optimum. It is for fewer moves where that would hold more than half of
    the kept tokens, or of the others.

    Cost: for each head S n numbers read and written some ten times a move, and 2 S rows of G; O(S n m) to begin.

    Source: Glover 1989 (tabu search).

    Parameters
    ----------
    gram : Float[Tensor, "H n n"]
        Symmetric.
    kept : Bool[Tensor, "H S n"]
        Subsets to begin with, all of one size m, 1 <= m < n.
    moves : int
        Exchanges, each of one token for another.
    uniforms : Float[Tensor, "H S 2 moves"]
        In [0, 1): how long the two tokens of each move must stay.

    Returns
    -------
    Bool[Tensor, "H S n"], Float[Tensor, "H S"]
        The best subsets and their energies, none above that of its start.
    """
    size = int(kept[0, 0].sum())
    # half of each side must always be free, or there would be nothing to choose
    room = torch.tensor([[size - 1], [kept.shape[-1] - size - 1]], device=gram.device) // 2
    most = room.clamp_max(_TENURE)
    stay = most // 2 + (uniforms * (most - most // 2 + 1)).floor().to(torch.int64)  # [H, S, 2, moves]
    diagonal, kept = gram.diagonal(dim1=-2, dim2=-1).unsqueeze(-2).contiguous(), kept.clone()
    slope = kept.to(gram.dtype) @ gram  # [H, S, n], sum_j kept G_ij
    energy = (slope * kept).sum(-1)
    if runs_compiled(compiled, gram):
        for h, s in itertools.product(*map(range, energy.shape)):
            tensors = gram[h], diagonal[h, 0], kept[h, s], slope[h, s]
            state = (x.numpy() for x in tensors)
            energy[h, s] = compiled.search(*state, energy[h, s].item(), stay[h, s].numpy(), _SAME)
        return kept, energy
    return _moves(gram, diagonal, kept, slope, energy, stay)


def _moves(
    gram: Tensor, diagonal: Tensor, kept: Tensor, slope: Tensor, energy: Tensor, stay: Tensor
) -> tuple[Tensor, Tensor]:
    """Makes the moves of all searches of all heads side by side."""
    first = gram.shape[-1] * torch.arange(len(gram), device=gram.device).unsqueeze(-1)
    table = gram.flatten(0, 1)  # [H n, n]
    best, least = kept.clone(), energy.clone()
    until = torch.zeros_like(kept, dtype=torch.int64)  # the first move at which a token may change sides
    for move in range(stay.shape[-1]):
        free = until <= move
        leaving = (diagonal - 2 * slope).masked_fill_(~(kept & free), torch.inf).min(-1, keepdim=True)
        i = leaving.indices
        slope -= rows(i.squeeze(-1) + first, table)[0]
        coming = (diagonal + 2 * slope).masked_fill_(~free | kept, torch.inf).min(-1, keepdim=True)
        j = coming.indices
        slope += rows(j.squeeze(-1) + first, table)[0]
        kept.scatter_(-1, i, False).scatter_(-1, j, True)
        out, back = (move + 1 + stay[..., side, move].unsqueeze(-1) for side in (1, 0))
        until.scatter_(-1, i, out).scatter_(-1, j, back)
        energy = energy + (leaving.values + coming.values).squeeze(-1)
        better = energy < least - _SAME * least.abs()
        best, least = torch.where(better.unsqueeze(-1), kept, best), torch.where(better, energy, least)
    return best, least
