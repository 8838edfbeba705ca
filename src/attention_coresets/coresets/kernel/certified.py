"""Exchanges tokens and fits weights so that the kernel certificate itself is small: refinement "certificate"."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attention_coresets.adversary.degree_weights import DegreeWeights
from attention_coresets.adversary.difference import Difference, differences
from attention_coresets.adversary.kernel import OVERFLOW, Series, ceiling_about
from attention_coresets.adversary.moments import degrees_needed
from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.selection import floored_log

# the p of each round's search for the kernel: exchanges abuse one of few directions, so they begin near the trace
_POWERS = tuple(1.1 * 1.8 ** (step / 15) for step in range(16))
_LAST_POWERS = (3.0,) * 6  # of rounds that fit weights alone
_STEPS = 12  # of a search
_SHARE = 0.25  # of the tokens are exchanged in a round, at most


def certified(cache: Cache, coreset: Coreset, rho: float) -> Coreset:
    """Lowers the kernel certificate (adversary/kernel.py) by exchanges of tokens and by weights, from a coreset on.

    The certificate is the largest, over unit vectors y, of sum_j rho^j / j! |T_j(y)|: a norm of the vector of weights,
    convex in it. For weights alpha_j of the degrees and a mixture Y of y y^T its square is at most a quadratic form,
    that of the kernel

        G_ik = sum_j alpha_j <x_i, x_k>^j (u_i, 1)^T Y (u_k, 1).

    In turn, `degree_weights` finds alpha and Y for the weights at hand, and `exchange` finds tokens and weights for G.
    What is kept is the least certificate met, that of the start included. About which law keys and values are centred
    is fixed by the start.

    Cost: for each head and round n^2 (J + d) flops for G and up to m / 4 exchanges of O(m n); the moments take n^2 J
    (dv + 1) once and m n J (dv + 1) a round. Memory: four n x n matrices and n J (dv + 1) numbers, a head at a time.

    Parameters
    ----------
    cache : Cache
        A flat batch of heads, float64.
    coreset : Coreset
        Of the same batch.
    rho : float

    Returns
    -------
    Coreset
        Of the same size, of the model "free".
    """
    laws = list(differences(cache, coreset, rho))
    if coreset.log_weights is None:
        raise ValueError("a coreset of fitted weights is refined, and this one has none")
    ceilings, best = torch.stack([ceiling_about(law, rho) for law in laws]).min(0)
    chosen = [
        _Head(_head(laws[which], h), rho).search(coreset.indices[h], coreset.log_weights[h], float(ceilings[h]))
        for h, which in enumerate(best.tolist())
    ]
    tokens, log_weights = (torch.stack(part) for part in zip(*chosen, strict=True))
    return Coreset(tokens, log_weights)


def _head(law: Difference, h: int) -> Difference:
    """Returns one head of a difference, as a batch of one."""
    parts = {name: value[h : h + 1] for name, value in vars(law).items() if value is not None}
    return replace(law, **parts)


@dataclass(frozen=True)
class _Met:
    """Tokens ``[m]`` and weights ``[m]`` of sum n, their moments, the radius of their output, and their ceiling."""

    tokens: Tensor
    weights: Tensor
    moments: Tensor
    output: Tensor
    ceiling: float


class _Head:
    """Moments about one law of a head, for any tokens and weights."""

    def __init__(self, law: Difference, rho: float) -> None:
        self.law, self.rho, self.n = law, rho, law.c.shape[-1]
        self.scale = law.output_radius.clamp_min(1e-300)
        law = replace(law, u=law.u / self.scale[:, None, None])
        z = float((rho * law.reach).clamp_max(OVERFLOW))
        self.series = Series.of(law, rho, degrees_needed(z))
        self.centred = self.series.bound(self.series.full, None).clamp_max(1.0)
        x = law.x[0] / law.reach.clamp_min(1e-300)
        self.inner = x @ x.mT
        ones = torch.ones_like(law.c[0])
        self.features = torch.cat([law.u[0], ones.unsqueeze(-1)], dim=-1)
        self.base = ones if law.weights is None else law.weights[0]
        panels, whole = [], self.base.unsqueeze(-1) * self.features / self.n
        power = torch.ones_like(self.inner)
        for _ in range(self.series.degrees + 1):
            panels.append(power @ whole)
            power *= self.inner
        self.panels = torch.stack(panels)  # [J+1, n, e], sum_k <x_i,x_k>^j W_k f_k / n
        self.all = whole.mT @ self.panels  # [J+1, e, e]

    def moments(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """Returns sum_ik c_i c_k <x_i,x_k>^j f_i f_k^T / n^2 ``[1, J+1, e, e]`` of c = W - w."""
        own = self.features[tokens] * (weights / self.n).unsqueeze(-1)
        inner, cross = self.inner[tokens][:, tokens], own.mT @ self.panels[:, tokens]
        power, kept = torch.ones_like(inner), []
        for _ in range(self.series.degrees + 1):
            kept.append(own.mT @ (power @ own))
            power = power * inner
        return (self.all - cross - cross.mT + torch.stack(kept)).unsqueeze(0).cpu()

    def search(self, tokens: Tensor, log_weights: Tensor, ceiling: float) -> tuple[Tensor, Tensor]:
        """Returns tokens and log-weights of the least ceiling met; `ceiling`: that of those it begins with."""
        output = (self.centred + ceiling / self.scale.cpu()).clamp_max(1.0)
        met = self._met(tokens, self.n * log_weights.softmax(-1), output)
        met = best = replace(met, ceiling=min(met.ceiling, ceiling / float(self.scale)))
        for power in _POWERS:
            met = self._after(met, power, math.ceil(_SHARE * len(tokens)))
            best = min(best, met, key=lambda one: one.ceiling)
        met = best
        for power in _LAST_POWERS:
            met = self._after(met, power, 0)
            best = min(best, met, key=lambda one: one.ceiling)
        return best.tokens, floored_log(best.weights.unsqueeze(0))[0]

    def _met(self, tokens: Tensor, weights: Tensor, output: Tensor) -> "_Met":
        """Computes what the search needs to know of tokens and weights, from a radius of the coreset's output."""
        moments = self.moments(tokens, weights)
        ceiling = self.series.bound(moments, output)
        return _Met(tokens, weights, moments, torch.minimum(output, self.centred + ceiling), float(ceiling))

    def _after(self, met: "_Met", power: float, moves: int) -> "_Met":
        """Finds the kernel of these weights and exchanges tokens for it; weights are its best."""
        gram = self._kernel(self.series.weigh(met.moments, met.output, (power,) * _STEPS))
        ends = torch.ones_like(gram[:1]) / self.n
        tokens, weights = exchange(gram.unsqueeze(0), ends, met.tokens.unsqueeze(0), moves=moves)
        return self._met(tokens[0], weights[0], met.output)

    def _kernel(self, found: DegreeWeights) -> Tensor:
        """Returns the form of w, of sum n, that c^T G c is for c = W - w: G centred at W / n."""
        alpha, mixture = (part[0].to(self.inner.device) for part in (found.alpha, found.mixture))
        total = torch.zeros_like(self.inner)
        for weight in alpha.flip(0):
            total.mul_(self.inner).add_(weight)
        total.mul_(self.features @ mixture @ self.features.mT)
        mean = total @ (self.base / self.n)
        return total.sub_(mean.unsqueeze(-1)).sub_(mean).add_(mean @ (self.base / self.n))
