"""Swaps tokens one by one against the errors at a bank of queries; weights stay fixed."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.coresets.minimax.query_bank import Bank

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
    numbers of memory.

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
    heads = zip(cache.keys, cache.values, bank.queries, bank.outputs, kept, log_weights, uniforms, strict=True)
    return torch.stack([_pass(doublings, gain, *head) for head in heads])


def _pass(
    doublings: int,
    gain: float,
    keys: Tensor,
    values: Tensor,
    queries: Tensor,
    outputs: Tensor,
    kept: Tensor,
    log_weights: Tensor,
    uniforms: Tensor,
) -> Tensor:
    state = _State(queries @ keys.mT + log_weights, values, outputs, kept.clone(), doublings, uniforms.argsort())
    # a token that comes in may have its turn yet: the device is asked only when all turns known of are over
    while turns := int((state.due < len(kept)).sum()):
        for _ in range(turns):
            state.turn(gain)
    return state.kept


class _State:
    """Of one head: T [b, n] the weighted tokens over the coreset's sum, N = T^2 |v - A|^2, F [b, dv] and Z [b].

    T and N are kept token by token as well: a column of a wide table is many cache misses. due [n] holds 0, 1, ...
    where the token of that place in `order` is kept and has not had its turn, n elsewhere.
    """

    def __init__(
        self, logits: Tensor, values: Tensor, outputs: Tensor, kept: Tensor, doublings: int, order: Tensor
    ) -> None:
        logits = logits - logits[:, kept].logsumexp(-1, keepdim=True)  # [b, n]
        self.T = logits.clamp_(_LEAST_LOG, _MOST_LOG).to(torch.float32).exp_()
        size = outputs.square().sum(-1, keepdim=True)
        gap = torch.addmm(size, outputs, values.mT, alpha=-2).add_(values.square().sum(-1)).clamp_min_(0)
        self.N = gap.to(torch.float32).mul_(self.T).mul_(self.T)
        self.T_of, self.N_of = self.T.mT.contiguous(), self.N.mT.contiguous()  # [n, b]
        inside = self.T[:, kept].to(values.dtype)
        self.values, self.outputs, self.doublings, self.kept = values, outputs, doublings, kept
        self.v, self.A = values.to(torch.float32), outputs.to(torch.float32)
        self.Z = inside.sum(-1)
        self.F = inside @ values[kept] - self.Z.unsqueeze(-1) * outputs
        self.fast = self.F.to(torch.float32)
        self.unit = math.sqrt(float((self.F.square().sum(-1) / self.Z.square()).max().clamp_min(1e-300)))
        self.now = self._total(self.F, self.Z)
        self.order, self.place = order, order.argsort()
        places = torch.arange(len(order), device=order.device)
        self.due = torch.where(kept[order], places, len(order))

    def turn(self, gain: float) -> None:
        """Gives the next token its turn; no branch asks the device, where going on costs less than its answer."""
        turn = self.due.argmin(0, keepdim=True)
        i = self.order.index_select(0, turn)
        self.due.scatter_(0, turn, len(self.order))
        limit = (1 - gain) * self.now
        T = self.T_of.index_select(0, i).mT
        H = torch.addcmul(self.fast, T, self.A - self.v.index_select(0, i))  # F without i
        left = (H, H.square().sum(-1), (H * self.A).sum(-1), (self.Z - T.squeeze(-1)).to(torch.float32))
        bounds, tokens = self._screen(left)
        fine = bounds < limit
        if _answers(fine) and not bool(fine[0]):  # the least bound
            return
        T, N = self.T_of.index_select(0, tokens).mT, self.N_of.index_select(0, tokens).mT
        sums = torch.where(fine, self._sums(left, T, N, self.v.index_select(0, tokens)), torch.inf)
        least = sums.min(0, keepdim=True)
        gains = least.values < limit
        if not _answers(gains) or bool(gains):
            self._swap(turn, i, tokens.index_select(0, least.indices), gains)

    def _screen(self, left: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Finds the best tokens outside by the queries that the removal leaves worst, and their sums there."""
        worst = (left[1] / left[3].square().clamp_min(1e-30)).topk(min(_SCREEN, len(left[0]))).indices
        T, N = self.T.index_select(0, worst), self.N.index_select(0, worst)
        sums = self._sums([x.index_select(0, worst) for x in left], T, N, self.v)
        return sums.masked_fill_(self.kept, torch.inf).topk(min(_TRIED, len(sums)), largest=False)

    def _swap(self, turn: Tensor, i: Tensor, j: Tensor, gains: Tensor) -> None:
        """Takes i out and puts j in where that `gains`, unless float64 does not see it."""
        F, Z = self.F, self.Z
        for token, sign in ((i, -1), (j, 1)):
            T = sign * self.T_of.index_select(0, token).squeeze(0).to(Z)
            F, Z = F + T.unsqueeze(-1) * (self.values.index_select(0, token) - self.outputs), Z + T
        total = self._total(F, Z)
        swaps = gains & (total < self.now)
        pairs = ((F, self.F), (Z, self.Z), (total, self.now), (j, i))
        self.F, self.Z, self.now, into = (_either(swaps, new, old) for new, old in pairs)
        self.fast = self.F.to(torch.float32)
        self.kept.scatter_(0, i, False).scatter_(0, into, True)
        place = self.place.index_select(0, into)
        self.due.scatter_(0, place, torch.where(place > turn, place, len(self.order)))

    def _sums(self, left: Sequence[Tensor], T: Tensor, N: Tensor, values: Tensor) -> Tensor:
        """Sums over queries for each token put in, ``[n']``; left: H [b', dv], |H|^2, <H, A>, Z; T and N [b', n']."""
        H, size, along, Z = left
        # |H + T (v - A)|^2 / (Z + T)^2, in few passes
        e = torch.addmm(-2 * along.unsqueeze(-1), H, values.mT, alpha=2).mul_(T).add_(N).add_(size.unsqueeze(-1))
        return self._power(e.div_((T + Z.unsqueeze(-1)).mul_(self.unit).square_())).sum(0)

    def _total(self, F: Tensor, Z: Tensor) -> Tensor:
        return self._power(F.square().sum(-1) / (Z * self.unit).square()).sum()

    def _power(self, e: Tensor) -> Tensor:
        for _ in range(self.doublings):
            e = e.square()
        return e


def _answers(x: Tensor) -> bool:
    """Tells whether a question to this tensor's device is answered at once."""
    return x.device.type == "cpu"


def _either(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Returns `new` where `which` ``[1]`` holds, else `old`."""
    if _answers(which):
        return new if bool(which) else old
    return torch.where(which, new, old)
