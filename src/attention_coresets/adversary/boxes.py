"""Bounds the error from above over boxes of queries, by an expansion of second order at a point of each.

Let D(q) be the difference of the two attentions, c the point, and J and T the first and second derivative of D at c.
For every step s = q - c of the box

    |D(c+s)| <= max(|D|, |M|),   M = D + J s + T[s,s]/2 + rest.

docs/certificates.md proves it and bounds the rest. Here kb is the cache's mean key under its softmax P, and dk what the
two sides' mean keys differ by.

|D + J s| is convex, hence largest at a corner of the box. The box is first cut by what |c+s| <= rho implies, so that
the ceiling stays of second order at the sphere, where most maxima lie.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.problem import EPS, Problem

_FAR = 300.0  # nats; over a longer reach a weight that underflowed could come back: no expansion there


def ceilings(
    problem: Problem, low: Float[Tensor, "B d"], high: Float[Tensor, "B d"]
) -> tuple[Float[Tensor, "B d"], Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Bounds the error over each box low <= q <= high, with what it is at one query.

    Returns a query of the ball near the box's centre, the error there, and a number that the error exceeds nowhere in
    box and ball.

    Cost: O(n (d + 1)^2 dv) flops and O(n) memory a box.
    """
    kept, d = problem.kept, low.shape[1]
    point = (low + high) / 2
    point = point * (problem.rho / point.norm(dim=-1, keepdim=True).clamp_min(problem.rho))
    # the point is the box's centre, drawn into the ball: from there the box reaches h
    h = torch.maximum((high - point).abs(), (low - point).abs())
    logits = point @ problem.keys.mT  # [B, n]
    # one product with the features gives all moments of all boxes
    p_kept = (logits[:, kept] + problem.log_weights).softmax(dim=-1)
    p = (logits if problem.base is None else logits + problem.base).softmax(dim=-1)
    raw = (p @ problem.features).unflatten(-1, (1 + d + d * d, -1))
    raw_kept = (p_kept @ problem.features[kept]).unflatten(-1, (1 + d + d * d, -1))
    center = raw[:, 1 : 1 + d, -1]  # kb
    full, core = _moments(raw, center), _moments(raw_kept, center)
    difference = full.attention - core.attention
    error = difference.norm(dim=-1)
    step = low - point, high - point
    linear = _largest(difference, full.slope - core.slope, *step, point, problem.rho, problem.cube)
    rest = _rest(problem, p, p_kept, full, core, _reach(problem.keys, center, h), h)
    m = linear + _form(_curvature(full, core).norm(dim=-1), h) / 2 + rest
    m = m.nan_to_num(nan=torch.inf)  # numbers out of range: the hull answers
    ceiling = torch.maximum(error, m) + problem.rounding
    return point, error, ceiling.clamp_max(problem.hull)


@dataclass(frozen=True)
class _Moments:
    """Moments of the tokens under one softmax p, with x_i = k_i - kb.

    attention is A; slope is sum p x (v - A); curve is sum p x x^T (v - A); mean is sum p x; spread is sum p x x^T.
    """

    attention: Float[Tensor, "B dv"]
    slope: Float[Tensor, "B d dv"]
    curve: Float[Tensor, "B d d dv"]
    mean: Float[Tensor, "B d"]
    spread: Float[Tensor, "B d d"]


def _moments(raw: Tensor, center: Tensor) -> _Moments:
    """Moves the mean features `raw` ``[B, 1 + d + d^2, dv + 1]``, which are moments about 0, to `center`."""
    d = center.shape[1]
    k = center.unsqueeze(-1)  # [B, d, 1]
    zero, first, second = raw[:, :1], raw[:, 1 : 1 + d], raw[:, 1 + d :].unflatten(1, (d, d))
    first = first - k * zero
    cross = k.unsqueeze(2) * first.unsqueeze(1)  # [B, d, d, dv + 1]
    second = second - cross - cross.transpose(1, 2) - k.unsqueeze(2) * k.unsqueeze(1) * zero.unsqueeze(1)
    attention = zero[..., :-1]  # [B, 1, dv]
    slope = first[..., :-1] - first[..., -1:] * attention
    curve = second[..., :-1] - second[..., -1:] * attention.unsqueeze(1)
    return _Moments(attention.squeeze(1), slope, curve, first[..., -1], second[..., -1])


