"""Serves constructions without a balancing walk: all heads in one axis, worked on in chunks, and best tokens."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.coresets.base import Request
from attention_coresets.coresets.randomness import draw
from attention_coresets.devices import at_once, in_parts

# choose(keys [H, n, d], values [H, n, dv], uniforms [H, *shape] or what else each head has) -> tokens [H, size] and
# log-weights [H, size] or None
Choice = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor | None]]
_MAX_NUMBERS = 2**27  # of the working memory of the heads that are worked on together on the CPU
FLOOR = -30.0  # nats: the least weight that is kept, in units of the head's largest


def over_heads(
    request: Request,
    choose: Choice,
    *,
    uniforms: tuple[int, ...] = (0,),
    each: Float[Tensor, "H n"] | None = None,
    numbers: int,
) -> Coreset:
    """Makes a coreset, for a batch of any shape, of the tokens and log-weights that `choose` finds in float64.

    uniforms: shape of the random numbers that a head needs.
    each: what `choose` gets in their place, for rules without random numbers.
    numbers: float64 numbers that `choose` holds a head, by which heads are worked on together.
    """
    cache = request.cache
    keys, values = (t.reshape(-1, *t.shape[-2:]) for t in (cache.keys, cache.values))
    more = draw(request.generator, len(keys), *uniforms).to(keys.device) if each is None else each
    chunk = at_once(numbers, keys.device, _MAX_NUMBERS)
    parts = in_parts(lambda part: choose(keys[part], values[part], more[part]), len(keys), chunk)
    indices, order = torch.cat([tokens for tokens, _ in parts]).sort(dim=-1)
    weights = [w for _, w in parts if w is not None]
    indices = indices.reshape(*cache.heads, request.size)
    if not weights:
        return Coreset(indices)
    log_weights = torch.cat(weights).gather(-1, order).reshape(indices.shape)
    return Coreset(indices, log_weights)


def first_best(score: Float[Tensor, "H n"], tie: Float[Tensor, "H"]) -> Int[Tensor, "H"]:
    """Finds the first token within `tie` of the largest score: rounding, which the batch changes, must not decide."""
    return (score >= score.amax(dim=-1, keepdim=True) - tie.unsqueeze(-1)).to(torch.uint8).argmax(dim=-1)


def floored_log(weights: Float[Tensor, "H m"]) -> Float[Tensor, "H m"]:
    """Takes the log of weights >= 0, raised to at least e^FLOOR of the head's largest; all equal where all are 0."""
    largest = weights.amax(dim=-1, keepdim=True)
    relative = torch.where(largest > 0, weights / largest.clamp_min(1e-300), torch.ones_like(weights))
    return relative.log().clamp_min(FLOOR) + largest.clamp_min(1e-300).log()


def mark(taken: Bool[Tensor, "H n"], tokens: Int[Tensor, "H"]) -> None:
    """Sets one token of each head in place."""
    taken.scatter_(-1, tokens.unsqueeze(-1), True)
