"""Encloses the worst-case error between a query found and a ceiling proven, by branch and bound."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.ascent import ascend
from attention_coresets.adversary.problem import Problem
from attention_coresets.adversary.search import Progress, Search
from attention_coresets.attention import Cache, Coreset, WeightedCache, attention_error
from attention_coresets.checks import positive
from attention_coresets.theory import check_rho

MAX_DIMENSION = 4  # boxes grow like (rho / gap^(1/3))^d


@dataclass(frozen=True)
class Enclosure:
    """Bounds lower <= sup over |q| <= rho of the error <= upper, in float64.

    lower ``[*heads]`` is the error at query ``[*heads, d]``; upper ``[*heads]`` is proven; nodes ``[*heads]`` counts
    the boxes that were bounded.
    """

    lower: Float[Tensor, "*heads"]
    upper: Float[Tensor, "*heads"]
    query: Float[Tensor, "*heads d"]
    nodes: Int[Tensor, "*heads"]

    @property
    def gap(self) -> Float[Tensor, "*heads"]:
        return self.upper - self.lower


@torch.no_grad()
def branch_and_bound(
    cache: Cache,
    coreset: Coreset,
    rho: float,
    *,
    gap: float = 1e-3,
    nodes: int = 4_000_000,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Enclosure:
    """Encloses sup over |q| <= rho of |Attn(q) - Attn_coreset(q)|, head by head, for d <= 4.

    Boxes of largest ceiling (boxes.py) are halved, and those of ceiling at most lower + gap dropped, until upper -
    lower <= gap, in the unit of the values. A search that has used `nodes` boxes or about `seconds` seconds a head ends
    with a looser upper, still proven: at most twice the largest distance of a value from their mean. A gap below what
    float64 resolves (about 1e-12 at rho = 2, unit vectors) is raised to it. `progress`, if given, is called after every
    round with nodes, lower and upper of the head.

    Cost: O(n (d + 1)^2 dv) flops a box.

    Raises ValueError for d > 4, and for rho, gap, nodes or seconds that are not positive.
    """
    rho = check_rho(rho)
    cache.check_indices(coreset.indices)
    positive(gap=gap, nodes=nodes, **({} if seconds is None else {"seconds": seconds}))
    if cache.d > MAX_DIMENSION:
        raise ValueError(f"branch and bound needs d <= {MAX_DIMENSION}, got keys of dimension {cache.d}")
    problems = _problems(cache, coreset, rho)
    searches = [Search(*start, gap) for start in zip(problems, *_starts(problems), strict=True)]
    for search in searches:
        search.run(nodes, seconds, progress)
    query = torch.stack([s.problem.rotation @ s.query for s in searches])
    lower, upper = (query.new_tensor(x) for x in ([s.lower for s in searches], [s.upper for s in searches]))
    used = torch.tensor([s.nodes for s in searches], device=query.device)
    heads = cache.heads
    return Enclosure(lower.reshape(heads), upper.reshape(heads), query.reshape(*heads, cache.d), used.reshape(heads))


def _problems(cache: Cache, coreset: Coreset, rho: float) -> list[Problem]:
    """Returns the problem of each head."""
    flat, core = cache.flat(), coreset.flat()
    return [Problem.of(flat[head], core[head], rho) for head in range(len(flat.keys))]


def _starts(problems: list[Problem]) -> tuple[Float[Tensor, "H d"], Float[Tensor, "H"]]:
    """Finds a query for each head that is likely among the worst, and its error.

    A good one spares boxes: whatever is not above its error is dropped.
    """
    keys, values, kept, weights = (
        torch.stack([getattr(p, name) for p in problems]) for name in ("keys", "values", "kept", "log_weights")
    )
    base = [p.base for p in problems if p.base is not None]
    cache = WeightedCache(keys, values, torch.stack(base)) if base else Cache(keys, values)
    coreset = Coreset(kept, weights)
    query = ascend(cache, coreset, problems[0].rho, restarts=16, steps=30, polish=40).query
    return query, attention_error(query.unsqueeze(-2), cache, coreset).squeeze(-1)
