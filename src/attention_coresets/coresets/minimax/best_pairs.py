"""Finds the best exchange of exchange.py for many heads at once, in torch."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CHUNK = 64  # exchanges that are looked at together


def best_pairs(
    P: Float[Tensor, "H m m"],
    M: Float[Tensor, "H m n"],
    w: Float[Tensor, "H m"],
    r: Float[Tensor, "H n"],
    room: Float[Tensor, "H n"],
    used: Bool[Tensor, "H m"],
    inside: Bool[Tensor, "H n"],
    least_room: float,
    least: Float[Tensor, "H"],
    most: int,
    which: Bool[Tensor, "H"],
) -> tuple[Int[Tensor, "H"], Int[Tensor, "H"], Bool[Tensor, "H"], bool]:
    """Finds what `best_pair` of exchange_compiled.py finds, for the heads in `which`.

    Returns slots and tokens, the heads in which an exchange gains `least`, and whether there is any.
    """
    spread, n = P.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300), M.shape[-1]  # [H, m]
    residual = torch.addcmul(r.unsqueeze(-2), (w / spread).unsqueeze(-1), M)  # [H, m, n], r without the slot's token
    left = torch.addcdiv(room.unsqueeze(-2), M.square(), spread.unsqueeze(-1))
    allowed = (residual > 0) & (left > least_room) & ~inside.unsqueeze(-2)
    step = residual / left
    loss = torch.where(used, w.square() / spread, 0.0)
    net = torch.where(allowed, residual * step, -torch.inf).sub_(loss.unsqueeze(-1)).flatten(1)
    best = net.topk(min(most, net.shape[-1]))
    pairs, gains = best.indices, best.values > least.unsqueeze(-1)  # [H, most]
    searched, found, place, some = which, torch.zeros_like(which), torch.zeros_like(pairs[:, 0]), False
    # gains are compared first, for whether weights stay positive costs O(m) a pair
    for start in range(0, pairs.shape[-1], _CHUNK):
        part = slice(start, start + _CHUNK)
        steps = step.flatten(1).gather(-1, pairs[:, part])
        fine = gains[:, part] & searched.unsqueeze(-1)
        fine = fine & _stay_positive(P, M, w, used, pairs[:, part] // n, pairs[:, part] % n, steps, spread)
        hit = fine.any(-1)
        place = torch.where(hit, start + fine.to(torch.uint8).argmax(-1), place)
        found, searched = found | hit, searched & ~hit & gains[:, part][:, -1]
        # both answers at once: for each the host would wait for the device
        some, more = torch.stack([found.any(), searched.any()]).tolist()
        if not more:
            break
    pair = pairs.gather(-1, place.unsqueeze(-1)).squeeze(-1)
    return pair // n, pair % n, found, some


def _stay_positive(
    P: Tensor, M: Tensor, w: Tensor, used: Tensor, i: Tensor, j: Tensor, step: Tensor, spread: Tensor
) -> Bool[Tensor, "H pairs"]:
    """Tells for each pair whether every other weight is positive after that exchange: two rank-one updates of w."""
    m = w.shape[-1]
    rows = P.gather(-2, i.unsqueeze(-1).expand(-1, -1, m)) / spread.gather(-1, i).unsqueeze(-1)  # [H, pairs, m]
    columns = M.gather(-1, j.unsqueeze(-2).expand(-1, m, -1)).mT  # [H, pairs, m]
    drop = w.gather(-1, i) - step * columns.gather(-1, i.unsqueeze(-1)).squeeze(-1)
    after = w.unsqueeze(-2) - rows * drop.unsqueeze(-1) - step.unsqueeze(-1) * columns
    others = used.unsqueeze(-2) & (i.unsqueeze(-1) != torch.arange(m, device=w.device))
    return ((after > 0) | ~others).all(-1)
