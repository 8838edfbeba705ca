"""Takes the Gram-Schmidt walk's steps as torch operations: all heads in step, on any device, with delayed downdates.

No step waits for the device: the host knows how many tokens are left, because each step drops exactly one a head.
"""

import torch
from torch import Tensor

_COMPACT = 0.8  # dead columns are dropped once fewer than this share of the columns is alive


class WalkLoop:
    """State of one batched walk: the inverse of the alive part of the Gram matrix, short of `used` pending downdates.

    Columns are those of the tokens not yet dropped. A dead one has alive = 0 and x = 0 until the next compaction. A
    head that has `left` tokens at the start is done after as many steps, and nothing that it holds later is read.
    ridge None: `gram` is the inverse already.
    """

    def __init__(
        self, gram: Tensor, x: Tensor, place: Tensor, ridge: float | None, exact: bool, block: int, freeze: float
    ) -> None:
        self.exact, self.block, self.used, self.freeze = exact, block, 0, freeze
        alive = x.abs() < 1 - freeze
        self.left = alive.sum(-1, keepdim=True)  # [H, 1], at the start
        fewest, self.most = torch.stack(self.left.aminmax()).tolist()
        self.start, self.x, self.alive = x, x * alive, alive.to(x.dtype)
        self.token = torch.arange(x.shape[-1], device=x.device).repeat(x.shape[0], 1)  # of each column
        self.dropped: list[tuple[Tensor, Tensor]] = []  # at each step: the tokens [H, 1], where they ended
        self.heads = torch.arange(x.shape[0], device=x.device).unsqueeze(-1)
        self.moves = torch.zeros_like(self.heads)  # of each head so far: one uniform each
        self.free = torch.ones_like(self.heads, dtype=torch.bool)  # [H, 1], no frozen token waits to be dropped
        # u minimises u^T A u with u_p = 1 where u is along column p of A^-1: so the walk keeps an inverse, not A
        partial = fewest < x.shape[-1]
        self.inverse = gram if ridge is None else alive_inverse(gram, alive, ridge, partial=partial)
        self.pending = x.new_zeros(x.shape[0], block, x.shape[-1])  # rows w: the inverse is less sum of w w^T
        self.place = place.masked_fill(~alive, _dead(place))
        self.pivot = self.place.argmin(-1, keepdim=True)
        row_sums = self.inverse @ self.alive.unsqueeze(-1)
        self.rows = torch.cat([self._columns(self.pivot), row_sums.mT], dim=1)  # [H, 2, columns]

    def run(self, uniforms: Tensor) -> Tensor:
        """Returns which tokens are kept, ``[H, n]``; one column of `uniforms` a move."""
        for step in range(min(self.most, uniforms.shape[-1])):
            if self.most - step < _COMPACT * self.x.shape[-1]:
                self._compact(self.most - step)
            self._move(uniforms, step)
            self._drop()
        return outcome(self.start, self.left, self.dropped)

    def _move(self, uniforms: Tensor, step: int) -> None:
        """Moves x along the direction to one of its ends, in every head without frozen tokens."""
        u = self._direction()
        up, down = reach(self.x, u)
        uniform = uniforms.gather(-1, self.moves)
        delta = torch.where(uniform * (up + down) < down, up, -down)
        # with the sum fixed, the last token alone has nowhere to go: it is at an end already, up to rounding
        free = self.free & (self.left > step + int(self.exact))
        self.x = torch.where(free, torch.addcmul(self.x, delta, u), self.x)
        self.moves += free

    def _direction(self) -> Tensor:
        """Returns a direction along which x may move, up to its length."""
        column, row_sums = self.rows.unbind(1)
        if self.exact:
            # sum u = 0 takes off a multiple of A^-1 1, the row sums, that cancels the column's own sum
            share = row_sums.gather(-1, self.pivot) / row_sums.sum(-1, keepdim=True)
            column = torch.addcmul(column, share, row_sums, value=-1)
        return column * self.alive

    def _drop(self) -> None:
        """Takes the token nearest to an end out of every head: out of the inverse by a rank-one downdate, pending.

        Where a move froze several, the others wait, one for each of the next steps.
        """
        near = torch.addcmul(self.alive, self.x, self.x)  # 1 + x^2, and 0 of a dead column
        index = near.argmax(-1, keepdim=True)
        self.dropped.append((self.token.gather(-1, index), self.x.gather(-1, index)))
        self.free = near.scatter_(-1, index, 0.0).amax(-1, keepdim=True) < 1 + (1 - self.freeze) ** 2
        for rows, dead in ((self.x, 0.0), (self.alive, 0.0), (self.place, _dead(self.place))):
            rows.scatter_(-1, index, dead)
        # the pivot stays until it freezes: this is what makes the walk's covariance bound hold
        self.pivot = self.place.argmin(-1, keepdim=True)
        columns = self._columns(torch.cat([index, self.pivot], dim=-1))
        # what the next direction reads is brought up to date at once; the inverse waits for many rows
        self.rows = torch.stack([columns[:, 1], self.rows[:, 1]], dim=1)
        root = columns[:, 0].gather(-1, index).clamp_min_(1e-300).rsqrt_()
        w = torch.mul(columns[:, 0], root, out=self.pending[:, self.used])
        along = self.rows.gather(-1, index.unsqueeze(1).expand(-1, 2, -1)) * root.unsqueeze(1)
        self.rows.addcmul_(w.unsqueeze(1), along, value=-1)
        self.used += 1
        if self.used == self.block:
            self._apply()

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
        rows = (self.x, self.alive, self.token, self.place)
        self.x, self.alive, self.token, self.place = (row.gather(-1, keep) for row in rows)
        self.rows = self.rows.gather(-1, keep.unsqueeze(1).expand(-1, 2, -1))
        self.pivot = self.place.argmin(-1, keepdim=True)
        self._apply()

    def _columns(self, index: Tensor) -> Tensor:
        """Returns columns `index` ``[H, k]`` of the inverse, pending downdates taken off: ``[H, k, columns]``."""
        base = self.inverse[self.heads, index]  # rows, for the inverse is symmetric
        if self.used == 0:
            return base
        pending = self.pending[:, : self.used]
        return base.baddbmm_(pending.mT[self.heads, index], pending, alpha=-1)


