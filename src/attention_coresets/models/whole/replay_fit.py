"""A coreset of a whole model's cache: one budget, spent by what a replay looks at, and weights fitted to it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.checks import not_negative, one_of, positive
from attention_coresets.models.whole.budgets import BUDGETS, by_shares, check_count, spend
from attention_coresets.models.whole.inside import INSIDE, by_gain, rechosen
from attention_coresets.models.whole.measured import Measured
from attention_coresets.models.whole.merging import merged
from attention_coresets.models.whole.reading import CHUNK, LEAD, Repeating
from attention_coresets.models.whole.scores import SCORES, UNASKED, scores
from attention_coresets.models.whole.weights import fitted

WEIGHTS = ("fitted", "none")
GAIN = "gain"
LARGEST = 20.0  # of a log-weight
_Kept = tuple[Tensor, tuple[Tensor, Tensor] | None]  # a mask of tokens, and G and G 1 on them (statistics.py)


@dataclass(frozen=True)
class ReplayFit:
    """Keeps `count` tokens of all KV heads of a model together, with weights fitted to replayed queries.

    1. A part of the budget goes to the tokens of largest `first` score: by default KVzip+'s, the largest share that any
       replayed query gives the token in the residual stream. A maximum keeps what a single query will ask for: a fact.
    2. The rest goes to those of largest `second` score: by default the mean squared error of leaving the token out.
       That keeps what most queries ask for: the text's continuation.
    3. In each head the tokens of the second part are exchanged for others while that lowers the squared error with all
       weights fitted: a score looks at each token alone, and keeps what others could stand for.
    4. Weights of the kept tokens are those of least mean squared error at all queries (weights.py, statistics.py).

    Scores are compared over all heads, so that a head that looks things up keeps many tokens and most keep few. Weights
    are absolute: later tokens join with log-weight 0. With all tokens kept they are all 1.

    first, second: one of SCORES. part: the first's share of the budget, and one token a head at least, if it is not 0.
        second = "gain": one after the other, tokens that lower the error most, all weights refitted (inside.py).
    budget: "pooled" over the model, over each "layer" (AdaKV), or "even"; or "sensitivity": each head's part follows
        its total sensitivity, sum_i max_q T_i(q) over the replay, and scores tell only which of its tokens it keeps.
    inside: "exchange" or "walk": the second part tells how many tokens a head keeps, and the head's error which, by
        exchanges or by the Gram-Schmidt walk (inside.py), among `among` times as many; or "score".
    weights: "fitted"; or "none", as heuristics have it.
    moved: how much queries of the context's last positions, carried behind it, count beside the replay.
    sinks: first tokens that every head keeps. recent: last ones likewise.
    floor: the least weight of a kept token. pull: see `weights.form`.
    merge: whether values of tokens that are left out are blended into those of the kept (merging.py): no subset then.
    wording: what asks for the repetition; "": nothing, the context is simply said again. chunk, repeated, lead: as
        in `read`.

    Cost: that of the statistics (statistics.py), of the exchanges (inside.py), and for each head, with k of its tokens
    kept, O(k^3), and 1.5 q k^2 where nothing is exchanged.

    Source: this project's (docs/real_caches.md); its first score is KVzip+'s (Kim et al., arXiv 2505.23416; kvpress).
    """

    first: str = "kvzip_plus"
    second: str = "own_error"
    part: float = 0.5
    budget: str = "pooled"
    inside: str = "exchange"
    among: float = 4.0
    weights: str = "fitted"
    moved: float = 1.0
    sinks: int = 4
    recent: int = 0
    floor: float = 0.05
    pull: float = 1e-3
    merge: bool = False
    wording: str = ""
    chunk: int = CHUNK
    repeated: float = 1.0
    lead: int = LEAD
    needs_queries: ClassVar[bool] = True
    needs_positions: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = False

    def __post_init__(self) -> None:
        one_of("first", self.first, SCORES)
        one_of("second", self.second, (*SCORES, GAIN))
        one_of("budget", self.budget, (*BUDGETS, "sensitivity"))
        one_of("inside", self.inside, INSIDE)
        one_of("weights", self.weights, WEIGHTS)
        not_negative(moved=self.moved, sinks=self.sinks, recent=self.recent, floor=self.floor, lead=self.lead)
        positive(chunk=self.chunk)
        if self.merge and self.weights != "none":
            raise ValueError("weights are fitted to tokens' own values; merge=True needs weights='none'")
        if self.second == GAIN and self.budget != "pooled":
            raise ValueError("gains are compared over all heads: second='gain' needs budget='pooled'")
        if not self.among >= 1:
            raise ValueError(f"among = {self.among} must be at least 1")
        if not 0 < self.repeated <= 1:
            raise ValueError(f"repeated = {self.repeated} must lie in (0, 1]")
        if not 0 <= self.part <= 1 or not self.pull > 0 or self.floor >= 1:
            raise ValueError(
                f"part = {self.part} must lie in 0 to 1, pull = {self.pull} above 0, floor = {self.floor} below 1"
            )

    @property
    def repeating(self) -> Repeating:
        """Returns how the text is to be repeated."""
        return Repeating(self.chunk, self.repeated, self.sloped, self.lead)

    @property
    def model(self) -> str:
        """Returns the coreset model, as `Construction` has it; "merged": no subset of the cache."""
        if self.merge:
            return "merged"
        return "unweighted" if self.weights == "none" else "free"

    @property
    def replays(self) -> bool:
        """Tells whether anything depends on the replay."""
        asked = self.weights != "none" or self._rechooses or self.budget == "sensitivity"
        return asked or not self._used <= set(UNASKED)

    @property
    def sloped(self) -> bool:
        """Tells whether the replay needs gradients."""
        return "kvgrad" in self._used

    @property
    def sums(self) -> bool:
        """Tells whether the replay's sums are needed."""
        return self.replays

    @property
    def _rechooses(self) -> bool:
        return self.inside != "score" and self.part < 1

    @property
    def _used(self) -> set[str]:
        return {name for name, share in ((self.first, self.part), (self.second, 1 - self.part)) if share > 0}

    def values(self, found: Measured, coresets: Mapping[int, Sequence[Coreset]]) -> dict[int, list[Tensor]]:
        """Returns what stands in place of the kept tokens' own values: nothing, or blended ones."""
        if not self.merge:
            return {}
        blended = {}
        for index, heads in coresets.items():
            layer = found.reading.layers[index]
            own = zip(layer.keys, layer.values, heads, strict=True)
            blended[index] = [merged(keys, values, coreset.indices) for keys, values, coreset in own]
        return blended

    def choose(self, found: Measured, count: int) -> dict[int, list[Coreset]]:
        """Returns for each layer of the reading the coreset of each KV head, `count` tokens in all.

        Raises ValueError for a count that leaves a head without a token beside its sinks, or above all there are.
        """
        chosen: dict[int, list[Coreset]] = {index: [] for index in found.reading.layers}
        places = [index for index, layer in found.reading.layers.items() for _ in layer.keys]
        for index, (kept, errors) in zip(places, self._heads(found, count), strict=True):
            chosen[index].append(self._weighted(found, index, len(chosen[index]), kept, errors))
        return chosen

    def kept(self, found: Measured, count: int) -> Bool[Tensor, "layers kv n"]:
        """Returns which tokens are kept."""
        kept = torch.stack([mine for mine, _ in self._heads(found, count)])
        return kept.view(len(found.reading.layers), -1, found.reading.n)

    def _heads(self, found: Measured, count: int) -> Iterator[_Kept]:
        """What each head keeps, and G and G 1 on it where they are known."""
        layers, heads, n = len(found.reading.layers), found.reading.heads, found.reading.n
        fixed = self.sinks + self.recent
        check_count(count, heads, n, fixed)
        kept = torch.zeros(layers, heads // layers, n, dtype=torch.bool, device=found.reading.device)
        kept[..., : self.sinks] = kept[..., max(0, n - self.recent) :] = True
        each = count // heads - self.sinks
        if self.part:
            kept = self._spent(found, self.first, max(heads * min(n, fixed + 1), round(self.part * count)), kept, each)
        both = self._spent(found, self.second, count, kept, each)
        if not self._rechooses:
            return ((mine, None) for mine in both.flatten(0, 1))
        generator = torch.Generator().manual_seed(0)  # a walk's: the same whenever asked, as everything else is
        return rechosen(found, kept, both, self.moved, self.pull, self.inside, self.among, generator)

    def _spent(self, found: Measured, name: str, budget: int, kept: Tensor, each: int) -> Bool[Tensor, "layers kv n"]:
        if budget <= int(kept.sum()):
            return kept
        if name == GAIN:
            return by_gain(found, budget, kept, self.moved, self.pull)
        own = scores(name, found, self.moved, each)
        if self.budget == "sensitivity":
            return by_shares(own, budget, kept, found.sums("largest").sum(-1))
        return spend(own, budget, kept, self.budget)

    def _weighted(
        self, found: Measured, layer: int, head: int, kept: Bool[Tensor, "n"], errors: tuple[Tensor, Tensor] | None
    ) -> Coreset:
        tokens = kept.nonzero().squeeze(-1)
        if self.weights == "none":
            return Coreset(tokens)
        if len(tokens) == found.reading.n:  # the fit would find the same, up to rounding
            return Coreset(tokens, torch.zeros(len(tokens), device=tokens.device))
        gram, target = errors or found.errors(layer, head, tokens, self.moved)
        weights = fitted(gram, target, self.floor, self.pull)
        return Coreset(tokens, weights.log().clamp(-LARGEST, LARGEST).float())
