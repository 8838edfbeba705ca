"""The balancing constant Gamma of a set of queries: the cheapest factorisation of their softmax weights."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 1e-9  # relative: singular values and weights are kept above it, which leaves every bound valid


@dataclass(frozen=True)
class Factorisation:
    """P = left @ right, softmax_i(q) = <f_q, g_i>: rows f of left ``[b, b]``, columns g of right ``[b, n]``.

    gamma = max |f_q| * sum |g_i|, an upper bound on the smallest possible, which is at least `lower`.
    """

    left: Float[Tensor, "b b"]
    right: Float[Tensor, "b n"]
    gamma: float
    lower: float


def balancing_constant(weights: Float[Tensor, "b n"], iterations: int = 25, tolerance: float = 0.01) -> Factorisation:
    """Gamma = min over factorisations weights = F G of max_q |f_q| * sum_i |g_i| (docs/theory.md).

    For query weights w and token weights p, both summing to 1, sqrt(sum w |f|^2 * sum |g|^2 / p) is smallest for F =
    D_w^{-1/2} U S^{1/2}, G = S^{1/2} V^T D_p^{1/2} with D_w^{1/2} P D_p^{-1/2} = U S V^T, where it is h(w, p) = sum S,
    and Gamma = min_p max_w h: concave in w, convex in p. Steps: w times |f|^4, p proportional to |g|. Any (w, p) gives
    a valid factorisation, the best met is returned; a tangent of h in p gives `lower`. Gamma is at least the total
    sensitivity sum_i max_q P_qi. Stops within 1 + tolerance of `lower`. Cost O(b^2 n + b^3) a step. Rows need not sum
    to 1, entries must be finite (ValueError).
    """
    if not bool(weights.isfinite().all()):
        raise ValueError("weights hold NaN or Inf")
    w = torch.full_like(weights[:, 0], 1 / len(weights))
    p = weights.amax(dim=0)
    p = p / p.sum()
    best: Factorisation | None = None
    lower = float(weights.amax(dim=0).sum()) if bool((weights >= 0).all()) else 0.0
    for _ in range(iterations):
        floored = p.clamp_min(_SMALL / len(p))
        left, right, value = _factors(weights, w, floored)
        f, g = left.norm(dim=-1), right.norm(dim=0)
        # h is convex in p with slope -|g_i|^2 / 2 p_i^2 at i: its tangent's least value over all p bounds Gamma below
        lower = max(lower, 1.5 * value - 0.5 * float((g / floored).square().max()))
        gamma = float(f.max() * g.sum())
        if best is None or gamma < best.gamma:
            best = Factorisation(left, right, gamma, lower)
        if best.gamma <= lower * (1 + tolerance):
            break
        w = (w * f**4).clamp_min(_SMALL / len(w))
        w, p = w / w.sum(), g / g.sum()
    assert best is not None
    return Factorisation(best.left, best.right, best.gamma, lower)


def _factors(weights: Tensor, w: Tensor, p: Tensor) -> tuple[Tensor, Tensor, float]:
    """F, G and sum S. U and S come from the b x b Gram matrix; F G = P whatever S, as U is orthogonal."""
    root = w.sqrt().unsqueeze(-1)
    scaled = root * weights  # D_w^{1/2} P
    squared, u = torch.linalg.eigh((scaled / p) @ scaled.mT)
    s = squared.clamp_min(0).sqrt()
    s = s.clamp_min(_SMALL * float(s[-1]))
    left = u * s.sqrt() / root
    right = (u.mT @ scaled) / s.sqrt().unsqueeze(-1)
    return left, right, float(s.sum())
