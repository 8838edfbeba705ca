"""Kernel herding: each token is the one that best completes the running sum of features."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Coreset, base_weights
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.base import MODELS, Construction, Cost, Request
from attention_coresets.coresets.kernel.law import SCALES, capped_marginals, law
from attention_coresets.coresets.kernel.unit_kernel import DENSE, UnitKernel, unit_kernel
from attention_coresets.coresets.selection import first_best, mark, over_heads
from attention_coresets.registry import check_name

_TIE = 1e-9  # of the largest gain


@dataclass(frozen=True)
class Herding(Construction):
    """Keeps tokens whose features sum, after each one taken, to about the same share of the whole cache's sum.

    Let phi_i be token i's feature in the model's kernel, pi_i = min(1, c p_i) its marginal as in `GramSchmidtWalk`, and
    g_i = phi_i / pi_i. The k tokens of pi = 1 come first. With a the sum of their g, T = sum_j pi_j g_j the whole cache
    and share = (t - k) / (m - k), token t = k + 1, ..., m is the i that leaves

        |a + share (T - a) - sum of g over the t tokens|

    least, the first of equal ones. Where all |g_i| are equal, that is herding's largest <g_i, residual>. In the tilted
    model they differ by the values' norms alone.

    Log-weights are -log pi (tilted) or none (unweighted). Of a WeightedCache, token i counts w_i times: its marginal is
    min(1, c w_i p_i), g_i = w_i phi_i / pi_i, and log-weights are log(w_i / pi_i) in both models. No token is taken
    twice. Nothing is random: the generator is not used.

    model: "tilted" or "unweighted".
    scale: of the kernel (kernel/law.py).

    Cost: for one head, O(n^2 (d + dv)) once and O(n (d + dv)) a token. Memory O(n^2) up to n = 4096, then O(n).

    Source: Chen, Welling and Smola 2010.
    """

    takes_weights: ClassVar[bool] = True
    agreement: ClassVar[Agreement] = Agreement.TIES
    model: str = "tilted"
    scale: str = "auto"

    def __post_init__(self) -> None:
        if self.model == "free":
            raise ValueError("herding's weights follow from its marginals; model must be tilted or unweighted")
        check_name(self.model, MODELS, "model")
        check_name(self.scale, SCALES, "scale")

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Estimates the sums over all pairs."""
        return Cost(min(n, DENSE) * n, 4 * n**2 * d + 4 * n * size * d)

    def choose(self, request: Request) -> Coreset:
        cache, size, rho, own = request.cache, request.size, request.rho, base_weights(request.cache)

        def of_heads(keys: Tensor, values: Tensor, base: Tensor) -> tuple[Tensor, Tensor | None]:
            measure = law(keys, rho, self.model, self.scale, None if own is None else base)
            marginals = capped_marginals(measure.log_p + base, size)
            kernel = unit_kernel(keys, values, measure, dense=True)
            tokens = herd(replace(kernel, log_norms=kernel.log_norms + base), marginals, size)
            if self.model == "unweighted" and own is None:
                return tokens, None
            return tokens, (base - marginals.clamp_min(1e-300).log()).gather(-1, tokens)

        base = torch.zeros(request.heads, cache.n).to(cache.keys) if own is None else own.reshape(-1, cache.n)
        return over_heads(request, of_heads, each=base, numbers=min(cache.n, DENSE) * cache.n)


def herd(kernel: UnitKernel, marginals: Tensor, size: int) -> Tensor:
    """Returns the tokens ``[H, size]`` in the order herding takes them."""
    log_lengths = kernel.log_norms - marginals.clamp_min(1e-300).log()
    lengths = (log_lengths - log_lengths.amax(-1, keepdim=True)).exp()  # [H, n], |g_i|
    certain = marginals >= 1
    whole = kernel.everywhere(marginals * lengths) * lengths  # <g_i, T>
    first = torch.zeros_like(whole)  # <g_i, a>
    if bool(certain.any()):
        first = kernel.everywhere(certain * lengths) * lengths
    count = certain.sum(-1)  # [H], k
    covered, taken, tokens = torch.zeros_like(whole), torch.zeros_like(certain), []
    for t in range(1, size + 1):
        share = ((t - count) / (size - count).clamp_min(1)).clamp(0, 1)
        gain = 2 * (first + share.unsqueeze(-1) * (whole - first) - covered) - lengths.square()
        sure = certain & ~taken
        tie = torch.where(sure.any(-1), 0.0, _TIE * gain.abs().amax(-1))
        score = torch.where(sure.any(-1, keepdim=True), sure.to(gain.dtype), gain.masked_fill(taken, -torch.inf))
        token = first_best(score, tie)
        mark(taken, token)
        row = kernel.rows(token.unsqueeze(-1)).squeeze(-2)
        covered += row * lengths * lengths.gather(-1, token.unsqueeze(-1))
        tokens.append(token)
    return torch.stack(tokens, dim=-1)
