"""Minimax swaps: a pass of remove-one, add-the-best against the errors at a bank of queries, weights fixed."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.coresets.query_bank import Bank

_SCREEN = 128  # worst queries on which every candidate is tried first
_TRIED = 8  # best candidates by these, tried on the whole bank
_LEAST_LOG, _MOST_LOG = -35.0, 40.0  # of a weighted token over the coreset's sum: float32 squares stay finite
_MOST = 1e9  # of a squared error over the bank's largest, likewise


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
    """Lower sum_b err_b^(2^(doublings + 1)) by swaps: tokens in the random order of `uniforms`, those kept when their
    turn comes, are taken out, and the token put in that leaves the least sum, if that is less by `gain` of it.

    With F = sum_S w_i f_i and Z = sum_S w_i T_i (query_bank.py) the error after i gave way to j is
    |F - w_i f_i + w_j f_j| / (Z - w_i T_i + w_j T_j). Candidates are tried on the 128 worst queries after the removal,
    then, best first, on the bank, until what the 128 alone give is above the best sum: the result is that of trying
    all on all. Tables are float32, sums kept up to date float64. Cost a pass and head: m (128 n dv + b (3 dv + 16 dv c))
    multiply-adds, c the number of chunks of 16 candidates tried in full, mostly 1 to 3; 2 b n numbers.
    """
    heads = zip(cache.keys, cache.values, *bank, kept, log_weights, uniforms, strict=True)
    return torch.stack([_pass(*head, doublings, gain) for head in heads])


def _pass(
    keys: Tensor,
    values: Tensor,
    queries: Tensor,
    outputs: Tensor,
    kept: Tensor,
    log_weights: Tensor,
    uniforms: Tensor,
    doublings: int,
    gain: float,
) -> Tensor:
    state = _State(keys @ queries.mT + log_weights.unsqueeze(-1), values, outputs, kept.clone(), doublings)
    for i in uniforms.argsort().tolist():
        if state.kept[i]:
            j = state.best_for(i, gain)
            if j is not None:
                state.swap(i, j)
    return state.kept


class _State:
    """Of one head: T [n, b] the weighted tokens over the coreset's sum, N = T^2 |v - A|^2, F [b, dv] and Z [b]."""

    def __init__(self, logits: Tensor, values: Tensor, outputs: Tensor, kept: Tensor, doublings: int) -> None:
        logits = logits - logits[kept].logsumexp(0)  # [n, b]
        self.T = logits.clamp_(_LEAST_LOG, _MOST_LOG).to(torch.float32).exp_()
        gap = torch.addmm(outputs.square().sum(-1), values, outputs.mT, alpha=-2).add_(values.square().sum(-1)[:, None])
        self.N = gap.clamp_min_(0).to(torch.float32).mul_(self.T).mul_(self.T)
        inside = self.T[kept].to(values.dtype)
        self.values, self.outputs, self.doublings, self.kept = values, outputs, doublings, kept
        self.v, self.A = values.to(torch.float32), outputs.to(torch.float32)
        self.Z = inside.sum(0)
        self.F = inside.mT @ values[kept] - self.Z.unsqueeze(-1) * outputs
        self.fast = self.F.to(torch.float32)
        self.unit = float((self.F.square().sum(-1) / self.Z.square()).max().clamp_min(1e-300))
        self.now = self._total(self.F, self.Z)

    def best_for(self, i: int, gain: float) -> int | None:
        """The token in place of i that leaves the least sum, None where none gains enough."""
        limit = (1 - gain) * self.now
        H = torch.addcmul(self.fast, self.T[i].unsqueeze(-1), self.A - self.v[i])  # F without i
        left = (H.square().sum(-1), (H * self.A).sum(-1), (self.Z - self.T[i]).to(torch.float32))
        worst = (left[0] / left[2].square().clamp_min(1e-30)).topk(min(_SCREEN, len(H))).indices
        T, N = (x.index_select(1, worst) for x in (self.T, self.N))
        screen = self._sums(H[worst], [x[worst] for x in left], T, N, self.v).masked_fill_(self.kept, torch.inf)
        bounds, tokens = screen.topk(min(_TRIED, len(screen)), largest=False)
        tokens = tokens[bounds < limit]
        if not len(tokens):
            return None
        sums = self._sums(H, left, self.T[tokens], self.N[tokens], self.v[tokens])
        least = sums.min(0)
        return int(tokens[least.indices]) if float(least.values) < limit else None

    def swap(self, i: int, j: int) -> None:
        """Take i out and put j in, unless float64 does not see the gain."""
        F, Z = self.F, self.Z
        for token, sign in ((i, -1), (j, 1)):
            T = sign * self.T[token].to(Z)
            F, Z = F + T.unsqueeze(-1) * (self.values[token] - self.outputs), Z + T
        total = self._total(F, Z)
        if total < self.now:
            self.F, self.Z, self.fast, self.now = F, Z, F.to(torch.float32), total
            self.kept[i], self.kept[j] = False, True

    def _total(self, F: Tensor, Z: Tensor) -> float:
        return float(self._power(F.square().sum(-1) / (Z.square() * self.unit)).sum())

    def _sums(self, H: Tensor, left: Sequence[Tensor], T: Tensor, N: Tensor, values: Tensor) -> Tensor:
        """The sum over queries ``[n']`` for each token put in; H [b', dv], T and N [n', b']."""
        size, along, Z = left
        e = (values @ H.mT).sub_(along).mul_(T).mul_(2).add_(N).add_(size)
        e = e.div_((T + Z).square_()).div_(self.unit).clamp_(0, _MOST)
        return self._power(e).sum(-1)

    def _power(self, e: Tensor) -> Tensor:
        for _ in range(self.doublings):
            e = e.square()
        return e
