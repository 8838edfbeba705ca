"""Chooses tokens of KV heads by the squared error that is left once the weights of all kept ones are fitted.

Beside scores, which look at each token alone. A head's error is a form in the weights (weights.py), and tokens that are
kept already take their part of it: with weights of their own, whatever they are, they are eliminated.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from attention_coresets.coresets.base import kept_tokens
from attention_coresets.coresets.kernel.law import capped_marginals
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.queries.query_walk import weighted_gram
from attention_coresets.coresets.randomness import draw
from attention_coresets.coresets.walks.walk import random_places, walk_signs
from attention_coresets.models.whole.measured import Measured
from attention_coresets.models.whole.weights import Form, form

INSIDE = ("score", "exchange", "walk")  # how a head's tokens are chosen, once it is known how many it keeps


def by_gain(
    found: Measured, count: int, kept: Bool[Tensor, "layers kv n"], moved: float, pull: float
) -> Bool[Tensor, "layers kv n"]:
    """Returns which tokens are kept: those of `kept`, and one after the other those that lower the error most.

    The errors of all heads together count, in units of the residual stream, with all weights of a head fitted after
    each token. So budgets follow from gains. Each head keeps one token beside those of `kept`, where the count allows.

    Cost: n x n numbers a head at once, in float32; 1.5 q n^2 multiply-adds a query head for them, and for each token
    k n, with k those that its head has by then.
    """
    heads = [_Head(form(*found.everything(*place, moved), pull), mine) for place, mine in _heads(found, kept)]
    for _ in range(count - int(kept.sum())):
        max(heads, key=lambda head: (not head.full, not head.taken, head.gain)).take()
    return torch.stack([head.kept for head in heads]).view(kept.shape)


def rechosen(
    found: Measured,
    first: Bool[Tensor, "layers kv n"],
    kept: Bool[Tensor, "layers kv n"],
    moved: float,
    pull: float,
    inside: str,
    among: float,
    generator: torch.Generator,
) -> Iterator[tuple[Bool[Tensor, "n"], tuple[Tensor, Tensor] | None]]:
    """Yields for each head as many tokens as `kept` has, those of `first` and others of the head's own choice.

    Beside them G and G 1 on these tokens (statistics.py), where choosing needed them: for one head at a time.

    exchange: from those of `kept`, the best exchange each time, all weights refitted (minimax/exchange.py).
    walk: the Gram-Schmidt walk on the error's form, marginals as own errors are: what is kept and what is not balance.
        Only it draws from the generator.

    A head that chooses k tokens does so among the `among` k of largest own error, and those of `kept`.

    Cost a head, with c the tokens of `first` and those to choose among: 1.5 q c^2 multiply-adds a query head for the
    form, and O(k c) an exchange, of k at most, or O(c^3) for the walk.
    """
    own = found.mixed("own", moved).flatten(0, 1)
    for (place, mine), fixed, alone in zip(_heads(found, kept), first.flatten(0, 1), own, strict=True):
        size, chosen = int(mine.sum() - fixed.sum()), fixed.clone()
        order = alone.masked_fill(mine, torch.inf).masked_fill(fixed, -1.0).sort(descending=True, stable=True).indices
        free = order[: min(math.ceil(among * size), int((~fixed).sum()))].sort().values
        if size == len(free):
            chosen[free] = True
            yield chosen, None
        else:
            seen = fixed.index_fill(0, free, True).nonzero().squeeze(-1)
            gram, target = found.errors(*place, seen, moved)
            left = _without(form(gram, target, pull), fixed[seen])
            start = mine[free].nonzero().squeeze(-1)
            chosen[free[_exchanged(left, start) if inside == "exchange" else _walked(left, size, generator)]] = True
            here = chosen[seen]
            errors = gram[here][:, here], target[here]
            del gram, target, left  # weights are fitted before the next head's turn
            yield chosen, errors


def _heads(found: Measured, kept: Bool[Tensor, "layers kv n"]) -> list[tuple[tuple[int, int], Bool[Tensor, "n"]]]:
    """Each head's place, its layer's index and its own, and what it keeps."""
    layers = zip(found.reading.layers, kept, strict=True)
    return [((index, head), mine) for index, heads in layers for head, mine in enumerate(heads)]


def _exchanged(left: Form, start: Int[Tensor, "k"]) -> Int[Tensor, "k"]:
    return exchange(left.gram[None], left.target[None], start[None])[0][0]


def _walked(left: Form, size: int, generator: torch.Generator) -> Int[Tensor, "k"]:
    uniforms = draw(generator, 1, 2, len(left.scale)).to(left.gram.device)
    gram = (left.gram * left.scale[:, None] * left.scale)[None]  # of plain weights
    log_p = 0.5 * gram.diagonal(dim1=-2, dim2=-1).clamp_min(1e-300).log()
    marginals = capped_marginals(log_p, size)
    weighted = weighted_gram(gram, -marginals.clamp_min(1e-300).log())
    kept = walk_signs(weighted, 2 * marginals - 1, uniforms[:, 0].contiguous(), place=random_places(uniforms))
    return kept_tokens(kept, size)[0]


def _without(whole: Form, fixed: Bool[Tensor, "n"]) -> Form:
    """The form of the other tokens' weights, where those of the fixed ones are the best for them."""
    rows, room, target = _eliminated(whole, fixed)
    gram = whole.gram[~fixed][:, ~fixed] - rows[:, ~fixed].mT @ rows[:, ~fixed]
    gram.diagonal().copy_(room[~fixed])
    return Form(gram, target[~fixed], whole.scale[~fixed])


def _eliminated(whole: Form, fixed: Bool[Tensor, "n"]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the Cholesky factor for the fixed tokens, and what diagonal and target are left without them."""
    factor = torch.linalg.cholesky(whole.gram[fixed][:, fixed])
    rows = torch.linalg.solve_triangular(factor, whole.gram[fixed], upper=False)
    seen = torch.linalg.solve_triangular(factor, whole.target[fixed, None], upper=False).squeeze(-1)
    return rows, whole.gram.diagonal() - rows.square().sum(0), whole.target - seen @ rows


class _Head:
    """A head that takes tokens: its Cholesky factor, a row each, and what the next one gains."""

    def __init__(self, whole: Form, kept: Bool[Tensor, "n"]) -> None:
        rows, self._room, self._left = _eliminated(whole, kept)
        self._rows = list(rows)
        self._gram = whole.gram.float()  # the pull is far above its rounding, and every head's is held at once
        self.kept = kept.clone()
        self.taken = 0
        self._look()

    def _look(self) -> None:
        # a token whose weight would be negative gains nothing
        gains = self._left.clamp_min(0).square() / self._room.clamp_min(1e-300)
        gains = gains.masked_fill(self.kept, -1.0)
        self._token = int(gains.argmax())
        self.gain, self.full = float(gains[self._token]), bool(self.kept.all())

    def take(self) -> None:
        """Takes the token that gains most."""
        j = self._token
        row = self._gram[j].double()
        if self._rows:
            rows = torch.stack(self._rows)
            row = row - rows[:, j] @ rows
        row = row / self._room[j].sqrt()
        self._left = self._left - self._left[j] / self._room[j].sqrt() * row
        self._room = self._room - row.square()
        self._rows.append(row)
        self.kept[j] = True
        self.taken += 1
        self._look()
