"""Exchanges tokens of a subset, all weights refitted after each exchange, for a small mean squared error."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.compiled import compiled_module, runs_compiled

# None without numba: the torch lines below find the same exchange, slower
compiled = compiled_module("attention_coresets.coresets.minimax.exchange_compiled")

_RIDGE = 1e-9  # of the mean diagonal: duplicates share their weight
_TRIES = 64  # additions that are looked at, best first, for one that keeps every weight positive
_PAIRS, _CHUNK = 4096, 64  # exchanges, likewise; so many at once
_REFACTOR = 32  # moves between two factorizations: rank-one updates collect rounding errors
_LEAST_ROOM = 1e-12  # of the mean diagonal
_FLOOR = 1e-13  # of the largest weight: what a token gets that no positive weight makes useful


def exchange(
    gram: Float[Tensor, "H n n"],
    total: Float[Tensor, "H n"],
    tokens: Int[Tensor, "H m"],
    *,
    moves: int | None = None,
    gain: float = 1e-6,
) -> tuple[Int[Tensor, "H m"], Float[Tensor, "H m"]]:
    """Lowers w^T G w over subsets S of m tokens and weights w > 0 on them with c^T w = 1, from the subset `tokens` on.

    G is `gram`, the error's quadratic form, and c is `total` (query_bank.py has both).

    Best weights. On a fixed S the least value is 1 / tau, with tau = c_S^T P c_S and P = G_SS^-1, and w is along P c_S.
    (A penalty kappa (c^T w - 1)^2 in place of the constraint gives the same direction for every kappa > 0, and the
    value kappa / (1 + kappa tau).) In what follows w = P c_S.

    Best exchange. Taking token i out lowers tau by w_i^2 / P_ii. Putting token j in then raises it by r_j^2 / D_j,
    where r_j = c_j - G_jS w and D_j = G_jj - G_jS P G_Sj, both without i. Of all m x n pairs the best one that keeps
    every weight positive is made, if it is among the 4096 best. Rank-one updates of P and P G_S bring all up to date.

    Before the first exchange, tokens of weight <= 0 are taken out and others put in. Slots that no positive weight can
    fill hold tokens of negligible weight in the end.

    What it ends at is a local optimum: other starts end some per cent apart.

    Cost: O(m n) an exchange, one compiled pass where numba is. 2 n^2 + 8 m n numbers of memory, for one head at a time.

    Parameters
    ----------
    gram : Float[Tensor, "H n n"]
        Positive semidefinite. 1e-9 of its mean diagonal is added to its diagonal.
    total : Float[Tensor, "H n"]
    tokens : Int[Tensor, "H m"]
        The subset to begin with.
    moves : int, optional
        Exchanges at most. None: m.
    gain : float
        Stop when no exchange raises tau by this share of it.

    Returns
    -------
    Int[Tensor, "H m"], Float[Tensor, "H m"]
        Tokens, sorted, and weights with c^T w = 1.
    """
    levels = gram.diagonal(dim1=-2, dim2=-1).mean(-1).tolist()
    found = [
        _exchange(g, level, c, start, len(start) if moves is None else moves, gain)
        for g, level, c, start in zip(gram, levels, total, tokens, strict=True)
    ]
    chosen, weights = (torch.stack(part) for part in zip(*found, strict=True))
    order = chosen.argsort(dim=-1)
    return chosen.gather(-1, order), weights.gather(-1, order)


def _exchange(
    gram: Tensor, level: float, total: Tensor, tokens: Tensor, moves: int, gain: float
) -> tuple[Tensor, Tensor]:
    if not level > 0:  # no error at all, whatever the weights
        return tokens, torch.full_like(total[tokens], 1 / max(float(total[tokens].sum()), 1e-300))
    # a copy, for the ridge is added in place; in this unit all thresholds are relative
    gram = gram / level
    gram.diagonal().add_(_RIDGE)
    support = _Support(gram, total, tokens)
    support.repair()
    for move in range(moves):
        # rank-one updates drift, and a weight near 0 may have turned negative unseen
        if move % _REFACTOR == _REFACTOR - 1:
            support.factor()
            support.repair()
        if not support.swap(gain):
            break
    return support.filled()


def _factor(gram: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    """Finds the Cholesky factor, with more of a ridge where the errors are rounding alone and so no true moments.

    Raises RuntimeError where even a ridge as large as the diagonal does not help.
    """
    ridge = _RIDGE * gram.diagonal().abs().amax()
    while True:
        factor, failed = torch.linalg.cholesky_ex(gram)
        if not bool(failed):
            return factor
        if not bool(ridge <= gram.diagonal().abs().amax()):
            raise RuntimeError("the kept tokens' Gram matrix is not positive definite; it may hold NaN")
        gram = gram + torch.diag_embed(ridge.expand(len(gram)))
        ridge = 10 * ridge


class _Support:
    """A subset S of tokens in m slots, some perhaps empty, and what an exchange of one of them needs.

    P = G_SS^-1 ``[m, m]``, M = P G_S ``[m, n]`` and w = P c_S ``[m]`` belong to the slots; those of empty slots are 0.
    For all n tokens, s = G_jS P G_Sj and r = c - G_S^T w.
    """

    def __init__(self, gram: Tensor, total: Tensor, tokens: Tensor) -> None:
        self.gram, self.total = gram, total
        self.diagonal = gram.diagonal()
        self.tokens, self.used = tokens.clone(), torch.ones_like(tokens, dtype=torch.bool)
        self.empty: set[int] = set()  # the slots that are not used, as the host knows them
        self.inside = torch.zeros_like(total, dtype=torch.bool)
        self.inside[tokens] = True
        self.factor()

    def factor(self) -> None:
        """Computes P and all that follows from it anew."""
        rows, both = self.gram[self.tokens], self.used & self.used.unsqueeze(-1)  # [m, n], [m, m]
        # empty slots are rows of the identity, so that the others keep their inverse
        inner = torch.where(both, rows[:, self.tokens], torch.diag_embed((~self.used).to(rows.dtype)))
        # and rows of 0 in the end, so that all shapes stay and updates need no mask
        self.P = torch.cholesky_inverse(_factor(inner)).mul_(both)
        self.M = self.P @ rows
        self.w = self.P @ self.total[self.tokens]
        self.s = (rows * self.M).sum(0)
        self.r = self.total - self.w @ rows

    def repair(self) -> None:
        """Takes out tokens without positive weight, one by one, then puts in others while one can."""
        while True:
            bad = self.used & (self.w <= 0)
            # the most negative in units of its own spread, w_i^2 / P_ii being what it is worth
            worth = torch.where(bad, self.w / self.P.diagonal().clamp_min(1e-300).sqrt(), torch.inf)
            # all answers at once: for each the host would wait for the device
            found, worst = torch.stack([bad.any(), worth.argmin()]).tolist()
            if not found:
                break
            self.remove(worst)
        for slot in sorted(self.empty):
            if not self.fill(slot):
                break

    def fill(self, slot: int) -> bool:
        """Makes the best addition that keeps every weight positive; returns False where there is none."""
        room = self.diagonal - self.s
        allowed = (self.r > 0) & ~self.inside & (room > _LEAST_ROOM)
        # an addition moves the other weights too: of the best few the first that leaves them positive
        best = torch.where(allowed, self.r.square() / room, -torch.inf).topk(min(_TRIES, len(room)))
        j = best.indices
        after = self.w.unsqueeze(-1) - self.r[j] / room[j] * self.M[:, j]  # [m, tries]
        fine = (best.values > -torch.inf) & ((after > 0) | ~self.used.unsqueeze(-1)).all(0)
        first = fine.to(torch.uint8).argmax(0, keepdim=True)
        found, token = torch.cat([fine[first], j[first]]).tolist()
        if found:
            self.insert(slot, token)
        return bool(found)

    def swap(self, gain: float) -> bool:
        """Makes the best exchange that keeps every weight positive; returns False where none gains `gain` of tau."""
        least = gain * (self.w @ self.total[self.tokens])
        if runs_compiled(compiled, self.P):
            P, M, w, r, s, used, inside, diagonal = (
                x.numpy() for x in (self.P, self.M, self.w, self.r, self.s, self.used, self.inside, self.diagonal)
            )
            i, j = compiled.best_pair(P, M, w, r, diagonal - s, used, inside, _LEAST_ROOM, float(least), _PAIRS)
        else:
            i, j = self._best_pair(least)
        if i < 0:
            return False
        self.remove(i)
        self.insert(i, j)
        return True

    def _best_pair(self, least: Tensor) -> tuple[int, int]:
        """Finds what `compiled.best_pair` finds: slot and token, -1 where none gains `least`."""
        spread = self.P.diagonal().clamp_min(1e-300)  # [m]
        residual = torch.addcmul(self.r, (self.w / spread).unsqueeze(-1), self.M)  # [m, n], r without token i
        room = torch.addcdiv(self.diagonal - self.s, self.M.square(), spread.unsqueeze(-1))
        allowed = (residual > 0) & (room > _LEAST_ROOM) & ~self.inside
        step = residual / room
        loss = torch.where(self.used, self.w.square() / spread, 0.0)
        net = torch.where(allowed, residual * step, -torch.inf).sub_(loss.unsqueeze(-1))
        best = net.flatten().topk(min(_PAIRS, net.numel()))
        # gains are compared first, for whether weights stay positive costs O(m) a pair
        for values, pairs in zip(best.values.split(_CHUNK), best.indices.split(_CHUNK), strict=True):
            i, j = pairs // len(self.total), pairs % len(self.total)
            gains = values > least
            fine = gains & self._stay_positive(i, j, step[i, j], spread)
            first = fine.to(torch.uint8).argmax(0, keepdim=True)
            found, more, slot, token = torch.cat([fine[first], gains[-1:], i[first], j[first]]).tolist()
            if found:
                return slot, token
            if not more:
                break
        return -1, -1

    def _stay_positive(self, i: Tensor, j: Tensor, step: Tensor, spread: Tensor) -> Tensor:
        """Tells for each pair whether every other weight is positive after that exchange: two rank-one updates of w."""
        column = self.P[i] / spread[i].unsqueeze(-1)  # [pairs, m]
        drop = self.w[i] - step * self.M[i, j]
        w = self.w - column * drop.unsqueeze(-1) - step.unsqueeze(-1) * self.M.mT[j]
        others = self.used & (i.unsqueeze(-1) != torch.arange(len(self.w), device=w.device))
        return ((w > 0) | ~others).all(-1)

    def remove(self, i: int) -> None:
        """Empties slot i."""
        if i in self.empty:
            return
        p, row, w, spread = self.P[:, i].clone(), self.M[i].clone(), self.w[i].clone(), self.P[i, i].clone()
        self.s.sub_(row.square() / spread)
        self.r.add_(row * (w / spread))
        self.P.addr_(p, p / spread, alpha=-1)
        self.M.addr_(p / spread, row, alpha=-1)
        self.w.sub_(p * (w / spread))
        for x in (self.P[i], self.P[:, i], self.M[i]):
            x.zero_()
        self.w[i] = 0.0
        self.used[i] = False
        self.inside[self.tokens[i : i + 1]] = False  # a slice: the host need not know the token
        self.empty.add(i)

    def insert(self, i: int, j: int) -> None:
        """Puts token j into the empty slot i."""
        u = self.M[:, j].clone()
        room = self.diagonal[j] - self.s[j]
        row = u @ self.gram[self.tokens] - self.gram[j]  # [n]
        step = self.r[j] / room
        # with -1 at its own slot one rank-one update also fills the new row and column
        u[i] = -1.0
        self.s.add_(row.square() / room)
        self.r.add_(row * step)
        self.P.addr_(u, u / room)
        self.M.addr_(u / room, row)
        self.w.sub_(u * step)
        self.tokens[i], self.used[i], self.inside[j] = j, True, True
        self.empty.discard(i)

    def filled(self) -> tuple[Tensor, Tensor]:
        """Returns tokens and weights of all m slots; empty ones take the first tokens outside."""
        # anew, so that no rounding of the updates is in what is returned
        self.factor()
        self.repair()
        outside = self.inside.to(torch.uint8).argsort(stable=True)
        rank = (~self.used).cumsum(0) - 1  # of each empty slot among them
        tokens = torch.where(self.used, self.tokens, outside[rank.clamp_min(0)])
        w = self.w.clamp_min(_FLOOR * self.w.max())
        return tokens, w / (w @ self.total[tokens])
