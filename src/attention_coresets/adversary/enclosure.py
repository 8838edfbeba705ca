"""Encloses the worst-case error between a query found and a ceiling proven, by branch and bound."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.adversary.ascent import ascend
from attention_coresets.adversary.boxes import ceilings
from attention_coresets.adversary.problem import Problem
from attention_coresets.attention import Cache, Coreset, WeightedCache, attention_error
from attention_coresets.checks import positive
from attention_coresets.theory import check_rho

MAX_DIMENSION = 4  # boxes grow like (rho / gap^(1/3))^d
_LOGITS, _BOXES = 2**17, 1024  # bounded together, to stay in a core's own memory
_FILL = 2**12  # boxes x tokens below which a round costs its calls, not its numbers
_SHARE = 32  # of a long list of open boxes this part is split at once: each round copies the list

Progress = Callable[[int, float, float], None]


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
    check_rho(rho)
    cache.check_indices(coreset.indices)
    positive(gap=gap, nodes=nodes, **({} if seconds is None else {"seconds": seconds}))
    if cache.d > MAX_DIMENSION:
        raise ValueError(f"branch and bound needs d <= {MAX_DIMENSION}, got keys of dimension {cache.d}")
    problems = _problems(cache, coreset, rho)
    searches = [_Search(*start, gap) for start in zip(problems, *_starts(problems), strict=True)]
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


class _Search:
    """Searches one head: the open boxes low <= q <= high with a ceiling each, `closed` that of all others."""

    def __init__(self, problem: Problem, start: Tensor, error: Tensor, gap: float) -> None:
        self.problem, self.query, self.lower = problem, start, float(error)
        self.gap = max(gap, 2 * problem.rounding)
        self.closed, self.nodes = 0.0, 0
        self.extent = problem.keys.amax(0) - problem.keys.amin(0)
        self.high = torch.full_like(start, problem.rho).unsqueeze(0)
        self.low, self.ceiling = -self.high, self.high[:, 0] * 0 + problem.hull

    @property
    def upper(self) -> float:
        """Returns a number that no query of the ball exceeds."""
        return max(self.lower, self.closed, *self.ceiling.topk(min(1, len(self.ceiling))).values.tolist())

    def run(self, nodes: int, seconds: float | None, progress: Progress | None) -> None:
        """Halves boxes until the gap is reached or the budget is spent."""
        end = math.inf if seconds is None else time.perf_counter() + seconds
        boxes = self._take(1)
        while True:
            self._close(*self._bounded(*boxes))
            if progress is not None:
                progress(self.nodes, self.lower, self.upper)
            budget = nodes - self.nodes
            if self.upper <= self.lower + self.gap or budget < 2 or time.perf_counter() >= end:
                return
            boxes = self._halves(budget)

    def _halves(self, budget: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the halves of the boxes of largest ceiling, or smaller parts where those are few."""
        n = len(self.problem.keys)
        wanted = max(1, min(_BOXES, _LOGITS // n) // 2, len(self.ceiling) // _SHARE)
        boxes = _halved(*self._take(min(wanted, budget // 2)), self.extent)
        # a round on few boxes costs its calls: halve again what will have to be halved anyway
        while 2 * len(boxes[0]) <= min(budget, _FILL // n):
            boxes = _halved(*boxes, self.extent)
        return boxes

    def _take(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Removes the `count` boxes of largest ceiling from the list and returns them."""
        # the upper bound is the largest ceiling of the list: only splitting that box can lower it
        order = self.ceiling.topk(min(count, len(self.ceiling))).indices
        rest = torch.ones_like(self.ceiling, dtype=torch.bool).index_fill_(0, order, False)
        taken = self.low[order], self.high[order], self.ceiling[order]
        self.low, self.high, self.ceiling = self.low[rest], self.high[rest], self.ceiling[rest]
        return taken

    def _bounded(self, low: Tensor, high: Tensor, ceiling: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the boxes that meet the ball, shrunk, with the lesser of their own ceiling and their parent's."""
        self.nodes += len(low)
        low, high, meets = contracted(low, high, self.problem.rho)
        low, high, ceiling = low[meets], high[meets], ceiling[meets]
        size = max(1, min(_BOXES, _LOGITS // len(self.problem.keys)))
        own = [self._ceilings(a, b) for a, b in zip(low.split(size), high.split(size), strict=True)]
        return low, high, torch.minimum(ceiling, torch.cat(own))

    def _ceilings(self, low: Tensor, high: Tensor) -> Tensor:
        """Bounds boxes, and keeps the largest error met on the way."""
        point, error, ceiling = ceilings(self.problem, low, high)
        if len(error) and float(error.max()) > self.lower:
            self.lower, self.query = float(error.max()), point[error.argmax()]
        return ceiling

    def _close(self, low: Tensor, high: Tensor, ceiling: Tensor) -> None:
        """Lists these boxes and drops all whose ceiling is at most lower + gap, keeping the largest ceiling dropped."""
        low, high = torch.cat([self.low, low]), torch.cat([self.high, high])
        ceiling = torch.cat([self.ceiling, ceiling])
        open_ = ceiling > self.lower + self.gap
        self.closed = max([self.closed, *ceiling[~open_].tolist()])
        self.low, self.high, self.ceiling = low[open_], high[open_], ceiling[open_]


def _halved(low: Tensor, high: Tensor, ceiling: Tensor, extent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns both halves of each box, cut across the axis along which logits move most.

    `extent` ``[d]`` is how far the keys extend along each axis.
    """
    axis = ((high - low) * extent).argmax(dim=-1, keepdim=True)
    cut = torch.zeros_like(low, dtype=torch.bool).scatter_(-1, axis, True)
    middle = torch.where(cut, (low + high) / 2, low), torch.where(cut, (low + high) / 2, high)
    return torch.cat([low, middle[0]]), torch.cat([middle[1], high]), ceiling.repeat(2)


def contracted(
    low: Float[Tensor, "B d"], high: Float[Tensor, "B d"], rho: float
) -> tuple[Float[Tensor, "B d"], Float[Tensor, "B d"], Bool[Tensor, "B"]]:
    """Shrinks boxes to the bounds of what they share with the ball, and tells which of them meet it."""
    nearest = torch.maximum(low, -high).clamp_min(0).square()  # least q_l^2 in the box
    total, most = nearest.sum(-1, keepdim=True), rho**2 * (1 + 1e-15)
    # along an axis a query has at most the room that the others leave it when they are as near 0 as the box allows
    limit = (most - total + nearest).clamp_min(0).sqrt()
    return torch.maximum(low, -limit), torch.minimum(high, limit), total.squeeze(-1) <= most
