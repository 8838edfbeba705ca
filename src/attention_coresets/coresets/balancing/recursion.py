"""Plays rounds of a balancing rule, in buckets or not, that leave exactly the number of tokens asked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attention_coresets.coresets.balancing.buckets import Round, conditional_marginals, deal
from attention_coresets.coresets.base import kept_tokens
from attention_coresets.coresets.kernel.law import Law, balancing_features
from attention_coresets.coresets.kernel.swaps_by_rows import swaps_of
from attention_coresets.coresets.randomness import Generators, draw
from attention_coresets.devices import at_once

# signs(vectors, x [H, n], uniforms [H, 2, n]): which of the n tokens are kept
Signs = Callable[[Any, Tensor, Tensor], Tensor]
# vectors(keys, values, log_weights, law, uniforms [H, 2, n]): what the rule balances, in the form that it reads
Vectors = Callable[[Tensor, Tensor, Tensor, Law, Tensor], Any]
MAX_GRAM = 2**27  # numbers in the Gram matrices of the heads walked together on the CPU
BUCKET_GRAM = 2**23  # and of the buckets: fewer, for they come from memory and go to cache


@dataclass(frozen=True)
class Walk:
    """A balancing rule: its signs, and what makes the vectors that they balance."""

    signs: Signs
    vectors: Vectors

    def kept(self, tokens: "Tokens", log_pi: Tensor, marginals: Tensor, uniforms: Tensor) -> Tensor:
        """Tells which tokens of each head are kept, by a walk from x = 2 marginals - 1."""
        vectors = self.vectors(tokens.keys, tokens.values, -log_pi, tokens.measure, uniforms)
        return self.signs(vectors, 2 * marginals - 1, uniforms)

    @property
    def alone(self) -> "Walk":
        """Returns the rule for a part of the heads, which leaves nothing for other sizes."""
        return Walk(self.signs, self.vectors)


@dataclass(frozen=True)
class Tokens:
    """Keys, values and law of some heads, or of some buckets as if each were a head."""

    keys: Tensor
    values: Tensor
    measure: Law

    def bucket(self, indices: Tensor, heads: Tensor) -> "Tokens":
        """Returns the tokens `indices` ``[G, S]`` of `heads` ``[G]``."""
        rows = heads.unsqueeze(-1)
        law = Law(self.measure.log_p[rows, indices], self.measure.center[heads], self.measure.scale[heads])
        return Tokens(self.keys[rows, indices], self.values[rows, indices], law)


def all_uniforms(generator: Generators, heads: int, steps: list[Round]) -> list[Tensor]:
    """Draws the uniforms of each round, ``[H, 2, tokens]``, or ``[H, 4, slots]`` where buckets are to be dealt."""
    if all(step.buckets == 1 for step in steps):
        # one draw for all rounds: later ones leave part of theirs unused
        drawn = draw(generator, heads, len(steps), 2, steps[0].tokens)
        return [drawn[:, place, :, : step.tokens] for place, step in enumerate(steps)]
    slots = [step.buckets * step.width for step in steps]
    return list(draw(generator, heads, 4, sum(slots)).split(slots, dim=-1))


def run_rounds(
    tokens: Tokens, log_pi: Tensor, steps: list[Round], uniforms: list[Tensor], walk: Walk, swaps: bool = False
) -> tuple[Tensor, Tensor]:
    """Plays all rounds, and returns indices (sorted) and log inclusion probabilities ``[H, size]``.

    With `swaps` every round ends with a pass of kernel swaps in each bucket; the tokens put in have the inclusion
    probabilities that the rule would have kept them with.
    """
    heads, n = log_pi.shape
    indices = torch.arange(n, device=log_pi.device).repeat(heads, 1)
    for step, drawn in zip(steps, uniforms, strict=True):
        numbers = drawn.to(log_pi.device)
        if step.buckets == 1:
            members = torch.arange(step.tokens, device=log_pi.device).repeat(heads, 1, 1)  # [H, B, S]
            real, targets = members >= 0, torch.full_like(members[..., 0], step.target)
        else:
            # what a token's next marginal goes by: p over what it has been kept with so far
            log_p = tokens.measure.log_p.gather(-1, indices) - log_pi
            members, real, targets = deal(log_p, step, numbers[:, 2:])
        indices, log_pi = (t.gather(-1, members.flatten(1)) for t in (indices, log_pi))
        shape = (heads * step.buckets, step.width)
        # each bucket is a head of its own from here on, with its own part of the head's numbers
        numbers = numbers[:, :2].reshape(heads, 2, *members.shape[1:]).transpose(1, 2).reshape(shape[0], 2, shape[1])
        parts = (indices.reshape(shape), log_pi.reshape(shape), real.reshape(shape), targets.flatten(), numbers)
        log_pi, kept = (t.reshape(heads, -1) for t in _walk_buckets(tokens, *parts, step.buckets, walk, swaps))
        chosen = kept_tokens(kept, step.target)
        # sorted for rules that pair neighbours, and because a coreset's indices are
        indices, order = indices.gather(-1, chosen).sort(dim=-1)
        log_pi = log_pi.gather(-1, chosen).gather(-1, order)
    return indices, log_pi


def _walk_buckets(
    tokens: Tokens,
    indices: Tensor,
    log_pi: Tensor,
    real: Tensor,
    targets: Tensor,
    uniforms: Tensor,
    buckets: int,
    walk: Walk,
    swaps: bool,
) -> tuple[Tensor, Tensor]:
    """Walks in each of the G buckets: returns log inclusion probabilities and which tokens are kept, ``[G, S]``."""
    width = indices.shape[-1]
    heads = torch.arange(len(indices), device=indices.device) // buckets
    marginals = conditional_marginals(tokens.measure.log_p[heads.unsqueeze(-1), indices] - log_pi, real, targets)
    log_pi = log_pi + marginals.clamp_min(1e-300).log()
    log_pi = torch.where(real, log_pi, log_pi[:, :1])  # what fills a bucket up is its first token once more
    chunk = at_once(width**2, indices.device, MAX_GRAM if buckets == 1 else BUCKET_GRAM)
    walk = walk if len(indices) <= chunk else walk.alone
    split = (t.split(chunk) for t in (heads, indices, log_pi, marginals, uniforms, real))
    parts = []
    for h, i, lp, m, u, r in zip(*split, strict=True):
        part = tokens.bucket(i, h)
        parts.append(walk.kept(part, lp, m, u))
        if swaps:
            parts[-1] = _swapped(part, lp, m, parts[-1], r)
    kept = torch.cat(parts)
    if not bool((kept.sum(-1) == targets).all()):
        raise RuntimeError(f"a balancing rule kept {kept.sum(-1).tolist()} tokens where {targets.tolist()} were asked")
    return log_pi, kept


def _swapped(tokens: Tokens, log_pi: Tensor, marginals: Tensor, kept: Tensor, real: Tensor) -> Tensor:
    """Swaps tokens in each bucket towards the weighted sum of all its tokens; returns which are kept, ``[G, S]``."""
    kept, found = kept.clone(), torch.stack([real.sum(-1), kept.sum(-1)], dim=-1)
    for count, size in found.unique(dim=0).tolist():  # two sizes of buckets and two targets at most
        if size == 0:
            continue
        some = ((found[:, 0] == count) & (found[:, 1] == size)).nonzero()[:, 0]
        # what fills a bucket up is last
        part = tokens.bucket(torch.arange(count, device=some.device).expand(len(some), -1), some)
        weights, pi, mask = (t[some, :count] for t in (-log_pi, marginals, kept))
        kept[some, :count] = swaps_of(balancing_features(part.keys, part.values, weights, part.measure), mask, pi)
    return kept
