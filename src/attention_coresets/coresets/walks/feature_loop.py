"""Takes the feature walk's steps as torch operations: all heads in step, on any device.

As in walk_loop.py each step drops exactly one token a head. Between two fresh inverses nothing waits for the device.
"""

import torch
from torch import Tensor

from attention_coresets.coresets.walks.walk_loop import outcome, reach


class FeatureLoop:
    """State of one batched walk: rows in the order in which they become pivots, and the small inverse without a pivot.

    A dropped row has alive = 0 and x = 0 until the next `refresh` takes it away. A head that has `left` tokens at the
    start is done after as many steps, and nothing that it holds later is read.
    """

    def __init__(self, features: Tensor, x: Tensor, ridge: Tensor, place: Tensor, exact: bool, freeze: float) -> None:
        self.exact, self.freeze, self.ridge = exact, freeze, ridge[:, None, None]
        self.start, self.token = x, place.argsort(dim=-1)
        self.x = x.gather(-1, self.token)
        self.rows = features.gather(1, self.token.unsqueeze(-1).expand_as(features))
        alive = self.x.abs() < 1 - freeze
        self.left = alive.sum(-1, keepdim=True)  # [H, 1], at the start
        self.most = int(self.left.max())
        self.x, self.alive = self.x * alive, alive.to(x.dtype)
        self.dropped: list[tuple[Tensor, Tensor]] = []  # at each step: the tokens [H, 1], where they ended
        self.heads = torch.arange(len(x), device=x.device).unsqueeze(-1)
        self.moves = torch.zeros_like(self.heads)  # of each head so far: one uniform each
        self.free = torch.ones_like(self.heads, dtype=torch.bool)  # [H, 1], no frozen token waits to be dropped

    def run(self, uniforms: Tensor, refactor: int) -> Tensor:
        """Returns which tokens are kept, ``[H, n]``; one column of `uniforms` a move."""
        for step in range(self.most):
            if step % refactor == 0:
                self._refresh(self.most - step)
            self._move(uniforms, step)
            self._drop(step)
        return outcome(self.start, self.left, self.dropped)

    def _refresh(self, width: int) -> None:
        """Keeps `width` rows a head and inverts M anew, M = ridge I + sum of x x^T over alive rows but the pivot's."""
        keep = self.alive.sort(dim=-1, descending=True, stable=True).indices[:, :width]
        self.x, self.alive, self.token = (y.gather(-1, keep) for y in (self.x, self.alive, self.token))
        self.rows = self.rows.gather(1, keep.unsqueeze(-1).expand(-1, -1, self.rows.shape[-1]))
        self.pivot = self.alive.argmax(-1, keepdim=True)
        self.others = self.alive.scatter(-1, self.pivot, 0.0)
        others = self.rows * self.others.unsqueeze(-1)
        self.total = others.sum(1, keepdim=True)  # [H, 1, r]
        small = others.mT @ others
        small.diagonal(dim1=-2, dim2=-1).add_(self.ridge.squeeze(-1))
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(small))

    def _move(self, uniforms: Tensor, step: int) -> None:
        """Moves x along the direction to one of its ends, in every head without frozen tokens."""
        u = self._direction()
        up, down = reach(self.x, u)
        delta = torch.where(uniforms.gather(-1, self.moves) * (up + down) < down, up, -down)
        # with the sum fixed, the last token alone has nowhere to go: it is at an end already, up to rounding
        free = self.free & (self.left > step + int(self.exact))
        self.x = torch.where(free, torch.addcmul(self.x, delta, u), self.x)
        self.moves += free

    def _direction(self) -> Tensor:
        """Computes -X M^-1 x_p off the pivot, 1 at it; if exact, plus the multiple of 1 - X M^-1 s for a sum of 0."""
        pivot = self.rows[self.heads, self.pivot]  # [H, 1, r]
        sides = torch.cat([pivot, self.total], dim=1) @ self.inverse  # [H, 2, r]
        along, ones = (self.rows @ sides.mT).unbind(-1)
        u = (along * -self.others).scatter_(-1, self.pivot, 1.0)
        if self.exact:
            b = (1 - ones) * self.others
            u.addcmul_(u.sum(-1, keepdim=True) / b.sum(-1, keepdim=True), b, value=-1)
        return u

    def _drop(self, step: int) -> None:
        """Takes the token nearest to an end out of every head; where a move froze several, the others wait."""
        near = torch.addcmul(self.alive, self.x, self.x)  # 1 + x^2, and 0 of a dropped row
        index = near.argmax(-1, keepdim=True)
        self.dropped.append((self.token.gather(-1, index), self.x.gather(-1, index)))
        self.free = near.scatter_(-1, index, 0.0).amax(-1, keepdim=True) < 1 + (1 - self.freeze) ** 2
        for rows in (self.x, self.alive, self.others):
            rows.scatter_(-1, index, 0.0)
        before, self.pivot = self.pivot, self.alive.argmax(-1, keepdim=True)
        self.others.scatter_(-1, self.pivot, 0.0)
        # M holds no pivot: it loses the token, or the next pivot in place of a pivot that is gone
        leaving = torch.where(index == before, self.pivot, index)
        self._remove(leaving, self.left > step + 1)

    def _remove(self, index: Tensor, active: Tensor) -> None:
        """Takes row `index` of each `active` head out of M (Sherman and Morrison) and of `total`."""
        row = self.rows[self.heads, index] * active.unsqueeze(-1)  # [H, 1, r]
        z = row @ self.inverse
        scale = (1 - (z * row).sum(-1, keepdim=True)).clamp_min(1e-15).reciprocal()
        self.inverse.baddbmm_(z.mT * scale, z)
        self.total -= row
