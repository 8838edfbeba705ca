"""Takes the Gram-Schmidt walk's steps as torch operations: all heads in step, on any device, with delayed downdates."""

import torch
from torch import Tensor

_COMPACT = 0.8  # dead columns are dropped once fewer than this share of the columns is alive


class WalkLoop:
    """State of one batched walk: the inverse of the alive part of the Gram matrix, short of `used` pending downdates.

    Columns are those of the tokens not yet dropped. A dead one has alive = 0 and x = 0 until the next compaction.
    """

    def __init__(
        self, gram: Tensor, x: Tensor, place: Tensor, ridge: float, exact: bool, block: int, freeze: float
    ) -> None:
        self.exact, self.block, self.used, self.freeze = exact, block, 0, freeze
        alive = x.abs() < 1 - freeze
        self.result = torch.where(alive, x, x.sign())
        self.x = x * alive
        self.alive = alive.to(x.dtype)
        self.left = alive.sum(-1)  # [H]
        self.token = torch.arange(x.shape[-1], device=x.device).repeat(x.shape[0], 1)  # of each column
        self.heads = torch.arange(x.shape[0], device=x.device)
        # u minimises u^T A u with u_p = 1 where u is along column p of A^-1: so the walk keeps an inverse, not A
        self.inverse = _inverse(gram, alive, ridge)
        self.row_sums = (self.inverse @ self.alive.unsqueeze(-1)).squeeze(-1) * self.alive
        self.pending = x.new_zeros(x.shape[0], block, x.shape[-1])  # rows w: the inverse is less sum of w w^T
        self.place = place
        self.pivot = self._first()
        self.column = self._column(self.pivot)

    def run(self, uniforms: Tensor) -> Tensor:
        """Returns which tokens are kept, ``[H, n]``; one column of `uniforms` a step."""
        for uniform in uniforms.unbind(-1):
            if not self.move(uniform):
                break
        return self.result > 0

    def move(self, uniform: Tensor) -> bool:
        """Takes one step in every head; returns False once every token is frozen."""
        most = int(self.left.max())
        if most == 0:
            return False
        if most < _COMPACT * self.x.shape[-1]:
            self._compact(most)
        u = self._direction()
        up, down = reach(self.x, u)
        delta = torch.where(uniform * (up + down) < down, up, -down)
        # with the sum fixed, the last token alone has nowhere to go: it is at an end already, up to rounding
        stuck = self.left <= int(self.exact)
        self.x = self.x + torch.where(stuck, torch.zeros_like(delta), delta).unsqueeze(-1) * u
        frozen = self.x.abs() >= 1 - self.freeze
        if bool(stuck.any()):
            frozen = frozen | ((self.alive > 0) & stuck.unsqueeze(-1))
        self._freeze(frozen)
        return True

    def _direction(self) -> Tensor:
        u = self.column
        if self.exact:
            # sum u = 0 takes off a multiple of A^-1 1, the row sums, that cancels the column's own sum
            share = self._at(self.row_sums, self.pivot) / self.row_sums.sum(-1)
            u = torch.addcmul(u, share.unsqueeze(-1), self.row_sums, value=-1)
        scale = self._at(u, self.pivot).reciprocal().nan_to_num(0.0, 0.0, 0.0)  # a finished head divides by 0
        return (u * scale.unsqueeze(-1)).mul_(self.alive)

    def _freeze(self, frozen: Tensor) -> None:
        counts = frozen.sum(-1)
        self.left = self.left - counts
        most = int(counts.max())
        flags = frozen.to(torch.uint8)
        # one token a head freezes in most steps, and argmax finds it without a sort
        order = flags.argmax(dim=-1, keepdim=True) if most == 1 else flags.topk(most, dim=-1).indices
        for index in order.unbind(-1):
            self._drop(index, self._at(frozen, index))
        # the pivot stays until it freezes: this is what makes the walk's covariance bound hold
        moved = self._at(self.alive, self.pivot) == 0
        if bool(moved.any()):
            self.pivot = torch.where(moved, self._first(), self.pivot)
            self.column = torch.where(moved.unsqueeze(-1), self._column(self.pivot), self.column)

    def _drop(self, index: Tensor, active: Tensor) -> None:
        """Freezes token `index` of each `active` head: out of the inverse by a rank-one downdate, kept pending."""
        column = self._column(index)
        root = self._at(column, index).clamp_min(1e-300).rsqrt() * active
        w = column * root.unsqueeze(-1)
        # what the next direction reads is brought up to date at once; the inverse waits for many rows
        self.row_sums = torch.addcmul(self.row_sums, w, (self._at(self.row_sums, index) * root).unsqueeze(-1), value=-1)
        self.column = torch.addcmul(self.column, w, self._at(w, self.pivot).unsqueeze(-1), value=-1)
        self.pending[:, self.used] = w
        self.used += 1
        if self.used == self.block:
            self._apply()
        token = self._at(self.token, index)
        self.result[self.heads, token] = torch.where(
            active, self._at(self.x, index).sign(), self._at(self.result, token)
        )
        for rows in (self.x, self.alive):
            rows[self.heads, index] *= ~active

    def _apply(self) -> None:
        pending = self.pending[:, : self.used]
        self.inverse.baddbmm_(pending.mT, pending, alpha=-1)
        self.used = 0

    def _compact(self, width: int) -> None:
        """Keeps `width` columns a head, the alive ones first; then applies what is pending to the smaller matrix."""
        keep = self.alive.sort(dim=-1, descending=True, stable=True).indices[:, :width]
        self.inverse = _stack(
            [m.index_select(0, k).index_select(1, k) for m, k in zip(self.inverse, keep, strict=True)]
        )
        self.pending = _stack([w[:, k] for w, k in zip(self.pending, keep, strict=True)])
        rows = (self.x, self.alive, self.token, self.place, self.row_sums, self.column)
        self.x, self.alive, self.token, self.place, self.row_sums, self.column = (row.gather(-1, keep) for row in rows)
        self.pivot = self._first()
        self._apply()

    def _first(self) -> Tensor:
        """Finds the alive column of the lowest place."""
        return self.place.masked_fill(self.alive == 0, torch.iinfo(self.place.dtype).max).argmin(-1)

    def _column(self, index: Tensor) -> Tensor:
        base = self.inverse[self.heads, index]  # a row, for the inverse is symmetric
        if self.used == 0:
            return base
        pending = self.pending[:, : self.used]
        return torch.baddbmm(base.unsqueeze(1), pending[self.heads, :, index].unsqueeze(1), pending, alpha=-1).squeeze(
            1
        )

    def _at(self, rows: Tensor, index: Tensor) -> Tensor:
        return rows[self.heads, index]


