"""Tables that a pass of minimax swaps works on, and one turn of it for each of many heads in step (swaps.py)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attention_coresets.coresets.base import kept_tokens
from attention_coresets.coresets.minimax.in_step import chosen, rows

SCREEN = 128  # worst queries on which every candidate is tried first
TRIED = 8  # best candidates by these, tried on the whole bank
LEAST_LOG, MOST_LOG = -35.0, 40.0  # of a weighted token over the coreset's sum: float32 squares stay finite


class SwapTables:
    """T [H, b, n], the weighted tokens over the coreset's sum, N = T^2 |v - A|^2, F [H, b, dv] and Z [H, b].

    T and N are kept token by token as well: a column of a wide table is many cache misses. Tables that rows are taken
    of have those of all heads in one axis. due [H, n] holds 0, 1, ... where the token of that place in `order` is kept
    and has not had its turn, `over` = n elsewhere.
    """

    def __init__(
        self,
        logits: Tensor,
        log_weights: Tensor,
        values: Tensor,
        outputs: Tensor,
        kept: Tensor,
        doublings: int,
        order: Tensor,
    ) -> None:
        """Overwrites logits [H, b, n], those of the tokens without their log-weights [H, n]."""
        self.A, self.v = outputs.to(torch.float32), values.to(torch.float32)
        self.outputs, self.doublings, self.kept = outputs, doublings, kept
        self.values, self.v_of = values.flatten(0, 1), self.v.flatten(0, 1)  # [H n, dv]
        tokens = kept_tokens(kept, int(kept[0].sum()))
        columns = tokens.unsqueeze(-2).expand(-1, outputs.shape[-2], -1)
        inner = logits.gather(-1, columns).add_(log_weights.gather(-1, tokens).unsqueeze(-2))
        self.fill(logits, log_weights, inner.logsumexp(-1, keepdim=True), values)
        inside = self.T.view(logits.shape).gather(-1, columns).to(values.dtype)  # [H, b, m]
        self.Z = inside.sum(-1)
        self.F = inside @ values.gather(-2, tokens.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        self.F -= self.Z.unsqueeze(-1) * outputs
        self.fast = self.F.to(torch.float32)
        self.unit = (
            (self.F.square().sum(-1) / self.Z.square()).amax(-1, keepdim=True).clamp_min(1e-300).sqrt()
        )  # [H, 1]
        self.fast_unit = self.unit.to(torch.float32).unsqueeze(-1)
        self.now = self.total(self.F.square(), self.Z)  # [H, 1]
        (heads, self.over), device = order.shape, order.device
        self.order, self.place = order, order.argsort(dim=-1)
        self.due = torch.where(kept.gather(-1, order), torch.arange(self.over, device=device), self.over)
        number = torch.arange(heads, device=device).unsqueeze(-1)
        self.token, self.query = self.over * number, outputs.shape[1] * number  # [H, 1], the first row of each head

    def turn(self, gain: float) -> None:
        """Gives the next token of each head its turn; no branch asks a GPU: going on costs less than its answer."""
        due, turn = self.due.min(-1, keepdim=True)  # [H, 1]
        i = self.order.gather(-1, turn)
        self.due.scatter_(-1, turn, self.over)
        limit = (1 - gain) * self.now
        left = self.without(i)
        sums = self.screened(left).masked_fill_(self.kept, torch.inf)
        bounds, tokens = sums.topk(min(TRIED, sums.shape[-1]), largest=False)
        fine = bounds < limit
        if _answers(fine) and not bool(fine[:, 0].any()):  # the least bound
            return
        sums = torch.where(fine, self.tried(left, tokens), torch.inf)
        least = sums.min(-1, keepdim=True)
        gains = (least.values < limit) & (due < self.over)
        if not _answers(gains) or bool(gains.any()):
            self._swap(turn, i, tokens.gather(-1, least.indices), gains)

    def _swap(self, turn: Tensor, i: Tensor, j: Tensor, gains: Tensor) -> None:
        """Takes i out and puts j in where that `gains`, unless float64 does not see it."""
        F, Z, square = self.moved(i, j)
        total = self.total(square, Z)
        swaps = gains & (total < self.now)
        pairs = ((F, self.F), (Z, self.Z), (total, self.now), (j, i))
        self.F, self.Z, self.now, into = (chosen(swaps, new, old) for new, old in pairs)
        self.fast = self.F.to(torch.float32)
        self.kept.scatter_(-1, i, self.kept.gather(-1, i) & ~swaps)
        self.kept.scatter_(-1, into, self.kept.gather(-1, into) | swaps)
        place = self.place.gather(-1, into)
        self.due.scatter_(-1, place, torch.where(place > turn, place, self.over))

    def total(self, square: Tensor, Z: Tensor) -> Tensor:
        """Sums the errors' powers ``[H, 1]``; overwrites square [H, b, dv], that of F."""
        return self._power(square.sum(-1) / (Z * self.unit).square()).sum(-1, keepdim=True)

    def _power(self, e: Tensor) -> Tensor:
        for _ in range(self.doublings):
            e.square_()
        return e

    def fill(self, logits: Tensor, log_weights: Tensor, inner: Tensor, values: Tensor) -> None:
        """Makes T and N, and both token by token; inner [H, b, 1] is the log of the coreset's sum."""
        logits.add_(log_weights.unsqueeze(-2)).sub_(inner)
        T = logits.clamp_(LEAST_LOG, MOST_LOG).to(torch.float32).exp_()
        size = self.outputs.square().sum(-1, keepdim=True)
        gap = torch.baddbmm(size, self.outputs, values.mT, alpha=-2).add_(values.square().sum(-1).unsqueeze(-2))
        N = gap.clamp_min_(0).to(torch.float32).mul_(T).mul_(T)
        self.T, self.N = T.flatten(0, 1), N.flatten(0, 1)  # [H b, n]
        self.T_of, self.N_of = (x.mT.contiguous().flatten(0, 1) for x in (T, N))  # [H n, b]

    def without(self, i: Tensor) -> Sequence[Tensor]:
        """Returns H [H, b, dv], which is F without token i, |H|^2, <H, A> and Z without it, all float32."""
        at = (i + self.token).squeeze(-1)
        T = self.T_of.index_select(0, at)  # [H, b]
        H = torch.addcmul(self.fast, T.unsqueeze(-1), self.A - self.v_of.index_select(0, at).unsqueeze(-2))
        return H, H.square().sum(-1), (H * self.A).sum(-1), (self.Z - T).to(torch.float32)

    def screened(self, left: Sequence[Tensor]) -> Tensor:
        """Sums over the queries that the removal leaves worst, for each token put in, ``[H, n]``."""
        worst = (left[1] / left[3].square().clamp_min(1e-30)).topk(min(SCREEN, left[1].shape[-1])).indices
        T, N, *seen = rows(worst + self.query, self.T, self.N, *(x.flatten(0, 1) for x in left))
        return self._sums(seen, T, N, self.v)

    def tried(self, left: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """Sums over all queries, for each of `tokens` ``[H, k]`` put in."""
        T, N, v = rows(tokens + self.token, self.T_of, self.N_of, self.v_of)
        return self._sums(left, T.mT, N.mT, v)

    def _sums(self, left: Sequence[Tensor], T: Tensor, N: Tensor, values: Tensor) -> Tensor:
        """Sums over queries for each token put in, ``[H, k]``; left: H [H, c, dv], |H|^2, <H, A>, Z; T and N [H, c, k].

        Overwrites T.
        """
        H, size, along, Z = (x if x.dim() > 2 else x.unsqueeze(-1) for x in left)
        # |H + T (v - A)|^2 / (Z + T)^2, in few passes
        e = torch.baddbmm(-2 * along, H, values.mT, alpha=2)
        torch.addcmul(N, e, T, out=e).add_(size).div_(T.add_(Z).mul_(self.fast_unit).square_())
        return self._power(e).sum(-2)

    def moved(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns F and Z once i gave way to j, and the square of F."""
        F, Z = self.F, self.Z
        for token, sign in ((i, -1), (j, 1)):
            T, v = rows(token + self.token, self.T_of, self.values)
            T = T.squeeze(-2).to(Z)
            F = torch.addcmul(F, T.unsqueeze(-1), v - self.outputs, value=sign)
            Z = torch.add(Z, T, alpha=sign)
        return F, Z, F.square()


def _answers(x: Tensor) -> bool:
    """Tells whether a question to this tensor's device is answered at once."""
    return x.device.type == "cpu"
