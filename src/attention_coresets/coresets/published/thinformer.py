"""Thinformer: kernel halving of exp<k_i, k_j> (<v_i, v_j> + b^2) in buckets that merge, an unweighted subset."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.checks import one_of, unit_interval
from attention_coresets.coresets.balancing.buckets import rounds
from attention_coresets.coresets.balancing.recursion import Tokens, Walk, all_uniforms, run_rounds
from attention_coresets.coresets.base import Construction, Request
from attention_coresets.coresets.kernel.law import Law
from attention_coresets.coresets.walks.pairs import Rule, pair_signs

SCALES = ("one", "inv_sqrt_d")
Factors = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Thinformer(Construction):
    """Halves tokens pair by pair for the kernel of attention, first in small buckets, in the end all at once.

    The kernel is K_ij = exp(a^2 <k_i, k_j>) (<v_i, v_j> + b^2), with b the largest entry of a value. Keys are not
    centred. For the t-th pair (x, x') of a bucket of s tokens let f_t be the feature of x less that of x', and alpha =
    <f_t, features kept - features left so far>. Then x is kept with probability

        (1 - alpha / a_t) / 2, clipped to [0, 1],   a_t = |f_t| max_{u <= t} |f_u| (1/2 + log(2 s / delta_s)).

    Compress(g) with 4^g = size^2 / n: buckets of 4^(g+1) tokens are halved, two halves make a bucket of the next round,
    and in the last round all 2 size tokens left are one bucket. delta_s = delta s^2 / (2 size^2 (1 + 2 r)) for r rounds
    in buckets, and half of that in the last round.

    Three things differ from the repository, for a coreset of any size of any cache. g is rounded to a whole number, at
    least 0; the repository drops tokens until n is a power of 4, and returns 2^g sqrt n of them. Tokens are dealt to
    buckets at random, where it takes them as they come. The first pair of a bucket is tossed for; there it is fixed,
    and the kept half is then exchanged for the other by a coin, the same but in its last round.

    scale: a^2. "inv_sqrt_d" is 1 / sqrt(d), the source's, for keys as a model computes them; "one" is for queries and
        keys whose products are the logits.
    delta: failure probability.

    Cost: O(4^g n log n) kernel values of d + dv multiply-adds, and n pairs a head.

    Source: Carrell, Gong, Shetty, Dwivedi and Mackey 2025 (Low-Rank Thinning, arXiv 2502.12063), after the code of
    github.com/microsoft/thinformer; of the paper the abstract was read.
    """

    scale: str = "inv_sqrt_d"
    delta: float = 0.5
    model: ClassVar[str] = "unweighted"

    def __post_init__(self) -> None:
        one_of("scale", self.scale, SCALES)
        unit_interval(delta=self.delta)

    @property
    def model_units(self) -> bool:
        """Tells whether keys are wanted as the model computes them, for which alone 1 / sqrt(d) is meant."""
        return self.scale == "inv_sqrt_d"

    def choose(self, request: Request) -> Coreset:
        cache, size = request.cache, request.size
        keys, values = (t.reshape(-1, *t.shape[-2:]) for t in (cache.keys, cache.values))
        scale = torch.full_like(keys[:, 0, 0], 1.0 if self.scale == "one" else cache.d**-0.5)
        even = torch.zeros_like(keys[..., 0])
        tokens = Tokens(keys, _in_units(values), Law(even, torch.zeros_like(keys[:, 0]), scale))
        steps = rounds(cache.n, size, "compress", max(0, round(math.log2(size) - math.log2(cache.n) / 2)))
        factor = 2 * size**2 * (2 * len(steps) - 1) / self.delta  # of s^2 / delta_s
        walk = Walk(lambda factors, x, uniforms: _signs(factors, x, uniforms[:, 0], size, factor), _factors)
        indices, _ = run_rounds(tokens, even, steps, all_uniforms(request.generator, len(keys), steps), walk)
        return Coreset(indices.reshape(*cache.heads, size))


def _in_units(values: Tensor) -> Tensor:
    """Divides values by the largest entry of all, b: then K is proportional to exp(..) (<v_i, v_j> + 1)."""
    return values / values.abs().flatten(1).amax(-1).clamp_min(1e-300)[:, None, None]


def _factors(keys: Tensor, values: Tensor, log_weights: Tensor, law: Law, uniforms: Tensor) -> Factors:
    """Makes the factors of K over its largest key's exponential, as `kernel_panel` of kernel/law.py reads them."""
    x = keys * law.scale.sqrt()[:, None, None]
    longest = x.square().sum(-1).amax(-1, keepdim=True)
    return x, values, (-0.5 * longest).expand_as(log_weights)


def _signs(factors: Factors, x: Tensor, uniforms: Tensor, size: int, factor: float) -> Tensor:
    s = x.shape[-1]
    factor = 2 * factor if s == 2 * size else factor
    return pair_signs(factors, x, uniforms, _Halving(0.5 + math.log(2 * factor / s)))


class _Halving(Rule):
    def __init__(self, log_factor: float) -> None:
        self.log_factor = log_factor
        self.longest: Tensor | float = 0.0  # the largest |f|^2 so far

    def start(self, norm2: Tensor, fair: Tensor) -> tuple[Tensor, Tensor]:
        longest = norm2.cummax(dim=-1).values.clamp_min(self.longest)
        self.longest = longest[:, -1:]
        a = (norm2 * longest).sqrt() * self.log_factor
        # a pair of equal tokens has a = 0: a fair coin
        return torch.zeros_like(fair), (2 * a).reciprocal().nan_to_num(posinf=0.0)