def _largest(
    start: Tensor, slope: Tensor, low: Tensor, high: Tensor, point: Tensor, rho: float, cube: tuple[Tensor, Tensor]
) -> Tensor:
    """Returns max |start + s slope| over low <= s <= high with <point, s> <= (rho^2 - |point|^2) / 2, which the ball
    implies.

    A convex function is largest at a corner: one that the cut leaves, or where the cut crosses an edge.
    """
    which, edges = cube
    corners = torch.where(which, high.unsqueeze(1), low.unsqueeze(1))  # [B, 2^d, d]
    images = start.unsqueeze(1) + corners @ slope  # [B, 2^d, dv]
    room = (rho**2 - point.square().sum(-1)) / 2
    beyond = (corners @ point.unsqueeze(-1)).squeeze(-1) - room.unsqueeze(-1)
    # a corner within rounding of the cut counts as inside, lest both it and its crossings be lost
    inside = images.norm(dim=-1).masked_fill(beyond > 8 * EPS * rho**2, 0.0)
    a, b = beyond[:, edges[:, 0]], beyond[:, edges[:, 1]]
    share = (a / (a - b)).unsqueeze(-1)
    crossing = images[:, edges[:, 0]].lerp(images[:, edges[:, 1]], share).norm(dim=-1)
    return torch.maximum(inside.amax(-1), crossing.masked_fill(a * b >= 0, 0.0).amax(-1))


def _curvature(full: _Moments, core: _Moments) -> Tensor:
    """Returns T, the second derivative of D ``[B, d, d, dv]``."""
    cross = (full.mean - core.mean)[:, :, None, None] * core.slope.unsqueeze(1)
    return full.curve - core.curve - cross - cross.transpose(1, 2)


def _form(matrix: Tensor, h: Tensor) -> Tensor:
    """Returns h^T matrix h ``[B]``."""
    return (matrix * h.unsqueeze(-1) * h.unsqueeze(-2)).sum((1, 2))


def _reach(keys: Tensor, center: Tensor, h: Tensor) -> Tensor:
    """Returns max |<k_i - kb, s>| over the box ``[B, n]``, an axis at a time to spare memory."""
    reach = h.new_zeros(len(h), len(keys))
    for axis in range(keys.shape[1]):
        reach.addcmul_((keys[:, axis] - center[:, axis, None]).abs_(), h[:, axis, None])
    return reach


def _rest(
    problem: Problem, p: Tensor, p_kept: Tensor, full: _Moments, core: _Moments, reach: Tensor, h: Tensor
) -> Tensor:
    """Bounds |rest| ``[B]``; infinite for boxes of too long a reach."""
    psi = torch.expm1(reach) - reach - reach.square() / 2
    apart = p.index_add(1, problem.kept, p_kept, alpha=-1).abs_()
    offset = torch.cdist(core.attention, problem.values, compute_mode="donot_use_mm_for_euclid_dist")
    error = (full.attention - core.attention).norm(dim=-1, keepdim=True)
    third = (apart * offset + p * error).mul_(psi).sum(-1)
    beta_1, beta_2 = _betas(full, core, (apart * psi).sum(-1), h)
    own = reach[:, problem.kept] + beta_1.unsqueeze(-1)  # about the coreset's own mean key
    alpha_1, alpha_2 = _alphas(core, p_kept, own, offset[:, problem.kept], h)
    rest = third + alpha_2 * (beta_1 + beta_2) + alpha_1 * beta_2
    return torch.where(reach.amax(dim=-1) > _FAR, torch.inf, rest)


def _alphas(core: _Moments, p_kept: Tensor, own: Tensor, offset: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds |J's| and |A'(c+s) - A' - J's|.

    The second is the rest of the first-order expansion of one quotient, whose denominator is at least 1.
    """
    alpha_1 = (core.slope.norm(dim=-1) * h).sum(-1)
    second = (torch.expm1(own) - own) * p_kept
    return alpha_1, (second * offset).sum(-1) + alpha_1 * second.sum(-1)


def _betas(full: _Moments, core: _Moments, third: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds |<dk,s>| and |sum_i (P_i - P'_i)(e^{a_i} - 1 - a_i)|, whose part beyond second order is in `third`."""
    beta_2 = _form((full.spread - core.spread).abs(), h) / 2 + third
    return ((full.mean - core.mean).abs() * h).sum(-1), beta_2
