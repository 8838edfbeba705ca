"""Keeps the queries of the last positions of a layer, by which constructions judge the tokens before them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Asked:
    """Queries of the last c columns, times the scaling, and which of them count for each sample.

    Those of padding do not, nor do those asked before the sample was last compressed: they saw tokens that are gone.
    """

    queries: Float[Tensor, "b heads c d"]
    count: Bool[Tensor, "b c"]

    def then(self, later: "Asked", keep: int) -> "Asked":
        """Returns these and later ones, the last `keep` of all."""
        queries = torch.cat([self.queries, later.queries], dim=-2)
        return Asked(queries[..., -keep:, :], torch.cat([self.count, later.count], dim=-1)[:, -keep:])

    def without_last(self, columns: int) -> "Asked":
        return Asked(self.queries[..., :-columns, :], self.count[:, :-columns])

    def select(self, samples: Int[Tensor, "s"]) -> "Asked":
        return Asked(self.queries[samples], self.count[samples])

    def silenced(self, samples: Bool[Tensor, "b"]) -> "Asked | None":
        """Returns what still counts once these samples are compressed: None if nothing does."""
        count = self.count & ~samples[:, None]
        if not bool(count.any()):
            return None
        first = int(count.any(dim=0).to(torch.uint8).argmax())
        return Asked(self.queries[..., first:, :].clone(), count[:, first:])

    def of(self, sample: int) -> Float[Tensor, "heads _ d"]:
        """Returns the queries that count for a sample."""
        return self.queries[sample][:, self.count[sample]]