def _stack(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0)


def reach(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Finds how far x can go along u and -u before a coordinate leaves [-1, 1]; one with u = 0 sets no limit."""
    inverse = u.reciprocal().nan_to_num_(0.0, 1e300, -1e300)
    size, shift = inverse.abs(), x * inverse
    return (size - shift).amin(-1).clamp_min_(0), (size + shift).amin(-1).clamp_min_(0)


def _inverse(gram: Tensor, alive: Tensor, ridge: float) -> Tensor:
    """Inverts the alive part of `gram` plus the ridge; the frozen part is set to the identity."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    # the ridge is in units of the alive diagonal: frozen tokens must not change a walk they take no part in
    count = alive.sum(-1).clamp_min(1)
    level = (diagonal * alive).sum(-1) / count  # [H], the mean alive diagonal
    level = torch.where(level > 0, level, torch.ones_like(level))
    if not bool(alive.all()):
        # heads may differ in how many are alive: rows of the identity leave the others' inverse as it is
        gram.mul_(alive.unsqueeze(-1)).mul_(alive.unsqueeze(-2))
        diagonal.add_((~alive) * level.unsqueeze(-1))
    diagonal.add_(ridge * level.unsqueeze(-1))
    factor, failed = torch.linalg.cholesky_ex(gram)
    if bool(failed.any()):
        raise RuntimeError(f"the Gram matrix is not positive definite with ridge {ridge}; raise the ridge")
    return torch.cholesky_inverse(factor)
