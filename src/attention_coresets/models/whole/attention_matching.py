"""Attention Matching on a whole model: tokens of largest attention, weights that keep its mass, values that keep it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.checks import not_negative, one_of, positive
from attention_coresets.models.softcap import capped
from attention_coresets.models.whole.budgets import BUDGETS, by_shares, check_count, spend
from attention_coresets.models.whole.measured import Measured
from attention_coresets.models.whole.reading import CHUNK, LEAD, LayerReading, Repeating

LEAST, MOST = math.exp(-3), math.exp(3)  # the source's bounds of weights
_STEPS, _TOLERANCE = 500, 1e-7
_RIDGE = 1e-10  # of the mean diagonal: least squares up to rounding


@dataclass(frozen=True)
class AttentionMatching:
    """Keeps `count` tokens of all KV heads together, matched to the attention of replayed queries, head by head.

    With E_i(q) = exp(<q, k_i> - max_j <q, k_j>) over the cache's tokens but the sinks, which are kept as they are:

    1. A head keeps its tokens of largest root mean square of E_i / sum_j E_j over the queries of its group.
    2. Weights w in [e^-3, e^3] are those of least sum_q (sum_i w_i E_i(q) - sum_j E_j(q))^2: the mass is kept.
    3. refit: values are those of least squared error of the attention among the tokens that are kept against the
       attention among all of them. Without it a token keeps its own: a subset.

    budget: "even"; "pooled": the scores of all heads are compared (the source's global variant); or "shares": a share
        for each head, fixed beforehand for a model (`shares`, influence.py), which the source calls precomputed.
    shares: a file of numbers [layers][kv], or the name of one in `head_shares/`.
    wording, chunk, repeated, lead: of the replay, as in `ReplayFit`.

    Differences from the source: weights are those of the minimum, where it takes two steps towards it; layers are all
    compressed from one replay, not one after the other; least squares of values has a ridge of 1e-10.

    Cost: q n (d + dv) multiply-adds a query head, once for all sizes; 2 q k^2 + O(k^3) a head with k tokens. Memory:
    (d + dv + 2) q numbers a query head, and some k^2 of the head with most tokens.

    Source: Zweiger et al., arXiv 2602.16284, AM-HighestAttnKeys.
    """

    budget: str = "pooled"
    shares: str = ""
    refit: bool = False
    sinks: int = 4
    wording: str = ""
    chunk: int = CHUNK
    repeated: float = 1.0
    lead: int = LEAD
    recent: ClassVar[int] = 0
    replays: ClassVar[bool] = True
    sums: ClassVar[bool] = False
    sloped: ClassVar[bool] = False
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = False

    def __post_init__(self) -> None:
        one_of("budget", self.budget, (*BUDGETS, "shares"))
        not_negative(sinks=self.sinks, lead=self.lead)
        positive(chunk=self.chunk, repeated=self.repeated)
        if (self.budget == "shares") != bool(self.shares):
            raise ValueError(
                f"budget = {self.budget!r} with shares = {self.shares!r}; budget='shares' needs their file"
            )

    @property
    def repeating(self) -> Repeating:
        """Returns how the text is to be repeated."""
        return Repeating(self.chunk, self.repeated, self.sloped, self.lead)

    @property
    def model(self) -> str:
        """Returns the coreset model, as `Construction` has it; "refitted": no subset of the cache."""
        return "refitted" if self.refit else "free"

    def choose(self, found: Measured, count: int) -> dict[int, list[Coreset]]:
        """Returns for each layer of the reading the coreset of each KV head, `count` tokens in all.

        Raises ValueError for a count that leaves a head without a token beside its sinks, or above all there are.
        """
        kept = self.kept(found, count)
        if found.reading.n <= self.sinks:  # nothing to match
            everything = torch.arange(found.reading.n, device=found.reading.device)
            return {i: [Coreset(everything) for _ in layer.keys] for i, layer in found.reading.layers.items()}
        seen = _seen(found, self.sinks)
        return {
            index: [self._weighted(own, mine.nonzero()[:, 0]) for own, mine in zip(seen[index], heads, strict=True)]
            for index, heads in zip(found.reading.layers, kept, strict=True)
        }

    def kept(self, found: Measured, count: int) -> Bool[Tensor, "layers kv n"]:
        """Returns which tokens are kept."""
        check_count(count, found.reading.heads, found.reading.n, self.sinks)
        if found.reading.n <= self.sinks:
            layers, device = len(found.reading.layers), found.reading.device
            return torch.ones(layers, found.reading.heads // layers, found.reading.n, dtype=torch.bool, device=device)
        seen = _seen(found, self.sinks).values()
        scores = torch.stack([torch.stack([head.squares for head in heads]) for heads in seen])
        scores = torch.nn.functional.pad(scores, (self.sinks, 0))
        sure = torch.zeros_like(scores, dtype=torch.bool)
        sure[..., : self.sinks] = True
        if self.budget == "shares":
            return by_shares(scores, count, sure, read_shares(self.shares))
        return spend(scores, count, sure, self.budget)

    def _weighted(self, seen: "_Seen", tokens: Int[Tensor, "k"]) -> Coreset:
        keys = seen.keys[tokens[self.sinks :] - self.sinks]
        gram, target = _products(
            ((capped(queries @ keys.mT, seen.cap) - top[:, None]).exp(), mass) for queries, top, mass, _ in seen.blocks
        )
        w = boxed(gram, target, LEAST, MOST)
        return Coreset(tokens, torch.cat([w.new_zeros(self.sinks), w.log()]).float())

    def values(
        self, found: Measured, coresets: Mapping[int, Sequence[Coreset]]
    ) -> dict[int, list[Float[Tensor, "k dv"]]]:
        """Returns the values of the kept tokens, refitted, and the sinks' own; none where tokens keep theirs."""
        if not self.refit or found.reading.n <= self.sinks:
            return {}
        layers, seen = found.reading.layers, _seen(found, self.sinks)
        return {
            i: [self._refitted(layers[i].values[h], seen[i][h], c) for h, c in enumerate(heads)]
            for i, heads in coresets.items()
        }

    def _refitted(self, values: Float[Tensor, "n dv"], seen: "_Seen", coreset: Coreset) -> Float[Tensor, "k dv"]:
        assert coreset.log_weights is not None, "of `choose`"
        keys, log_weights = seen.keys[coreset.indices[self.sinks :] - self.sinks], coreset.log_weights[self.sinks :]
        gram, target = _products(
            ((capped(queries @ keys.mT, seen.cap) + log_weights).softmax(-1).double(), out.double())
            for queries, _, _, out in seen.blocks
        )
        return torch.cat([values[coreset.indices[: self.sinks]], _least_squares(gram, target).to(values.dtype)])


def read_shares(name: str) -> Float[Tensor, "layers kv"]:
    """Reads shares of a budget from a file, or from the package's own of that name."""
    path = Path(name) if name.endswith(".json") else Path(__file__).parent / "head_shares" / f"{name}.json"
    return torch.tensor(json.loads(path.read_text(encoding="utf-8"))["shares"], dtype=torch.float64)


def boxed(gram: Float[Tensor, "k k"], target: Float[Tensor, "k"], least: float, most: float) -> Float[Tensor, "k"]:
    """Returns the w in [least, most] of least w^T G w - 2 b^T w, by accelerated projected gradients.

    They start from the clamped least squares, begin anew where the momentum points uphill, and stop after 500 steps.
    """
    w = _least_squares(gram, target).clamp(least, most)
    step = 1 / gram.abs().sum(-1).max().clamp_min(1e-300)  # the largest eigenvalue is no larger than a row's sum
    ahead, momentum = w, 1.0
    for _ in range(_STEPS):
        new = (ahead - step * (gram @ ahead - target)).clamp(least, most)
        if float((ahead - new) @ (new - w)) > 0:  # uphill
            momentum = 1.0
        following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - w)
        moved, w, momentum = float((new - w).abs().max()), new, following
        if moved < _TOLERANCE * most:
            break
    return w


