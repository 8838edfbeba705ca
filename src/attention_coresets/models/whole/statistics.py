"""What each token of a KV head is worth to the queries that looked at it, and what it costs to leave tokens out.

For a query q of a query head with output matrix W, asked where the residual stream has norm |h|, let T_j(q) be the
softmax over the cache and the tokens after it that q sees, and A(q) = sum_j T_j v_j. With

    f_i(q) = T_i(q) (v_i - A(q)) W / |h|

weights w on the cache's tokens in place of 1 change the head's output by sum_i (w_i - 1) f_i(q), linearised (the exact
change is that over 1 + sum_i (w_i - 1) T_i), in units of the residual stream: so heads and layers compare. The mean of
its squared norm over the queries is (w - 1)^T G (w - 1) with G_ij = mean_q <f_i, f_j>, summed over the query heads of a
group. A token that is left out has w = 0. Least over weights on kept tokens S: G_SS w = (G 1)_S.

Neither G_ii nor G 1 needs G: sum_j f_j(q) is one vector a query. So G is formed on kept tokens alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.models.softcap import capped
from attention_coresets.models.whole.reading import LayerReading, Lookback

_NUMBERS = 2**22  # of softmax weights held at once
_BLOCK = 128  # rows of G at once
KINDS = ("replay", "moved")  # of queries
_MASS = 0.1  # see `HeadStatistics`


@dataclass(frozen=True)
class HeadStatistics:
    """Sums over the queries of one kind, replayed or moved, for one KV head; shapes ``[n]``.

    largest: max_q T_i(q), over the query heads of the group too.
    largest_output: max_q T_i(q) |v_i W| / |h|.
    largest_slope: max_q T_i(q) |v_i W| |g|, which is KVgrad's score: g is the gradient of `slopes.slopes` where q was
        asked. 0 for queries without.
    dropped: sum_q (T_i / (1 - T_i))^2 |v_i - A(q)|^2, which is DropKV's score, over the group too.
    own: G_ii, the squared error of leaving out token i alone.
    target: G 1.

    To queries that see no token behind the cache, weights that leave sum_i T_i at another value than 1 seem harmless,
    though later tokens will then get a wrong share. For them G has a further term kappa T_i T_j, and G 1 its row sums:
    kappa is 0.1 times the mean of |(v_i - mean v) W|^2 / |h|^2.
    """

    largest: Float[Tensor, "n"]
    largest_output: Float[Tensor, "n"]
    largest_slope: Float[Tensor, "n"]
    dropped: Float[Tensor, "n"]
    own: Float[Tensor, "n"]
    target: Float[Tensor, "n"]


class Head:
    """One KV head of a reading: its sums, and what G needs of each query, its output and the logarithm of its sum.

    sums: over the queries of each of KINDS, in float32 block by block, and in float64 over the blocks.

    Cost: q (4 n + 2 t) d multiply-adds a query head, and q (d + dv + 2) numbers that are kept.
    """

    def __init__(self, layer: LayerReading, head: int) -> None:
        self.keys = layer.keys[head].float()
        values = layer.values[head].float()
        self.center = values.mean(0)  # G is of differences of values; about their mean they round less
        self.values = values - self.center
        self.factors = layer.factors[head].float()  # [group, dv, dv]
        self._cap = layer.softcap
        self._shown = self.values @ self.factors  # [group, n, dv]
        self._mass = _MASS * (self._shown - self._shown.mean(1, keepdim=True)).square().sum(-1).mean(-1)  # [group]
        self._looks: dict[str, list[tuple[Tensor, ...]]] = {}  # of all queries of a query head
        kinds = zip(KINDS, (layer.replays, [layer.moved]), strict=True)
        self.sums = {kind: self._summed(kind, [_of(look, head) for look in looks]) for kind, looks in kinds}

    def _summed(self, kind: str, looks: list[Lookback]) -> HeadStatistics:
        sums = _Sums(len(self.keys), self.keys.device)
        size = (self._shown + (self.center @ self.factors)[:, None]).norm(dim=-1)  # [group, n]
        seen: list[list[tuple[Tensor, ...]]] = [[] for _ in self.factors]
        for look in looks:
            for g, queries in enumerate(look.queries):
                log_sums, outputs, first = [], [], 0
                for weights, log_sum, out, norms in self._attend(look, queries):
                    mass = None if look.keys.shape[-2] else self._mass[g]
                    rest = weights @ self.values - weights.sum(-1, keepdim=True) * out
                    c = self.factors[g]
                    sums.add(weights, self._shown[g], out @ c, rest @ c, size[g], norms, mass)
                    sums.add_dropped(weights, self.values, out)
                    if look.slopes is not None:
                        sums.add_slopes(weights, look.slopes[first : first + len(weights)], size[g])
                    first += len(weights)
                    log_sums.append(log_sum)
                    outputs.append(out)
                seen[g].append((queries, torch.cat(log_sums), torch.cat(outputs), look.norms))
        self._looks[kind] = [tuple(torch.cat(x) for x in zip(*each, strict=True)) for each in seen]
        return sums.over(sum(len(look.norms) for look in looks))

    def _attend(self, look: Lookback, queries: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yields T on the cache [q, n], logarithms of sums, outputs about the mean value [q, dv], and |h| [q]."""
        n, after = len(self.keys), look.keys.shape[-2] > 0
        keys, values = torch.cat([self.keys, look.keys]), torch.cat([self.values, look.values - self.center])
        rows, first = max(1, _NUMBERS // len(keys)), 0
        for block, norms in zip(queries.split(rows), look.norms.split(rows), strict=True):
            last = n + first + len(block) if after else n  # later tokens are hidden from all of the block
            logits = capped(block @ keys[:last].mT, self._cap)
            if after:
                ahead = torch.ones(len(block), last - n, dtype=torch.bool, device=keys.device).triu(first + 1)
                logits[:, n:].masked_fill_(ahead, -torch.inf)
            log_sum = logits.logsumexp(-1)
            weights = logits.sub_(log_sum[:, None]).exp_()
            yield weights[:, :n], log_sum, weights @ values[:last], norms
            first += len(block)

    def moment(self, kind: str, tokens: Int[Tensor, "k"]) -> Float[Tensor, "k k"]:
        """Computes G on these tokens, float64, over the queries of a kind.

        Cost: 1.5 q k^2 multiply-adds a query head: of a symmetric matrix the upper half.
        """
        total = torch.zeros(len(tokens), len(tokens), dtype=torch.float64, device=self.keys.device)
        keys, rows, count = self.keys[tokens], max(1, _NUMBERS // len(tokens)), 0
        for g, parts in enumerate(self._looks[kind]):
            v, mass = self._shown[g, tokens], self._mass[g] if kind == "moved" else 0.0
            count = len(parts[0])
            for queries, log_sum, out, norms in zip(*(x.split(rows) for x in parts), strict=True):
                weights = capped(queries @ keys.mT, self._cap).sub_((log_sum + norms.log())[:, None]).exp_()
                a = out @ self.factors[g]
                # <v_i - a, v_j - a> = <v_i, v_j> - (<a, v_i> - |a|^2 / 2) - (<a, v_j> - |a|^2 / 2)
                aside = (a @ v.mT).sub_(0.5 * a.square().sum(-1, keepdim=True)).mul_(weights)
                for first in range(0, len(tokens), _BLOCK):
                    here, on = slice(first, first + _BLOCK), slice(first, None)
                    left, right = weights[:, here].mT, weights[:, on]
                    part = (v[here] @ v[on].mT).add_(mass).mul_(left @ right)
                    part.addmm_(left, aside[:, on], alpha=-1).addmm_(aside[:, here].mT, right, alpha=-1)
                    total[here, on] += part
        return total.triu_().add_(total.triu(1).mT).div_(count)


class _Sums:
    """`HeadStatistics` while they are summed."""

    def __init__(self, n: int, device: torch.device) -> None:
        self.largest, self.largest_output, self.largest_slope = torch.zeros(3, n, device=device)
        self.dropped, self.own, self.target = torch.zeros(3, n, dtype=torch.float64, device=device)

    def add(
        self,
        weights: Float[Tensor, "q n"],
        v: Float[Tensor, "n dv"],
        a: Float[Tensor, "q dv"],
        whole: Float[Tensor, "q dv"],
        size: Float[Tensor, "n"],
        norms: Float[Tensor, "q"],
        mass: Tensor | None,
    ) -> None:
        """Adds a block of queries of one query head: v, a and whole = sum_j f_j(q) |h| are times C; size is |v_i W|."""
        y = norms.square().reciprocal()
        self.largest = torch.maximum(self.largest, weights.amax(0))
        # sums over q of y T_i <v_i - a, whole>, without an array [q, n]
        sides = torch.cat([whole, (whole * a).sum(-1, keepdim=True), torch.ones_like(y)[:, None]], dim=-1)
        summed = weights.mT @ (sides * y[:, None])
        self.target += ((summed[:, :-2] * v).sum(-1) - summed[:, -2]).double()
        share = weights / norms[:, None]
        self.largest_output = torch.maximum(self.largest_output, share.amax(0) * size)
        # and of y T_i^2 |v_i - a|^2
        sides = torch.cat([a, a.square().sum(-1, keepdim=True), torch.ones_like(y)[:, None]], dim=-1)
        squared = share.square_().mT @ sides
        own = squared[:, -1] * v.square().sum(-1) - 2 * (squared[:, :-2] * v).sum(-1) + squared[:, -2]
        self.own += own.double()
        if mass is not None:
            self.own += mass * squared[:, -1].double()
            self.target += mass * summed[:, -1].double()  # T sums to 1

    def add_dropped(self, weights: Float[Tensor, "q n"], v: Float[Tensor, "n dv"], out: Float[Tensor, "q dv"]) -> None:
        """Adds what a block of queries of one query head loses with each token; v and `out` have no projection."""
        odds = (weights / (1 - weights + 1e-6)).square_()
        sides = torch.cat([out, out.square().sum(-1, keepdim=True), torch.ones_like(out[:, :1])], dim=-1)
        summed = odds.mT @ sides
        lost = summed[:, -1] * v.square().sum(-1) - 2 * (summed[:, :-2] * v).sum(-1) + summed[:, -2]
        self.dropped += lost.clamp_min(0).double()

    def add_slopes(self, weights: Float[Tensor, "q n"], slopes: Float[Tensor, "q"], size: Float[Tensor, "n"]) -> None:
        self.largest_slope = torch.maximum(self.largest_slope, (weights * slopes[:, None]).amax(0) * size)

    def over(self, count: int) -> HeadStatistics:
        own = self.own.clamp_min(0)
        largest = self.largest, self.largest_output, self.largest_slope
        return HeadStatistics(*largest, self.dropped, own / count, self.target / count)


def _of(look: Lookback, head: int) -> Lookback:
    """A head's part of queries that all heads asked."""
    queries, keys, values = (x[head].float() for x in (look.queries, look.keys, look.values))
    return Lookback(queries, keys, values, look.norms, look.slopes)
