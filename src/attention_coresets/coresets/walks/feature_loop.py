"""Takes the feature walk's steps as torch operations: all heads in step, on any device."""

import torch
from torch import Tensor

from attention_coresets.coresets.walks.walk_loop import reach


class FeatureLoop:
    """State of one batched walk: rows in the order in which they become pivots, and the small inverse without a pivot.

    A frozen row has alive = 0 and x = 0 until the next `refresh` drops it.
    """

    def __init__(self, features: Tensor, x: Tensor, ridge: Tensor, place: Tensor, exact: bool, freeze: float) -> None:
        self.exact, self.freeze, self.ridge = exact, freeze, ridge[:, None, None]
        self.token = place.argsort(dim=-1)
        self.x = x.gather(-1, self.token)
        self.rows = features.gather(1, self.token.unsqueeze(-1).expand_as(features))
        self.alive = self.x.abs() < 1 - freeze
        self.x = self.x * self.alive
        self.result = x.sign()
        self.heads = torch.arange(len(x), device=x.device)

    def run(self, uniforms: Tensor, refactor: int) -> Tensor:
        """Returns which tokens are kept, ``[H, n]``; one column of `uniforms` a step."""
        for step, uniform in enumerate(uniforms.unbind(-1)):
            if step % refactor == 0 and not self.refresh():
                break
            self.move(uniform)
        return self.result > 0

    def refresh(self) -> bool:
        """Drops frozen rows and inverts M anew, M = ridge I + sum of x x^T over alive rows but the pivot's."""
        width = int(self.alive.sum(-1).max())
        keep = self.alive.sort(dim=-1, descending=True, stable=True).indices[:, :width]
        self.x, self.alive, self.token = (y.gather(-1, keep) for y in (self.x, self.alive, self.token))
        self.rows = self.rows.gather(1, keep.unsqueeze(-1).expand(-1, -1, self.rows.shape[-1]))
        if width == 0:
            return False
        self.pivot = self.alive.int().argmax(-1)
        others = self.rows * self._others().unsqueeze(-1)
        self.total = others.sum(1, keepdim=True)  # [H, 1, r]
        small = others.mT @ others
        small.diagonal(dim1=-2, dim2=-1).add_(self.ridge.squeeze(-1))
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(small))
        return True

    def move(self, uniform: Tensor) -> None:
        """Takes one step in every head."""
        u = self._direction()
        up, down = reach(self.x, u)
        delta = torch.where(uniform * (up + down) < down, up, -down)
        # with the sum fixed, the last token alone has nowhere to go: it is at an end already, up to rounding
        stuck = (self.alive.sum(-1) <= int(self.exact)).unsqueeze(-1)
        self.x = torch.where(stuck, self.x, self.x + delta.unsqueeze(-1) * u)
        frozen = self.alive & ((self.x.abs() >= 1 - self.freeze) | stuck)
        self.result.scatter_(-1, self.token, torch.where(frozen, self.x.sign(), self.result.gather(-1, self.token)))
        self.alive, self.x = self.alive & ~frozen, self.x * ~frozen
        others = frozen.clone()
        others[self.heads, self.pivot] = False
        for index in others.to(torch.uint8).topk(int(others.sum(-1).max()), dim=-1).indices.unbind(-1):
            self._remove(index, others[self.heads, index])
        moved = ~self.alive[self.heads, self.pivot]
        self.pivot = self.alive.int().argmax(-1)
        self._remove(self.pivot, moved & self.alive.any(-1))

    def _others(self) -> Tensor:
        others = self.alive.clone()
        others[self.heads, self.pivot] = False
        return others

    def _direction(self) -> Tensor:
        """Computes -X M^-1 x_p off the pivot, 1 at it; if exact, plus the multiple of 1 - X M^-1 s for a sum of 0."""
        pivot = self.rows[self.heads, self.pivot].unsqueeze(1)
        sides = torch.cat([pivot, self.total], dim=1) @ self.inverse  # [H, 2, r]
        along, ones = (self.rows @ sides.mT).unbind(-1)
        others = self._others()
        u = torch.where(others, -along, torch.zeros_like(along))
        u[self.heads, self.pivot] = self.alive[self.heads, self.pivot].to(u.dtype)
        if self.exact:
            b = torch.where(others, 1 - ones, torch.zeros_like(ones))
            share = torch.where(others.any(-1), u.sum(-1) / b.sum(-1), 0.0)  # a finished head divides by 0
            u = u - share.unsqueeze(-1) * b
        return u

    def _remove(self, index: Tensor, active: Tensor) -> None:
        """Takes row `index` of each `active` head out of M (Sherman and Morrison) and of `total`."""
        row = (self.rows[self.heads, index] * active.unsqueeze(-1)).unsqueeze(1)  # [H, 1, r]
        z = row @ self.inverse
        scale = (1 - (z * row).sum(-1, keepdim=True)).clamp_min(1e-15).reciprocal()
        self.inverse = torch.baddbmm(self.inverse, z.mT * scale, z)
        self.total = self.total - row