def _products(blocks: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Sums A^T A and A^T b over blocks (A, b), in float64, one held at a time: a head may keep most tokens."""
    parts = (((a.mT @ a).double(), (a.mT @ b).double()) for a, b in blocks)
    return reduce(lambda total, part: (total[0].add_(part[0]), total[1].add_(part[1])), parts)


def _least_squares(gram: Float[Tensor, "k k"], target: Float[Tensor, "k *out"]) -> Float[Tensor, "k *out"]:
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, target)


class _Seen(NamedTuple):
    """What queries saw of a head's tokens but the sinks: keys [m, d], sums over queries of squared softmax weights [m].

    blocks: of the queries of a query head and chunk: queries [q, d], largest logit [q], sum_j E_j [q], output [q, dv].
    """

    keys: Tensor
    squares: Tensor
    blocks: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    cap: float | None


_KNOWN: "WeakKeyDictionary[Measured, dict[int, dict[int, list[_Seen]]]]" = WeakKeyDictionary()  # by sinks, by layer


def _seen(found: Measured, sinks: int) -> dict[int, list[_Seen]]:
    """By layer, for every head. Any budget of a reading asks for the same: (dv + 2) numbers a query, kept with it."""
    known = _KNOWN.setdefault(found, {})
    if sinks not in known:
        layers = found.reading.layers.items()
        known[sinks] = {i: [_of_head(x, h, sinks) for h in range(len(x.keys))] for i, x in layers}
    return known[sinks]


def _of_head(layer: LayerReading, head: int, sinks: int) -> _Seen:
    keys, values = layer.keys[head, sinks:].float(), layer.values[head, sinks:].float()
    squares, blocks = torch.zeros(len(keys), device=keys.device), []
    for look in layer.replays:
        for queries in look.queries[head].float():
            logits = capped(queries @ keys.mT, layer.softcap)
            top = logits.amax(-1)
            masses = logits.sub_(top[:, None]).exp_()
            mass = masses.sum(-1)
            shares = masses.div_(mass[:, None])
            squares += shares.norm(dim=0).square()
            blocks.append((queries, top, mass, shares @ values))
    return _Seen(keys, squares, blocks, layer.softcap)
