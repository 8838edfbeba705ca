"""Keeps the same coordinates in clusters whose signs balance: it attains bound (iv) of signed clusters."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.coresets.base import Construction, Request, kept_tokens
from attention_coresets.lower_bound import signed_clusters_layout


@dataclass(frozen=True)
class CoordinateSubset(Construction):
    """Keeps k = size / clusters tokens of every cluster of a signed-clusters cache, those of `coordinates`.

    The kept signs of each coordinate balance, so that at every centre the error is exactly bound (iv) of
    docs/lower_bound.md, A sqrt(d (n - m) / m): no coreset of as many tokens that weighs clusters alike does better.

    Cost: O(n (d + log n)) a head. No random numbers are drawn.

    Raises ValueError for a cache other than signed clusters, and a size that is no multiple of its clusters.
    """

    model: ClassVar[str] = "unweighted"

    def choose(self, request: Request) -> Coreset:
        layout = signed_clusters_layout(request.cache)
        r, d = layout.signs.shape[-2:]
        if request.size % r:
            raise ValueError(f"coordinate_subset keeps as many tokens of each of {r} clusters, got size {request.size}")
        kept = coordinates(layout.signs, request.size // r).flatten(-2)  # [*heads, r * d]
        kept = kept.gather(-1, layout.cluster * d + layout.coordinate)  # [*heads, n]
        return Coreset(kept_tokens(kept.reshape(-1, kept.shape[-1]), request.size).reshape(*kept.shape[:-1], -1))


def coordinates(signs: Float[Tensor, "*heads r d"], k: int) -> Bool[Tensor, "*heads r d"]:
    """Chooses k coordinates of each cluster such that the signs kept of each coordinate sum to 0.

    They are the first k, in every cluster: as good as any others for random signs, and whole copies of the simplex
    where k is a multiple of clusters - 1.

    Not so for pairs +-h_i of rows i of a Hadamard matrix (`signs="hadamard"`), where a pair balances by itself: with k
    a power of two, pair i keeps the block of coordinates l // k = gray(i // k), gray(v) = v XOR v // 2. For rows
    i < 4 k, so for clusters <= 8 k, the errors that two pairs cause are then orthogonal. With u = i XOR i' the product
    of the signs sums to 0 on every block, or is constant there, +-1, and of opposite sign on the blocks of the two:
    u // k and gray(u // k) have an odd number of 1 bits in common for u // k = 1, 2, 3. Pairs i < k keep the first k.

    Cost: O(r^2 d) a head.
    """
    d = signs.shape[-1]
    column = torch.arange(d, device=signs.device)
    first = (column < k).expand(signs.shape)
    if d & (d - 1) or k & (k - 1):
        return first
    # as columns have random signs, rows are known up to XOR with the first cluster's, which changes nothing
    bit = 2 ** torch.arange(d.bit_length() - 1, device=signs.device)
    relative = signs * signs[..., :1, :]
    row = ((relative[..., bit] != relative[..., :1]) * bit).sum(dim=-1)  # [*heads, r]
    block = row // k
    own = column // k == (block ^ block // 2).unsqueeze(-1)
    products = (signs @ signs.mT).abs()
    pairs = (products * (products - d) == 0).flatten(-2).all(dim=-1)  # rows are equal, opposite or orthogonal
    balanced = ((own * signs).sum(dim=-2) == 0).all(dim=-1)
    return torch.where((pairs & balanced)[..., None, None], own, first)
