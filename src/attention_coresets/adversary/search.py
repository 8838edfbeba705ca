"""Searches one head by branch and bound: boxes of largest ceiling are halved until none is left above the gap."""

import math
import time
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.adversary.boxes import ceilings
from attention_coresets.adversary.problem import Problem

_LOGITS, _BOXES = 2**17, 1024  # bounded together, to stay in a core's own memory
_FILL = 2**12  # boxes x tokens below which a round costs its calls, not its numbers
_SHARE = 32  # of a long list of open boxes this part is split at once: each round copies the list

Progress = Callable[[int, float, float], None]


class Search:
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
        rest = torch.ones_like(self.ceiling, dtype=torch.bool).index_fill_(0, order, False).nonzero().squeeze(-1)
        taken = self.low[order], self.high[order], self.ceiling[order]
        self.low, self.high, self.ceiling = self.low[rest], self.high[rest], self.ceiling[rest]
        return taken

    def _bounded(self, low: Tensor, high: Tensor, ceiling: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the boxes that meet the ball, shrunk, with the lesser of their own ceiling and their parent's."""
        self.nodes += len(low)
        low, high, meets = contracted(low, high, self.problem.rho)
        meets = meets.nonzero().squeeze(-1)
        low, high, ceiling = low[meets], high[meets], ceiling[meets]
        size = max(1, min(_BOXES, _LOGITS // len(self.problem.keys)))
        own = [self._ceilings(a, b) for a, b in zip(low.split(size), high.split(size), strict=True)]
        return low, high, torch.minimum(ceiling, torch.cat(own))

    def _ceilings(self, low: Tensor, high: Tensor) -> Tensor:
        """Bounds boxes, and keeps the largest error met on the way."""
        point, error, ceiling = ceilings(self.problem, low, high)
        if len(error) and (largest := float(error.max())) > self.lower:
            self.lower, self.query = largest, point.index_select(0, error.argmax(0, keepdim=True)).squeeze(0)
        return ceiling

    def _close(self, low: Tensor, high: Tensor, ceiling: Tensor) -> None:
        """Lists these boxes and drops all whose ceiling is at most lower + gap, keeping the largest ceiling dropped."""
        low, high = torch.cat([self.low, low]), torch.cat([self.high, high])
        ceiling = torch.cat([self.ceiling, ceiling])
        open_ = ceiling > self.lower + self.gap
        if len(ceiling):
            self.closed = max(self.closed, float(ceiling.masked_fill(open_, -math.inf).max()))
        left = open_.nonzero().squeeze(-1)
        self.low, self.high, self.ceiling = low[left], high[left], ceiling[left]


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
