"""Subsets of tokens, one a head, with what an exchange of one of their tokens needs (exchange.py)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.compiled import compiled_module, runs_compiled
from attention_coresets.coresets.minimax.best_pairs import best_pairs

# None without numba: the torch lines below make the same exchanges, slower
compiled = compiled_module("attention_coresets.coresets.minimax.exchange_compiled")

RIDGE = 1e-9  # of the mean diagonal: duplicates share their weight
_TRIES = 64  # additions that are looked at, best first, for one that keeps every weight positive
_PAIRS = 4096  # exchanges, likewise
_LEAST_ROOM = 1e-12  # of the mean diagonal
_FLOOR = 1e-13  # of the largest weight: what a token gets that no positive weight makes useful


class Supports:
    """A subset S of tokens for each head, in m slots, some perhaps empty.

    P = G_SS^-1 ``[H, m, m]``, M = P G_S ``[H, m, n]`` and w = P c_S ``[H, m]`` belong to the slots; those of empty
    slots are 0. For all n tokens, s = G_jS P G_Sj and r = c - G_S^T w.

    All heads go in step: `which` ``[H]`` are those that a change is made in. The others keep every bit.
    """

    def __init__(self, gram: Float[Tensor, "H n n"], total: Float[Tensor, "H n"], tokens: Int[Tensor, "H m"]) -> None:
        self.gram, self.total = gram, total
        self.diagonal = gram.diagonal(dim1=-2, dim2=-1)
        self.tokens, self.used = tokens.clone(), torch.ones_like(tokens, dtype=torch.bool)
        self.inside = torch.zeros_like(total, dtype=torch.bool).scatter_(-1, tokens, True)
        self.slots = torch.arange(tokens.shape[-1], device=tokens.device)
        self.first = torch.arange(len(gram), device=gram.device).unsqueeze(-1) * gram.shape[-1]
        self.factor()

    def factor(self) -> None:
        """Computes P and all that follows from it anew."""
        rows, both = self._rows(self.tokens), self.used.unsqueeze(-1) & self.used.unsqueeze(-2)  # [H, m, n], [H, m, m]
        inner = rows.gather(-1, self.tokens.unsqueeze(-2).expand_as(both))
        # empty slots are rows of the identity, so that the others keep their inverse
        inner = torch.where(both, inner, torch.diag_embed((~self.used).to(rows.dtype)))
        # and rows of 0 in the end, so that all shapes stay and updates need no mask
        self.P = torch.cholesky_inverse(_factor(inner)).mul_(both)
        self.M = self.P @ rows
        self.w = (self.P @ self.total.gather(-1, self.tokens).unsqueeze(-1)).squeeze(-1)
        self.s = (rows * self.M).sum(-2)
        self.r = self.total - (self.w.unsqueeze(-2) @ rows).squeeze(-2)

    def _rows(self, tokens: Tensor) -> Tensor:
        """Returns the rows ``[H, k, n]`` of G for tokens ``[H, k]``."""
        rows = self.gram.flatten(0, 1).index_select(0, (self.first + tokens).flatten())
        return rows.view(*tokens.shape, -1)

    def repair(self, which: Bool[Tensor, "H"]) -> None:
        """Takes out tokens without positive weight, one by one, then puts in others while one can."""
        within = which.unsqueeze(-1)
        while True:
            bad = self.used & (self.w <= 0) & within
            # the most negative in units of its own spread, w_i^2 / P_ii being what it is worth
            spread = self.P.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300)
            worth = torch.where(bad, self.w / spread.sqrt(), torch.inf)
            wrong = bad.any(-1)
            # all answers at once: for each the host would wait for the device
            some, gaps = torch.stack([wrong.any(), (within & ~self.used).any()]).tolist()
            if not some:
                break
            self.remove(worth.argmin(-1), wrong)
        while gaps:
            which = self.fill((~self.used).to(torch.uint8).argmax(-1), which & ~self.used.all(-1))
            gaps = bool((which & ~self.used.all(-1)).any())

    def fill(self, slot: Int[Tensor, "H"], which: Bool[Tensor, "H"]) -> Bool[Tensor, "H"]:
        """Makes the best addition that keeps every weight positive; returns where there is one."""
        room = self.diagonal - self.s
        allowed = (self.r > 0) & ~self.inside & (room > _LEAST_ROOM)
        # an addition moves the other weights too: of the best few the first that leaves them positive
        best = torch.where(allowed, self.r.square() / room, -torch.inf).topk(min(_TRIES, room.shape[-1]))
        j = best.indices
        step, M = self.r.gather(-1, j) / room.gather(-1, j), self.M.gather(-1, self._each_slot(j))
        after = self.w.unsqueeze(-1) - step.unsqueeze(-2) * M  # [H, m, tries]
        fine = (best.values > -torch.inf) & ((after > 0) | ~self.used.unsqueeze(-1)).all(-2) & which.unsqueeze(-1)
        first = fine.to(torch.uint8).argmax(-1, keepdim=True)
        found = fine.gather(-1, first).squeeze(-1)
        self.insert(slot, j.gather(-1, first).squeeze(-1), found)
        return found

    def _each_slot(self, j: Tensor) -> Tensor:
        return j.unsqueeze(-2).expand(-1, self.tokens.shape[-1], -1)

    def swap(self, gain: float, which: Bool[Tensor, "H"]) -> tuple[Bool[Tensor, "H"], bool]:
        """Makes the best exchange that keeps every weight positive; returns where one gains `gain` of tau, and if any.

        The host waits for the device once, in nearly all cases.
        """
        least = gain * (self.w * self.total.gather(-1, self.tokens)).sum(-1)
        state = self.P, self.M, self.w, self.r
        if runs_compiled(compiled, self.P):
            whole = self.gram, self.diagonal, self.tokens, self.used, self.inside, *state, self.s
            heads = zip(which.tolist(), least.tolist(), *(x.numpy() for x in whole), strict=True)
            gained = [goes and compiled.swap(*head, _LEAST_ROOM, limit, _PAIRS) for goes, limit, *head in heads]
            return torch.tensor(gained), any(gained)
        slot, token, which, some = best_pairs(
            *state, self.diagonal - self.s, self.used, self.inside, _LEAST_ROOM, least, _PAIRS, which
        )
        if some:
            self.remove(slot, which & self.used.gather(-1, slot.unsqueeze(-1)).squeeze(-1))
            self.insert(slot, token, which)
        return which, some

    def remove(self, slot: Int[Tensor, "H"], which: Bool[Tensor, "H"]) -> None:
        """Empties a slot."""
        i, which = slot.unsqueeze(-1), which.unsqueeze(-1)
        p = self.P.gather(-1, self._each_slot(i))  # [H, m, 1]
        row = self._row(i)
        # an infinite spread: nothing changes
        spread = torch.where(which, p.squeeze(-1).gather(-1, i), torch.inf)
        step, share = self.w.gather(-1, i) / spread, p / spread.unsqueeze(-1)
        self.s.sub_(row.square() / spread)
        self.r.add_(row * step)
        self.P.addcmul_(p, share.mT, value=-1)
        self.M.addcmul_(share, row.unsqueeze(-2), value=-1)
        self.w.sub_(p.squeeze(-1) * step)
        stays = (self.slots != i) | ~which
        self.P.mul_(stays.unsqueeze(-1) & stays.unsqueeze(-2))
        self.M.scatter_(-2, i.unsqueeze(-1).expand(-1, -1, row.shape[-1]), row.masked_fill_(which, 0.0).unsqueeze(-2))
        self.w.mul_(stays)
        self.used &= stays
        token = self.tokens.gather(-1, i)
        self.inside.scatter_(-1, token, self.inside.gather(-1, token) & ~which)

    def _row(self, i: Tensor) -> Tensor:
        """Returns a row ``[H, n]`` of M."""
        return self.M.gather(-2, i.unsqueeze(-1).expand(-1, -1, self.M.shape[-1])).squeeze(-2)

    def insert(self, slot: Int[Tensor, "H"], token: Int[Tensor, "H"], which: Bool[Tensor, "H"]) -> None:
        """Puts a token into the empty slot."""
        i, j, which = slot.unsqueeze(-1), token.unsqueeze(-1), which.unsqueeze(-1)
        u = self.M.gather(-1, self._each_slot(j))  # [H, m, 1]
        # infinite room: nothing changes
        room = torch.where(which, self.diagonal.gather(-1, j) - self.s.gather(-1, j), torch.inf)
        row = (u.mT @ self._rows(self.tokens) - self._rows(j)).squeeze(-2)  # [H, n]
        step = self.r.gather(-1, j) / room
        # with -1 at its own slot one rank-one update also fills the new row and column
        u.scatter_(-2, i.unsqueeze(-1), -1.0)
        share = u / room.unsqueeze(-1)
        self.s.add_(row.square() / room)
        self.r.add_(row * step)
        self.P.addcmul_(u, share.mT)
        self.M.addcmul_(share, row.unsqueeze(-2))
        self.w.sub_(u.squeeze(-1) * step)
        self.tokens.scatter_(-1, i, torch.where(which, j, self.tokens.gather(-1, i)))
        self.used.scatter_(-1, i, self.used.gather(-1, i) | which)
        self.inside.scatter_(-1, j, self.inside.gather(-1, j) | which)

    def filled(self, which: Bool[Tensor, "H"]) -> tuple[Int[Tensor, "H m"], Float[Tensor, "H m"]]:
        """Returns tokens and weights of all m slots; empty ones take the first tokens outside."""
        # anew, so that no rounding of the updates is in what is returned
        self.factor()
        self.repair(which)
        outside = self.inside.to(torch.uint8).argsort(dim=-1, stable=True)
        rank = (~self.used).cumsum(-1) - 1  # of each empty slot among them
        tokens = torch.where(self.used, self.tokens, outside.gather(-1, rank.clamp_min(0)))
        w = self.w.clamp_min(_FLOOR * self.w.amax(-1, keepdim=True))
        return tokens, w / (w * self.total.gather(-1, tokens)).sum(-1, keepdim=True)


def _factor(gram: Float[Tensor, "H k k"]) -> Float[Tensor, "H k k"]:
    """Finds Cholesky factors, with more of a ridge where the errors are rounding alone and so no true moments.

    Raises RuntimeError where even a ridge as large as the diagonal does not help.
    """
    ridge = RIDGE * _largest(gram)
    while True:
        factor, failed = torch.linalg.cholesky_ex(gram)
        failed = failed > 0
        if not bool(failed.any()):
            return factor
        if bool((failed & ~(ridge <= _largest(gram))).any()):
            raise RuntimeError("the kept tokens' Gram matrix is not positive definite; it may hold NaN")
        gram = gram + torch.diag_embed((ridge * failed).unsqueeze(-1).expand(gram.shape[:-1]))
        ridge = 10 * ridge


def _largest(gram: Tensor) -> Float[Tensor, "H"]:
    return gram.diagonal(dim1=-2, dim2=-1).abs().amax(-1)
