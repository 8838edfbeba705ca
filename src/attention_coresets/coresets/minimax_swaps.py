"""Minimax swaps: a pass of remove-one, add-the-best against the errors at a bank of queries, weights fixed."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_SCREEN = 128  # worst queries on which every candidate is tried first
_CHUNK = 16  # candidates tried on the whole bank at once
_LEAST_LOG, _MOST_LOG = -35.0, 40.0  # of a weighted token over the coreset's sum: float32 squares stay finite
_MOST = 1e9  # of a squared error over the bank's largest, likewise


def minimax_swaps(
    keys: Float[Tensor, "H n d"],
    values: Float[Tensor, "H n dv"],
    queries: Float[Tensor, "H b d"],
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
    heads = zip(keys, values, queries, kept, log_weights, uniforms, strict=True)
    return torch.stack([_pass(*head, doublings, gain) for head in heads])


def _pass(
    keys: Tensor,
    values: Tensor,
    queries: Tensor,
    kept: Tensor,
    log_weights: Tensor,
    uniforms: Tensor,
    doublings: int,
    gain: float,
) -> Tensor:
    kept = kept.clone()
    state = _State(keys, values, queries, kept, log_weights, doublings)
    for i in uniforms.argsort().tolist():
        if not kept[i]:
            continue
        j = state.best_for(i, ~kept, gain)
        if j is not None:
            state.swap(i, j)
            kept[i], kept[j] = False, True
    return kept


class _State:
    """Of one head: T [b, n] the weighted tokens over the coreset's sum, N = T^2 |v - A|^2, F [b, dv] and Z [b]."""

    def __init__(
        self, keys: Tensor, values: Tensor, queries: Tensor, kept: Tensor, log_weights: Tensor, doublings: int
    ) -> None:
        logits = queries @ keys.mT  # [b, n]
        self.A = logits.softmax(-1) @ values
        logits += log_weights
        logits -= logits[:, kept].logsumexp(-1, keepdim=True)
        self.T = logits.clamp_(_LEAST_LOG, _MOST_LOG).exp_().to(torch.float32)
        gap = values.square().sum(-1) - 2 * self.A @ values.mT + self.A.square().sum(-1, keepdim=True)
        self.N = gap.clamp_min_(0).to(torch.float32).mul_(self.T).mul_(self.T)
        inside = self.T[:, kept].to(values.dtype)
        self.values, self.fast, self.doublings = values, values.to(torch.float32), doublings
        self.Z = inside.sum(-1)
        self.F = inside @ values[kept] - self.Z.unsqueeze(-1) * self.A
        self.unit = float(self._square().max().clamp_min(1e-300))

    def best_for(self, i: int, allowed: Tensor, gain: float) -> int | None:
        """The token in place of i that leaves the least sum, None where none gains enough."""
        H, Z = self._without(i)
        limit = float(self._power(self._square() / self.unit).sum()) * (1 - gain)
        left = (H.square().sum(-1), (H * self.A).sum(-1), Z)
        H, *left = (x.to(torch.float32) for x in (H, *left))
        worst = (left[0] / left[2].square().clamp_min(1e-30)).topk(min(_SCREEN, len(Z))).indices
        screen = self._sums(H[worst], [x[worst] for x in left], self.T[worst], self.N[worst], self.fast)
        ordered = screen.masked_fill_(~allowed, torch.inf).sort()
        best = None
        for bounds, tokens in zip(ordered.values.split(_CHUNK), ordered.indices.split(_CHUNK), strict=True):
            if float(bounds[0]) >= limit:
                break
            sums = self._sums(H, left, self.T[:, tokens], self.N[:, tokens], self.fast[tokens])
            least = sums.masked_fill_(~allowed[tokens], torch.inf).min(0)
            if float(least.values) < limit:
                best, limit = int(tokens[least.indices]), float(least.values)
        return best

    def swap(self, i: int, j: int) -> None:
        H, Z = self._without(i)
        T = self.T[:, j].to(Z)
        self.F, self.Z = H + T[:, None] * (self.values[j] - self.A), Z + T

    def _without(self, i: int) -> tuple[Tensor, Tensor]:
        T = self.T[:, i].to(self.Z)
        return self.F - T[:, None] * (self.values[i] - self.A), self.Z - T

    def _square(self) -> Tensor:
        return self.F.square().sum(-1) / self.Z.square()

    def _sums(self, H: Tensor, left: list[Tensor], T: Tensor, N: Tensor, values: Tensor) -> Tensor:
        """The sum over queries ``[n']`` for each token put in; H [b', dv], T and N [b', n']."""
        size, along, Z = (x.unsqueeze(-1) for x in left)
        e = (H @ values.mT).sub_(along).mul_(T).mul_(2).add_(N).add_(size)
        e = e.div_((T + Z).square_()).div_(self.unit).clamp_(0, _MOST)
        return self._power(e).sum(0)

    def _power(self, e: Tensor) -> Tensor:
        for _ in range(self.doublings):
            e = e.square()
        return e
