"""Kernel halving, the rule of kernel thinning: a self-balancing walk with thresholds that adapt to the data."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attention_coresets.checks import unit_interval
from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.walks.pairs import Features, Rule, pair_signs


@dataclass(frozen=True)
class KernelHalving(Balancing):
    """Keeps one of each pair of tokens, more often the one that leaves less discrepancy.

    For a consecutive pair (x, x') let f = phi(x) - phi(x') with phi the kernel's features, b^2 = |f|^2, alpha = <f,
    features kept - features left so far>, and s^2 a running sum that starts at 0. With L = 2 ln(2n / delta) and a =
    max(sqrt(s^2 b^2 L), b^2), x is kept with probability

        (1 - alpha / a) / 2, clipped to [0, 1],

    and s^2 grows by b^2 max(0, 1 + (b^2 / a - 2) s^2 / a). For marginals other than 1/2, the 1/2 becomes the
    probability that keeps the mean.

    delta: failure probability in L.
    model, scale, recursion, refinement: as in `Balancing`.

    Cost: O(n^2) a stage.

    Source: Dwivedi and Mackey 2021 (kernel thinning); goodpoints `halve_K`.
    """

    delta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        unit_interval(delta=self.delta)

    def signs(self, vectors: Features, x: Tensor, uniforms: Tensor) -> Tensor:
        return kernel_halving_signs(vectors, x, uniforms[:, 0], self.delta)


def kernel_halving_signs(
    gram: Tensor | Features, x: Tensor, uniforms: Tensor, delta: float = 0.5, tokens: Tensor | None = None
) -> Tensor:
    """Tells which tokens of each head are kept: gram ``[H, n, n]`` or its features, x and uniforms ``[H, n]``.

    One uniform is used a pair. With `tokens` ``[H, k]`` only these rows and columns of a Gram matrix are looked at, and
    x, uniforms and what is returned are ``[H, k]``.
    """
    return pair_signs(gram, x, uniforms, _KernelHalving(2 * math.log(2 * x.shape[-1] / delta)), tokens)


class _KernelHalving(Rule):
    def __init__(self, log_factor: float) -> None:
        self.log_factor = log_factor
        self.compiled = ("kernel_halving", log_factor)
        self.variance: Tensor | None = None  # the running s^2 [H], on the host

    def start(self, norm2: Tensor, fair: Tensor) -> tuple[Tensor, Tensor]:
        # no choice changes s^2: the host, where small steps are cheap, takes all of a round's at once
        pairs = norm2.mT.cpu()
        s2, slopes = torch.zeros_like(pairs[0]) if self.variance is None else self.variance, []
        for b2 in pairs:
            a = torch.maximum((s2 * b2 * self.log_factor).sqrt(), b2)
            inverse = a.reciprocal().nan_to_num(posinf=0.0)  # equal tokens: a fair coin
            s2 = s2 + b2 * (1 + (b2 * inverse - 2) * (s2 * inverse)).clamp_min(0)
            slopes.append(inverse / 2)
        self.variance = s2
        return torch.zeros_like(fair), torch.stack(slopes, dim=-1).to(norm2.device)
