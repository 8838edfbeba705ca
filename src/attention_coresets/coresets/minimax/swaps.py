"""Swaps tokens one by one against the errors at a bank of queries; weights stay fixed."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.coresets.base import kept_tokens
from attention_coresets.coresets.minimax.in_step import chosen, rows
from attention_coresets.coresets.minimax.query_bank import Bank
from attention_coresets.devices import at_once, in_parts

_SCREEN = 128  # worst queries on which every candidate is tried first
_TRIED = 8  # best candidates by these, tried on the whole bank
_LEAST_LOG, _MOST_LOG = -35.0, 40.0  # of a weighted token over the coreset's sum: float32 squares stay finite


def minimax_swaps(
    cache: Cache,
    bank: Bank,
    kept: Bool[Tensor, "H n"],
    log_weights: Float[Tensor, "H n"],
    uniforms: Float[Tensor, "H n"],
    *,
    doublings: int = 2,
    gain: float = 1e-3,
) -> Bool[Tensor, "H n"]:
    """Lowers sum_b err_b^p, p = 2^(doublings + 1), by a pass of swaps: one token out, the best other one in.

    Tokens come in the random order of `uniforms`. Each that is kept when its turn comes is swapped for the token that
    leaves the least sum, if that is less by the share `gain`.

    With f and T as in query_bank.py, F = sum_S w_i f_i and Z = sum_S w_i T_i, the error after i gave way to j is

        |F - w_i f_i + w_j f_j| / (Z - w_i T_i + w_j T_j).

    Every token outside is tried on the 128 queries that the removal leaves worst, and the best 8 of them on the whole
    bank. On more queries or candidates the pass takes longer and does not end better (docs/minimax.md). Tables are
    float32 and sums float64, and no swap raises the sum.

    Cost: m (128 n dv + 11 b dv) multiply-adds a pass and head, and 30 passes over m (128 n + 8 b) numbers; 4 b n
    numbers of memory. Heads go one by one on the CPU, and in step on a GPU.

    Parameters
    ----------
    cache : Cache
    bank : Bank
    kept : Bool[Tensor, "H n"]
        The tokens to begin with.
    log_weights : Float[Tensor, "H n"]
        Of every token, with the cache's own in it.
    uniforms : Float[Tensor, "H n"]
    doublings : int
    gain : float

    Returns
    -------
    Bool[Tensor, "H n"]
        As many kept tokens as before.
    """

    def work(part: slice) -> Tensor:
        queries, outputs = (x[part] for x in bank)
        logits = (queries @ cache.keys[part].mT).add_(log_weights[part].unsqueeze(-2))
        order = uniforms[part].argsort(dim=-1)
        return _pass(_State(logits, cache.values[part], outputs, kept[part].clone(), doublings, order), gain)

    # on the CPU one by one: each then leaves out what its own turns do not need
    together = at_once(bank.queries.shape[-2] * cache.n, kept.device, on_cpu=1)
    return torch.cat(in_parts(work, len(kept), together))


def _pass(state: "_State", gain: float) -> Tensor:
    # a token that comes in may have its turn yet: the device is asked only when all turns known of are over
    while turns := int((state.due < state.over).sum(-1).max()):
        for _ in range(turns):
            state.turn(gain)
    return state.kept


class _State:
    """T [H, b, n], the weighted tokens over the coreset's sum, N = T^2 |v - A|^2, F [H, b, dv] and Z [H, b].

    T and N are kept token by token as well: a column of a wide table is many cache misses. Tables that rows are taken
    of have those of all heads in one axis. due [H, n] holds 0, 1, ... where the token of that place in `order` is kept
    and has not had its turn, `over` = n elsewhere.
    """

    def __init__(
        self, logits: Tensor, values: Tensor, outputs: Tensor, kept: Tensor, doublings: int, order: Tensor
    ) -> None:
        tokens = kept_tokens(kept, int(kept[0].sum()))
        columns = tokens.unsqueeze(-2).expand(-1, outputs.shape[-2], -1)
        logits -= logits.gather(-1, columns).logsumexp(-1, keepdim=True)  # [H, b, n]
        T = logits.clamp_(_LEAST_LOG, _MOST_LOG).to(torch.float32).exp_()
        size = outputs.square().sum(-1, keepdim=True)
        gap = torch.baddbmm(size, outputs, values.mT, alpha=-2).add_(values.square().sum(-1).unsqueeze(-2))
        N = gap.clamp_min_(0).to(torch.float32).mul_(T).mul_(T)
        self.T, self.N = T.flatten(0, 1), N.flatten(0, 1)  # [H b, n]
        self.T_of, self.N_of = (x.mT.contiguous().flatten(0, 1) for x in (T, N))  # [H n, b]
        self.outputs, self.A, self.doublings, self.kept = outputs, outputs.to(torch.float32), doublings, kept
        self.v = values.to(torch.float32)
        self.values, self.v_of = values.flatten(0, 1), self.v.flatten(0, 1)  # [H n, dv]
        inside = T.gather(-1, columns).to(values.dtype)  # [H, b, m]
        self.Z = inside.sum(-1)
        self.F = inside @ values.gather(-2, tokens.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        self.F -= self.Z.unsqueeze(-1) * outputs
        self.fast = self.F.to(torch.float32)
        self.unit = (
            (self.F.square().sum(-1) / self.Z.square()).amax(-1, keepdim=True).clamp_min(1e-300).sqrt()
        )  # [H, 1]
        self.fast_unit = self.unit.to(torch.float32).unsqueeze(-1)
        self.now = self._total(self.F, self.Z)  # [H, 1]
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
        at = (i + self.token).squeeze(-1)
        T = self.T_of.index_select(0, at)  # [H, b]
        away = self.A - self.v_of.index_select(0, at).unsqueeze(-2)
        H = torch.addcmul(self.fast, T.unsqueeze(-1), away)  # F without i
        left = (H, H.square().sum(-1), (H * self.A).sum(-1), (self.Z - T).to(torch.float32))
        bounds, tokens = self._screen(left)
        fine = bounds < limit
        if _answers(fine) and not bool(fine[:, 0].any()):  # the least bound
            return
        T, N, v = rows(tokens + self.token, self.T_of, self.N_of, self.v_of)
        sums = torch.where(fine, self._sums(left, T.mT, N.mT, v), torch.inf)
        least = sums.min(-1, keepdim=True)
        gains = (least.values < limit) & (due < self.over)
        if not _answers(gains) or bool(gains.any()):
            self._swap(turn, i, tokens.gather(-1, least.indices), gains)

    def _screen(self, left: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Finds the best tokens outside by the queries that the removal leaves worst, and their sums there."""
        worst = (left[1] / left[3].square().clamp_min(1e-30)).topk(min(_SCREEN, left[1].shape[-1])).indices
        T, N, *seen = rows(worst + self.query, self.T, self.N, *(x.flatten(0, 1) for x in left))
        sums = self._sums(seen, T, N, self.v)
        return sums.masked_fill_(self.kept, torch.inf).topk(min(_TRIED, sums.shape[-1]), largest=False)

    def _swap(self, turn: Tensor, i: Tensor, j: Tensor, gains: Tensor) -> None:
        """Takes i out and puts j in where that `gains`, unless float64 does not see it."""
        F, Z = self.F, self.Z
        for token, sign in ((i, -1), (j, 1)):
            T, v = rows(token + self.token, self.T_of, self.values)
            T = T.squeeze(-2).to(Z)
            F = torch.addcmul(F, T.unsqueeze(-1), v - self.outputs, value=sign)
            Z = torch.add(Z, T, alpha=sign)
        total = self._total(F, Z)
        swaps = gains & (total < self.now)
        pairs = ((F, self.F), (Z, self.Z), (total, self.now), (j, i))
        self.F, self.Z, self.now, into = (chosen(swaps, new, old) for new, old in pairs)
        self.fast = self.F.to(torch.float32)
        self.kept.scatter_(-1, i, self.kept.gather(-1, i) & ~swaps)
        self.kept.scatter_(-1, into, self.kept.gather(-1, into) | swaps)
        place = self.place.gather(-1, into)
        self.due.scatter_(-1, place, torch.where(place > turn, place, self.over))

    def _sums(self, left: Sequence[Tensor], T: Tensor, N: Tensor, values: Tensor) -> Tensor:
        """Sums over queries for each token put in, ``[H, k]``; left: H [H, c, dv], |H|^2, <H, A>, Z; T and N [H, c, k].

        Overwrites T.
        """
        H, size, along, Z = (x if x.dim() > 2 else x.unsqueeze(-1) for x in left)
        # |H + T (v - A)|^2 / (Z + T)^2, in few passes
        e = torch.baddbmm(-2 * along, H, values.mT, alpha=2)
        torch.addcmul(N, e, T, out=e).add_(size).div_(T.add_(Z).mul_(self.fast_unit).square_())
        return self._power(e).sum(-2)

    def _total(self, F: Tensor, Z: Tensor) -> Tensor:
        return self._power(F.square().sum(-1) / (Z * self.unit).square()).sum(-1, keepdim=True)

    def _power(self, e: Tensor) -> Tensor:
        for _ in range(self.doublings):
            e.square_()
        return e


def _answers(x: Tensor) -> bool:
    """Tells whether a question to this tensor's device is answered at once."""
    return x.device.type == "cpu"
