"""From a balancing rule to a coreset of exactly the size asked: one fractional walk, or rounds in buckets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, WeightedCache
from attention_coresets.coresets.buckets import Round, conditional_marginals, deal, rounds
from attention_coresets.coresets.law import Law, balancing_features, balancing_gram, law
from attention_coresets.coresets.refinement import refine
from attention_coresets.coresets.size import check_size, everything, kept_tokens
from attention_coresets.coresets.uniforms import Generators, draw, seeded
from attention_coresets.theory import check_rho

# signs = rule(vectors, x [H, n], uniforms [H, 2, n]): which of the n tokens are kept
BalancingRule = Callable[..., Tensor]
# vectors(keys, values, log_weights, law, uniforms [H, 2, n]): what the rule balances, in the form that it reads
Vectors = Callable[[Tensor, Tensor, Tensor, Law, Tensor], Any]
_MAX_GRAM = 2**27  # numbers in the Gram matrices of the heads walked together
_BUCKET_GRAM = 2**23  # and of the buckets: fewer, for they come from memory and go to cache


def whole_gram(keys: Tensor, values: Tensor, log_weights: Tensor, law: Law, uniforms: Tensor) -> Tensor:
    """The n x n balancing Gram matrix."""
    return balancing_gram(keys, values, log_weights, law)


def gram_factors(keys: Tensor, values: Tensor, log_weights: Tensor, law: Law, uniforms: Tensor) -> tuple[Tensor, ...]:
    """What `kernel_panel` makes any part of the Gram matrix of."""
    return balancing_features(keys, values, log_weights, law)


def no_vectors(*_: Any) -> None:
    """For rules that flip coins."""


def balanced_coreset(
    cache: Cache,
    size: int,
    rho: float,
    generator: Generators,
    *,
    model: str,
    scale: str,
    recursion: str,
    refinement: str = "none",
    rule: BalancingRule,
    vectors: Vectors = whole_gram,
) -> Coreset:
    """`size` tokens of every head, chosen by `rule` and refined (refinement.py), with log-weights -log pi in the tilted
    model, none in the unweighted and fitted ones in the free model.

    Each round (buckets.py) gives the tokens left in each bucket conditional marginals min(1, c p_i / pi_i) that sum to
    the bucket's target, and rounds x = 2 marginals - 1; pi_i is the product of a token's marginals, so that weights
    1/pi_i are unbiased. After the first round every marginal of an uncapped token is 1/2 up to what its bucket's p
    differs from the others'; a last round of one bucket makes pi proportional to p again where nothing is capped. A
    WeightedCache starts from pi = 1/weight and gets log-weights in both models. `vectors` makes what the rule balances:
    the Gram matrix of the balancing kernel, features in its place, or nothing.
    """
    check_rho(rho)
    check_size(size)
    log_w = cache.log_weights if isinstance(cache, WeightedCache) else None
    if log_w is not None and (model == "free" or refinement != "none"):
        raise ValueError("tokens that stand for many keep the weights of their marginals: no free model, no refinement")
    if size >= cache.n:
        return Coreset(everything(cache).indices, log_w)
    keys, values = (t.reshape(-1, *t.shape[-2:]).to(torch.float64) for t in (cache.keys, cache.values))
    base = torch.zeros_like(keys[..., 0]) if log_w is None else log_w.reshape(keys.shape[:-1]).to(torch.float64)
    steps = rounds(cache.n, size, recursion)
    uniforms = _uniforms(generator, len(keys), steps)
    walk = _Walk(rule, vectors)
    chunk = max(1, _MAX_GRAM // cache.n**2)
    parts = []
    for k, v, b, *u in zip(*(t.split(chunk) for t in (keys, values, base, *uniforms)), strict=True):
        measure = law(k, rho, model, scale, None if log_w is None else b)
        indices, log_pi = _rounds(_Tokens(k, v, measure), -b, steps, u, walk)
        chosen = Coreset(indices, -log_pi if model != "unweighted" or log_w is not None else None)
        if log_w is None:
            seeds = seeded(u[0][:, 0, 0])
            chosen = refine(Cache(k, v), chosen, rho, measure, seeds, model=model, refinement=refinement)
        parts.append(chosen)
    return _joined(parts, cache)


def _joined(parts: list[Coreset], cache: Cache) -> Coreset:
    indices = torch.cat([part.indices for part in parts])
    shape = (*cache.heads, indices.shape[-1])
    weights = [part.log_weights for part in parts if part.log_weights is not None]
    return Coreset(indices.reshape(shape), torch.cat(weights).to(cache.keys.dtype).reshape(shape) if weights else None)


@dataclass(frozen=True)
class _Walk:
    """A balancing rule and what makes the vectors that it balances."""

    rule: BalancingRule
    vectors: Vectors

    def kept(self, tokens: "_Tokens", log_pi: Tensor, marginals: Tensor, uniforms: Tensor) -> Tensor:
        """Which tokens of each head are kept, by a walk from x = 2 marginals - 1."""
        vectors = self.vectors(tokens.keys, tokens.values, -log_pi, tokens.measure, uniforms)
        return self.rule(vectors, 2 * marginals - 1, uniforms)


@dataclass(frozen=True)
class _Tokens:
    """Keys, values and law of some heads, or of some buckets as if each were a head."""

    keys: Tensor
    values: Tensor
    measure: Law

    def bucket(self, indices: Tensor, heads: Tensor) -> "_Tokens":
        """The tokens `indices` ``[G, S]`` of `heads` ``[G]``."""
        rows = heads.unsqueeze(-1)
        law = Law(self.measure.log_p[rows, indices], self.measure.center[heads], self.measure.scale[heads])
        return _Tokens(self.keys[rows, indices], self.values[rows, indices], law)


def _uniforms(generator: Generators, heads: int, steps: list[Round]) -> list[Tensor]:
    """Uniforms of each round, ``[H, 2, tokens]``, or ``[H, 4, slots]`` where buckets are to be dealt."""
    if all(step.buckets == 1 for step in steps):
        drawn = draw(generator, heads, len(steps), 2, steps[0].tokens)
        return [drawn[:, place, :, : step.tokens] for place, step in enumerate(steps)]
    slots = [step.buckets * step.width for step in steps]
    return list(draw(generator, heads, 4, sum(slots)).split(slots, dim=-1))


def _rounds(
    tokens: _Tokens, log_pi: Tensor, steps: list[Round], uniforms: list[Tensor], walk: _Walk
) -> tuple[Tensor, Tensor]:
    """Indices (sorted) and log inclusion probabilities ``[H, size]`` after the last round."""
    heads, n = log_pi.shape
    indices = torch.arange(n, device=log_pi.device).repeat(heads, 1)
    for step, drawn in zip(steps, uniforms, strict=True):
        numbers = drawn.to(log_pi.device)
        if step.buckets == 1:
            members = torch.arange(step.tokens, device=log_pi.device).repeat(heads, 1, 1)  # [H, B, S]
            real, targets = members >= 0, torch.full_like(members[..., 0], step.target)
        else:
            log_p = tokens.measure.log_p.gather(-1, indices) - log_pi
            members, real, targets = deal(log_p, step, numbers[:, 2:])
        indices, log_pi = (t.gather(-1, members.flatten(1)) for t in (indices, log_pi))
        shape = (heads * step.buckets, step.width)
        numbers = numbers[:, :2].reshape(heads, 2, *members.shape[1:]).transpose(1, 2).reshape(shape[0], 2, shape[1])
        parts = (indices.reshape(shape), log_pi.reshape(shape), real.reshape(shape), targets.flatten(), numbers)
        log_pi, kept = (t.reshape(heads, -1) for t in _walk_buckets(tokens, *parts, step.buckets, walk))
        chosen = kept_tokens(kept, step.target)
        indices, order = indices.gather(-1, chosen).sort(dim=-1)
        log_pi = log_pi.gather(-1, chosen).gather(-1, order)
    return indices, log_pi


def _walk_buckets(
    tokens: _Tokens,
    indices: Tensor,
    log_pi: Tensor,
    real: Tensor,
    targets: Tensor,
    uniforms: Tensor,
    buckets: int,
    walk: _Walk,
) -> tuple[Tensor, Tensor]:
    """Log inclusion probabilities and which tokens are kept, ``[G, S]``, after a walk in each of the G buckets."""
    width = indices.shape[-1]
    heads = torch.arange(len(indices), device=indices.device) // buckets
    marginals = conditional_marginals(tokens.measure.log_p[heads.unsqueeze(-1), indices] - log_pi, real, targets)
    log_pi = log_pi + marginals.clamp_min(1e-300).log()
    log_pi = torch.where(real, log_pi, log_pi[:, :1])  # what fills a bucket up is its first token once more
    chunk = max(1, (_MAX_GRAM if buckets == 1 else _BUCKET_GRAM) // width**2)
    split = (t.split(chunk) for t in (heads, indices, log_pi, marginals, uniforms))
    kept = torch.cat([walk.kept(tokens.bucket(i, h), lp, m, u) for h, i, lp, m, u in zip(*split, strict=True)])
    if not bool((kept.sum(-1) == targets).all()):
        raise RuntimeError(f"a balancing rule kept {kept.sum(-1).tolist()} tokens where {targets.tolist()} were asked")
    return log_pi, kept