def _dead(place: Tensor) -> int:
    """Returns the place of a dead column, behind all others."""
    return torch.iinfo(place.dtype).max


def _stack(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0)


def outcome(start: Tensor, left: Tensor, dropped: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Returns which tokens end above 0 ``[H, n]``: each at its end where it was dropped, others where they started.

    Of a head's entries of `dropped` only the first `left` ``[H, 1]`` count.
    """
    if not dropped:
        return start > 0
    tokens, ends = (torch.cat(part, dim=-1) for part in zip(*dropped, strict=True))
    real = torch.arange(tokens.shape[-1], device=tokens.device) < left
    # what does not count goes to a column of its own
    n = start.shape[-1]
    return torch.nn.functional.pad(start, (0, 1)).scatter_(-1, tokens.masked_fill_(~real, n), ends)[:, :n] > 0


def reach(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Finds how far x can go along u and -u before a coordinate leaves [-1, 1]: both ``[H, 1]``, positive for |x| < 1.

    A coordinate with u = 0 sets no limit.
    """
    inverse = u.reciprocal().nan_to_num_(0.0, 1e300, -1e300)
    size, shift = inverse.abs(), x * inverse
    return (size - shift).amin(-1, keepdim=True), (size + shift).amin(-1, keepdim=True)


def alive_inverse(gram: Tensor, alive: Tensor, ridge: float, partial: bool) -> Tensor:
    """Inverts the alive part of `gram` plus the ridge; where `partial`, the frozen part is set to the identity."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    # the ridge is in units of the alive diagonal: frozen tokens must not change a walk they take no part in
    count = alive.sum(-1).clamp_min(1)
    level = (diagonal * alive).sum(-1) / count  # [H], the mean alive diagonal
    level = torch.where(level > 0, level, torch.ones_like(level))
    if partial:
        # heads may differ in how many are alive: rows of the identity leave the others' inverse as it is
        gram.mul_(alive.unsqueeze(-1)).mul_(alive.unsqueeze(-2))
        diagonal.add_((~alive) * level.unsqueeze(-1))
    diagonal.add_(ridge * level.unsqueeze(-1))
    factor, failed = torch.linalg.cholesky_ex(gram)
    if bool(failed.any()):
        raise RuntimeError(f"the Gram matrix is not positive definite with ridge {ridge}; raise the ridge")
    return torch.cholesky_inverse(factor)
