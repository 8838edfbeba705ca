"""Defines the type of a balancing rule: signs for vectors in a feature space, and what all such rules share."""

from abc import abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, WeightedCache, base_weights
from attention_coresets.coresets.agreement import Agreement, of_refinement
from attention_coresets.coresets.balancing.buckets import RECURSIONS, Round, rounds
from attention_coresets.coresets.balancing.recursion import (
    BUCKET_GRAM,
    MAX_GRAM,
    Tokens,
    Walk,
    all_uniforms,
    run_rounds,
)
from attention_coresets.coresets.balancing.refinement import ROUND_SWAPS, check_refinement, refine
from attention_coresets.coresets.base import MODELS, Construction, Cost, Request
from attention_coresets.coresets.kernel.law import SCALES, Law, balancing_features, law
from attention_coresets.coresets.kernel.unit_kernel import DENSE
from attention_coresets.coresets.randomness import seeded
from attention_coresets.coresets.shared import Shared
from attention_coresets.devices import at_once, in_parts
from attention_coresets.registry import check_name
from attention_coresets.threads import one_thread

_WORTH_THREADS = 4e8  # flops of all rounds, below which threads wait longer than they work


@dataclass(frozen=True)
class Balancing(Construction):
    """Keeps tokens of sign +1, signs so chosen that plus and minus weigh about the same in a feature space.

    A rule gives `signs`. It also gives `vectors` where it does not read the factors of the kernel

        exp(a^2 <k_i - mu, k_j - mu>) (<v_i, v_j> + 1) / (pi_i pi_j),

    with pi_i the marginal of token i (the probability that it is kept), mu the centre of the keys and a^2 the kernel's
    scale (`law` of kernel/law.py). The rest is shared (recursion.py).

    model: "tilted": marginals from p* (`tilt` of theory.py), a^2 = rho / sigma, log-weights -log pi. "unweighted":
        marginals m / n, a^2 = rho / R. "free": tokens as in tilted, weights fitted.
    scale: replaces a^2 by 1 ("one"), 1 / sqrt(d) ("inv_sqrt_d") or rho ("rho"); "auto" leaves it.
    recursion: how n tokens become m: "one_walk" at once, "halving" again and again, or in buckets (buckets.py).
    refinement: what follows: "none", swaps of tokens, after all rounds or after each, or minimax and its parts
        (refinement.py).
    """

    takes_weights: ClassVar[bool] = True
    model: str = "tilted"
    scale: str = "auto"
    recursion: str = "halving"
    refinement: str = "none"

    def __post_init__(self) -> None:
        check_name(self.model, MODELS, "model")
        check_name(self.scale, SCALES, "scale")
        check_name(self.recursion, RECURSIONS, "recursion")
        check_refinement(self.model, self.refinement)

    @property
    def agreement(self) -> Agreement:
        """Tells how far two runs may differ by rounding: what the refinement leaves."""
        return of_refinement(self.model, self.refinement)

    @abstractmethod
    def signs(self, vectors: Any, x: Tensor, uniforms: Tensor) -> Tensor:
        """Rounds the fractional signs x = 2 pi - 1, ``[H, n]``, to +-1; True where a token is kept.

        `uniforms` ``[H, 2, n]`` are all the random numbers there are. The sum of x, a whole number, must not change.
        """

    def vectors(self, keys: Tensor, values: Tensor, log_weights: Tensor, law: Law, uniforms: Tensor) -> Any:
        """Makes what `signs` balances, of keys ``[H, n, d]``: here the factors of Gram matrices (kernel_panel)."""
        return balancing_features(keys, values, log_weights, law)

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Estimates the kernel's rows one by one, and whole Gram matrices where a refinement holds them."""
        steps = rounds(n, size, self.recursion)
        pairs = sum(step.buckets * step.width**2 for step in steps)
        whole = n**2 if self.refinement not in ("none", ROUND_SWAPS) or self.model == "free" else 0
        by_rows = self.refinement in ("none", "kernel_swaps", ROUND_SWAPS)  # beyond DENSE tokens
        held = whole if n <= DENSE or not by_rows else 0
        if self.refinement == ROUND_SWAPS:
            widths = [step.width for step in steps if step.width <= DENSE]
            held = max([held, *(max(width**2, min(n * width, BUCKET_GRAM)) for width in widths)])
            pairs *= 2  # the walk's, and those of the swaps
        return Cost(4 * n * d + 3 * held, 4 * d * (pairs + whole))

    def choose(self, request: Request) -> Coreset:
        """Picks `size` tokens of every head by rounds of `signs`, and refines them.

        A round (buckets.py) gives the tokens left in each bucket the marginals min(1, c p_i / pi_i), which sum to the
        bucket's target, and rounds x = 2 marginals - 1. pi_i is the product of a token's marginals so far, so that
        weights 1 / pi_i are unbiased by rules that keep the mean (coin, walks, draws), without swaps.

        After the first round every marginal of an uncapped token is 1/2, up to how much the p of its bucket differ from
        those of others. A last round of one bucket makes pi proportional to p again where nothing is capped.

        A WeightedCache starts from pi = 1 / weight, and gets log-weights in every model.
        """
        cache, own = request.cache, base_weights(request.cache)
        keys, values = (t.reshape(-1, *t.shape[-2:]) for t in (cache.keys, cache.values))
        base = torch.zeros_like(keys[..., 0]) if own is None else own.reshape(keys.shape[:-1])
        steps = rounds(cache.n, request.size, self.recursion)
        uniforms = all_uniforms(request.generator, len(keys), steps)
        chunk = at_once(cache.n**2, keys.device, MAX_GRAM)

        def of_part(part: slice) -> Coreset:
            # what parts of the heads leave would take the memory that they are cut for, and is not of other parts
            shared = request.shared if part == slice(0, len(keys)) else None
            k, v, b, *u = (t[part] for t in (keys, values, base, *uniforms))
            heads = Cache(k, v) if own is None else WeightedCache(k, v, b)
            return self._of_heads(heads, b, request.rho, steps, u, shared)

        return _joined(in_parts(of_part, len(keys), chunk), cache)

    def walk(self, n: int, shared: Shared | None) -> Walk:
        """Returns the rule as rounds play it, on n tokens at first; `shared` may keep what other sizes need too."""
        return Walk(self.signs, self.vectors)

    def _of_heads(
        self,
        heads: Cache,
        base: Tensor,
        rho: float,
        steps: list[Round],
        uniforms: list[Tensor],
        shared: Shared | None,
    ) -> Coreset:
        """Picks the coresets of a flat batch of heads, in float64."""
        weighted = isinstance(heads, WeightedCache)

        def find() -> Law:
            return law(heads.keys, rho, self.model, self.scale, base if weighted else None)

        measure = find() if shared is None else shared.once("law", find)
        walk, tokens = self.walk(heads.n, shared), Tokens(heads.keys, heads.values, measure)
        small = len(base) * self.cost(heads.n, steps[-1].target, heads.keys.shape[-1]).flops < _WORTH_THREADS
        with one_thread() if small else nullcontext():
            indices, log_pi = run_rounds(tokens, -base, steps, uniforms, walk, self.refinement == ROUND_SWAPS)
        coreset = Coreset(indices, None if self.model == "unweighted" and not weighted else -log_pi)
        generators = seeded(uniforms[0][:, 0, 0])
        return refine(heads, coreset, rho, measure, generators, model=self.model, refinement=self.refinement)


def _joined(parts: list[Coreset], cache: Cache) -> Coreset:
    indices = torch.cat([part.indices for part in parts])
    shape = (*cache.heads, indices.shape[-1])
    weights = [part.log_weights for part in parts if part.log_weights is not None]
    return Coreset(indices.reshape(shape), torch.cat(weights).reshape(shape) if weights else None)
