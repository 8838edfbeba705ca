"""The statistics of every KV head of a reading, computed once for whichever budgets and weights are asked for."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.models.whole.reading import Reading
from attention_coresets.models.whole.statistics import KINDS, Head


@dataclass(frozen=True, eq=False)
class Measured:
    """Sums of a reading over the queries of each kind; arrays ``[layers, kv, n]``, layers in the reading's order.

    Moved queries are few and their errors of another size: their sums are scaled so that own errors of both kinds add
    up to the same in the whole model.
    """

    reading: Reading

    @cached_property
    def _heads(self) -> list[list[Head]]:
        return [[Head(layer, h) for h in range(layer.keys.shape[0])] for layer in self.reading.layers.values()]

    def sums(self, name: str, kind: str = "replay") -> Float[Tensor, "layers kv n"]:
        """Returns a field of `HeadStatistics` for every head."""
        return torch.stack([torch.stack([getattr(h.sums[kind], name) for h in layer]) for layer in self._heads])

    @property
    def sloped(self) -> bool:
        """Tells whether every replayed query has the gradient that KVgrad asks for."""
        return all(look.slopes is not None for layer in self.reading.layers.values() for look in layer.replays)

    @cached_property
    def scale(self) -> float:
        """Returns what makes the own errors of moved queries as large as those of the replay."""
        replay, moved = (float(self.sums("own", kind).sum()) for kind in KINDS)
        return replay / moved if moved > 0 else 0.0

    def mixed(self, name: str, moved: float) -> Float[Tensor, "layers kv n"]:
        """Returns `own` or `target` of the replay, and `moved` times that of the moved queries in its scale."""
        return self.sums(name) + moved * self.scale * self.sums(name, "moved")

    def errors(
        self, layer: int, head: int, tokens: Int[Tensor, "k"], moved: float
    ) -> tuple[Float[Tensor, "k k"], Float[Tensor, "k"]]:
        """Returns G and G 1 on these tokens, mixed likewise."""
        found, share = self._at(layer, head), moved * self.scale
        gram, target = found.moment("replay", tokens), found.sums["replay"].target[tokens]
        if not moved:
            return gram, target
        gram.add_(found.moment("moved", tokens), alpha=share)
        return gram, target + share * found.sums["moved"].target[tokens]

    def everything(self, layer: int, head: int, moved: float) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n"]]:
        """Returns G and G 1 on all tokens, mixed likewise: n x n numbers."""
        return self.errors(layer, head, torch.arange(self.reading.n, device=self.reading.device), moved)

    def _at(self, layer: int, head: int) -> Head:
        return self._heads[list(self.reading.layers).index(layer)][head]
