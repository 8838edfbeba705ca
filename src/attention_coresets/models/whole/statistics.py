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

from attention_coresets.models.whole.reading import LayerReading, Lookback

_NUMBERS = 2**22  # of softmax weights held at once
_MASS = 0.1  # see `HeadStatistics`


@dataclass(frozen=True)
class HeadStatistics:
    """Sums over the queries of one kind, replayed or moved, for one KV head; shapes ``[n]``.

    largest: max_q T_i(q), over the query heads of the group too.
    largest_output: max_q T_i(q) |v_i W| / |h|.
    square: mean_q T_i(q)^2, summed over the group.
    own: G_ii, the squared error of leaving out token i alone.
    target: G 1.

    To queries that see no token behind the cache, weights that leave sum_i T_i at another value than 1 seem harmless,
    though later tokens will then get a wrong share. For them G has a further term kappa T_i T_j, and G 1 its row sums:
    kappa is 0.1 times the mean of |(v_i - mean v) W|^2 / |h|^2.
    """

    largest: Float[Tensor, "n"]
    largest_output: Float[Tensor, "n"]
    square: Float[Tensor, "n"]
    own: Float[Tensor, "n"]
    target: Float[Tensor, "n"]


class Head:
    """One KV head of a reading, with what every sum needs of each query: its output, and the logarithm of its sum.

    Sums are in float32 block by block, and in float64 over the blocks.

    Cost: 2 q (n + t) d multiply-adds a query head, and q (dv + 1) numbers that are kept.
    """

    def __init__(self, layer: LayerReading, head: int) -> None:
        self.keys = layer.keys[head].float()
        values = layer.values[head].float()
        self.center = values.mean(0)  # G is of differences of values; about their mean they round less
        self.values = values - self.center
        self.factors = layer.factors[head].float()  # [group, dv, dv]
        self.replays = [_Seen(look, head, self) for look in layer.replays]
        self.moved = [_Seen(layer.moved, head, self)]

    def statistics(self, looks: "list[_Seen]") -> HeadStatistics:
        """Sums over all queries of these.

        Cost: 3 q n d multiply-adds a query head.
        """
        n = len(self.keys)
        largest, largest_output = torch.zeros(2, n, device=self.keys.device)
        square, own, target = torch.zeros(3, n, dtype=torch.float64, device=self.keys.device)
        every = torch.arange(n, device=self.keys.device)
        for g, weights, out, norms in self._blocks(looks, every):
            rest = weights @ self.values - weights.sum(-1, keepdim=True) * out
            c = self.factors[g]
            v, a, whole = self.values @ c, out @ c, rest @ c  # whole: sum_j f_j(q) |h|
            size = ((self.values + self.center) @ c).norm(dim=-1)
            largest = torch.maximum(largest, weights.amax(0))
            largest_output = torch.maximum(largest_output, (weights / norms[:, None]).amax(0) * size)
            left = weights * norms.square().reciprocal()[:, None]  # [q, n]
            square += weights.square().sum(0).double()
            squared = weights * left
            # sums over q of y T_i^2 |v_i - a|^2 and of y T_i <v_i - a, whole>, without an array [q, n] for each
            crossed = ((squared.mT @ a) * v).sum(-1)
            own += (squared.sum(0) * v.square().sum(-1) - 2 * crossed + squared.mT @ a.square().sum(-1)).double()
            target += (((left.mT @ whole) * v).sum(-1) - left.mT @ (whole * a).sum(-1)).double()
            if not looks[0].after:
                kappa = _mass(v)
                own += kappa * squared.sum(0).double()
                target += kappa * left.sum(0).double()  # T sums to 1
        count = _count(looks)
        return HeadStatistics(largest, largest_output, square / count, own.clamp_min(0) / count, target / count)

    def moment(self, looks: "list[_Seen]", tokens: Int[Tensor, "k"]) -> Float[Tensor, "k k"]:
        """Computes G on these tokens, float64.

        Cost: 2 q k^2 multiply-adds a query head.
        """
        total = torch.zeros(len(tokens), len(tokens), dtype=torch.float64, device=self.keys.device)
        for g, weights, out, norms in self._blocks(looks, tokens):
            c = self.factors[g]
            v, a = self.values[tokens] @ c, out @ c
            left = weights * norms.square().reciprocal()[:, None]
            products = v @ v.mT
            if not looks[0].after:
                products = products + _mass(self.values @ c)
            # <v_i - a, v_j - a> = <v_i, v_j> - (<a, v_i> - |a|^2 / 2) - (<a, v_j> - |a|^2 / 2)
            cross = left.mT @ (weights * (a @ v.mT - 0.5 * a.square().sum(-1, keepdim=True)))
            total += (products * (left.mT @ weights) - cross - cross.mT).double()
        return total / _count(looks)

    def _blocks(self, looks: "list[_Seen]", tokens: Tensor) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yields query head, T on these tokens [q, k], outputs about the mean value [q, dv] and |h| [q]."""
        keys, rows = self.keys[tokens], max(1, _NUMBERS // len(tokens))
        for look in looks:
            for g, (queries, log_sums, outputs) in enumerate(zip(*look.of_queries, strict=True)):
                parts = (x.split(rows) for x in (queries, log_sums, outputs, look.norms))
                for asked, log_sum, out, norms in zip(*parts, strict=True):
                    yield g, (asked @ keys.mT - log_sum[:, None]).exp(), out, norms


class _Seen:
    """Queries of one head with the logarithm of the softmax's sum and the output of each."""

    def __init__(self, look: Lookback, head: int, own: Head) -> None:
        queries, keys, values = (x[head].float() for x in (look.queries, look.keys, look.values))
        self.after, self.norms = len(keys), look.norms
        n, log_sums, outputs = len(own.keys), [], []
        keys, values = torch.cat([own.keys, keys]), torch.cat([own.values, values - own.center])
        first = self.after - queries.shape[1]
        for block in queries.split(max(1, _NUMBERS // (len(queries) * len(keys))), dim=1):
            logits = block @ keys.mT  # [group, q, n + t]
            if self.after:
                ahead = torch.ones(block.shape[1], self.after, dtype=torch.bool, device=keys.device).triu(first + 1)
                logits[..., n:].masked_fill_(ahead, -torch.inf)
            log_sums.append(logits.logsumexp(-1))
            outputs.append((logits - log_sums[-1][..., None]).exp_() @ values)
            first += block.shape[1]
        self.of_queries = queries, torch.cat(log_sums, dim=1), torch.cat(outputs, dim=1)


def _count(looks: list[_Seen]) -> int:
    return sum(len(look.norms) for look in looks)


def _mass(values: Float[Tensor, "n dv"]) -> Tensor:
    return _MASS * (values - values.mean(0)).square().sum(-1).mean()
