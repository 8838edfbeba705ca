"""Computes the tilt p*, its centre and spread, and the floor of the antipodal pair (docs/theory.md)."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.checks import number
from attention_coresets.inputs import Array, check_key_size, tensor

GAP_LIMIT = 1e-6  # nats; a tilt whose duality gap stays above it is refused
_TARGET_GAP = 1e-11
_NEWTON_STEPS = 200
_LEAST_SIGMA = 1e-12  # of `tilt_step`
_LARGEST_EXPONENT = 709.0  # e^709 is a float, e^710 none
_LARGEST_REACH = 1e5  # nats; beyond, float64 cannot tell a gap of 1e-6
LARGEST_RHO = 1e30
_EASY_RHO = 16.0  # in units of the keys' spread: up to here Newton's method converges from anywhere


@dataclass(frozen=True)
class Tilt:
    """The law p* on the tokens that maximises H(p) + rho sigma(p), and what belongs to it; float64.

    H(p) is the entropy, mu = sum p_i k_i the mean key and sigma(p) = sqrt(sum p_i |k_i - mu|^2) the spread. For every
    query |q| <= rho and every token i, softmax_i(q) <= exp(rho sigma) p_i, up to a factor exp(gap).

    Parameters
    ----------
    p : Float[Tensor, "*heads n"]
    log_p : Float[Tensor, "*heads n"]
        Finite where p underflows.
    center : Float[Tensor, "*heads d"]
        The mean mu.
    sigma : Float[Tensor, "*heads"]
        The spread, in the unit of the keys.
    entropy : Float[Tensor, "*heads"]
        In nats.
    gap : Float[Tensor, "*heads"]
        The duality gap: the maximum exceeds H(p) + rho sigma by at most this, in nats.
    """

    p: Float[Tensor, "*heads n"]
    log_p: Float[Tensor, "*heads n"]
    center: Float[Tensor, "*heads d"]
    sigma: Float[Tensor, "*heads"]
    entropy: Float[Tensor, "*heads"]
    gap: Float[Tensor, "*heads"]


_State = tuple[Tensor, Tensor, Tensor]  # log p [H, n], the value of g and the duality gap [H]


@dataclass(frozen=True)
class _Tokens:
    """Keys in units of their spread ``[H, n, d]``, log-weights ``[H, n]`` and rho in these units ``[H]``."""

    x: Tensor
    log_w: Tensor
    rho: Tensor
    equal: Tensor  # [H], heads whose keys are all equal


def tilt(keys: Float[Array, "*heads n d"], rho: float, log_weights: Float[Array, "*heads n"] | None = None) -> Tilt:
    """Maximises the concave H(p) + rho sigma(p) over laws p on the tokens, for every head at once.

    H is the entropy and sigma(p)^2 = sum p_i |k_i - mu_p|^2, with mu_p the mean key. The maximiser is the softmax at
    the minimiser (mu, s) of the convex g(mu, s) = log sum exp(rho |k_i - mu|^2 / 2s) + rho s / 2. Damped Newton steps
    find it; g - [H(p) + rho sigma(p)] bounds what is left. Keys may be of any norm up to 1e15. Where all
    are equal, p* is uniform and sigma 0. sigma is in the unit of the keys: at most 1 where they lie in a ball of radius
    1, and large where they are far from unit norm. A bound sqrt(d) e^{rho sigma} above the size asked says nothing.

    With log-weights log w_i, token i stands for w_i equal tokens and H(p) is sum p_i log(w_i / p_i).

    Cost: O(n d^2) a step, some 10 to 40 steps.
    Source: docs/theory.md.

    Parameters
    ----------
    keys : Float[Tensor, "*heads n d"]
    rho : float
        Radius of the ball of queries.
    log_weights : Float[Tensor, "*heads n"], optional
        None: all zero.

    Returns
    -------
    Tilt

    Raises
    ------
    ValueError
        For rho that is not positive and finite, rho times the largest distance of a key from the mean above 1e5 nats,
        or keys or log-weights that hold NaN or Inf or do not fit.
    RuntimeError
        Should the duality gap stay above 1e-6 nats.
    """
    rho, keys = check_rho(rho), tensor("keys", keys).detach()
    if not bool(keys.isfinite().all()):
        raise ValueError("keys hold NaN or Inf; clean them before asking for a tilt")
    check_key_size(keys)
    log_w = torch.zeros_like(keys[..., 0]) if log_weights is None else tensor("log_weights", log_weights).detach()
    if log_w.shape != keys.shape[:-1] or not bool(log_w.isfinite().all()):
        raise ValueError(f"log_weights must be finite, of shape {tuple(keys.shape[:-1])}: one a token")
    x = keys.flatten(0, -3) if keys.dim() > 2 else keys.unsqueeze(0)
    origin = x.to(torch.float64).mean(dim=-2, keepdim=True)
    x = x.to(torch.float64) - origin
    spread = x.norm(dim=-1).amax(dim=-1)  # [H]
    equal = spread <= 1e-12 * origin.norm(dim=-1).squeeze(-1)  # up to the rounding of their mean
    unit = torch.where(equal, torch.ones_like(spread), spread)
    reach = rho * float(torch.where(equal, 0.0, spread).max())
    if reach > _LARGEST_REACH:
        raise ValueError(
            f"rho times the largest distance of a key from their mean is {reach:.0e} nats, and the tilt is found "
            f"up to {_LARGEST_REACH:.0e}; from 710 on e^(rho sigma) overflows, and bounds with it say nothing: take a "
            "smaller rho, or an unweighted construction"
        )
    # in units of the spread the problem keeps its form with rho' = rho * spread
    x = torch.where(equal[:, None, None], torch.zeros_like(x), x / unit[:, None, None])
    tokens = _Tokens(x, log_w.reshape(x.shape[:-1]).to(torch.float64), rho * unit, equal)
    log_p, gap = _newton(tokens)
    p = log_p.exp()
    mu = torch.einsum("hn,hnd->hd", p, x)
    sigma = (p * (x - mu.unsqueeze(-2)).square().sum(-1)).sum(-1).sqrt() * unit
    center = mu * unit.unsqueeze(-1) + origin.squeeze(-2)
    if not bool((gap.abs() <= GAP_LIMIT).all()):
        raise RuntimeError(f"tilt did not converge at rho = {rho}: duality gap {gap.max():.2e} > {GAP_LIMIT}")
    shape = keys.shape[:-2]
    fields = (p, log_p, center, sigma, _entropy(tokens, log_p), gap)
    return Tilt(*(f.reshape((*shape, *f.shape[1:])) for f in fields))


def tilt_step(
    keys: Float[Tensor, "H n d"], rho: float, center: Float[Tensor, "H d"], sigma: Float[Tensor, "H"]
) -> tuple[Float[Tensor, "H n"], Float[Tensor, "H d"], Float[Tensor, "H"]]:
    """Takes one Newton step of `tilt` for keys that have moved a little, and returns log p*, its centre and its sigma.

    `center` and `sigma` > 0 are those of the keys before the move. All that is returned is differentiable in the keys:
    at a solution the step's own derivative is that of the solution, by the implicit function theorem. After a move of
    size h the error is O(h^2), and that of the derivative O(h).

    A step is at most 0.9 of sigma long, and sigma stays above 1e-12: keys on their way to one point are no error.

    Cost: O(n d^2).
    """
    unit = sigma.clamp_min(_LEAST_SIGMA)
    # in these units, where the spread before is 1, Newton's system is regular however near to each other keys are
    x = (keys - center.unsqueeze(1)) / unit[:, None, None]
    tokens = _Tokens(x, torch.zeros_like(x[..., 0]), rho * unit, torch.zeros_like(unit, dtype=torch.bool))
    mu, s = torch.zeros_like(center), torch.ones_like(unit)
    step = _newton_step(tokens, mu, s, _g(tokens, mu, s)[0].exp())
    step = step * (0.9 / step.norm(dim=-1, keepdim=True).clamp_min(0.9))
    mu, s = step[:, :-1], torch.maximum(1 + step[:, -1], _LEAST_SIGMA / unit)
    return _g(tokens, mu, s)[0], center + mu * unit.unsqueeze(-1), s * unit


def _newton(tokens: _Tokens) -> tuple[Tensor, Tensor]:
    """Finds log p ``[H, n]`` and the duality gap ``[H]`` at the minimiser of g, from mu = 0 and the uniform spread."""
    x, rho = tokens.x, tokens.rho
    mu = torch.zeros_like(x[:, 0])  # [H, d]
    s = x.square().sum(-1).mean(-1).sqrt().clamp_min(1e-3)  # [H]
    # from afar Newton's steps are of no use, once the softmax has all its weight on one token: a large rho is reached
    # by doubling from a small one, each solution the start of the next
    doublings = max(0, math.ceil(math.log2(float(rho.max()) / _EASY_RHO)))
    for stage in range(doublings, 0, -1):
        mu, s, _ = _descend(replace(tokens, rho=rho / 2.0**stage), mu, s, 1e-3)
    log_p, _, gap = _descend(tokens, mu, s, _TARGET_GAP)[-1]
    return log_p, gap


def _descend(tokens: _Tokens, mu: Tensor, s: Tensor, target: float) -> tuple[Tensor, Tensor, _State]:
    """Takes Newton steps on g until the duality gap is below target * (1 + |g|) in every head, and two more.

    Takes _NEWTON_STEPS at most. Returns mu, s and the state there.
    """
    last, state = _NEWTON_STEPS, _state(tokens, mu, s)
    converged = bool(_within(state, target).all())
    for count in range(_NEWTON_STEPS):
        if converged:
            last = min(last, count + 2)  # the gap is quadratic: two steps take sigma from 1e-6 to its rounding
        if count == last:
            break
        step = _newton_step(tokens, mu, s, state[0].exp())
        mu, s, state, converged = _backtrack(tokens, mu, s, state[1], step, target)
    return mu, s, state


def _within(state: _State, target: float) -> Tensor:
    """Tells which heads have converged ``[H]``."""
    _, value, gap = state
    return gap <= target * (1 + value.abs())


def _state(tokens: _Tokens, mu: Tensor, s: Tensor) -> _State:
    """Returns the state at (mu, s); the gap of equal keys is 0."""
    log_p, value = _g(tokens, mu, s)
    return log_p, value, torch.where(tokens.equal, torch.zeros_like(value), value - _primal(tokens, log_p))


def _newton_step(tokens: _Tokens, mu: Tensor, s: Tensor, p: Tensor) -> Tensor:
    """Returns the Newton direction of g in (mu, s) ``[H, d + 1]``.

    With f_i the exponent of token i, the gradient is E_p[grad f_i] and the Hessian E_p[hess f_i] + Cov_p(grad f_i).
    """
    x, rho = tokens.x, tokens.rho
    y = x - mu.unsqueeze(1)  # [H, n, d]
    a = rho / s  # [H]
    r2 = y.square().sum(-1)  # [H, n]
    slopes = torch.cat([-a[:, None, None] * y, -(a / (2 * s))[:, None, None] * r2.unsqueeze(-1)], dim=-1)  # [H, n, d+1]
    gradient = torch.einsum("hn,hne->he", p, slopes)
    hessian = (slopes * p.unsqueeze(-1)).mT @ slopes
    hessian = hessian - gradient.unsqueeze(-1) * gradient.unsqueeze(-2)
    d = x.shape[-1]
    mean_y = torch.einsum("hn,hnd->hd", p, y)
    hessian[:, :d, :d] += a[:, None, None] * torch.eye(d, dtype=x.dtype, device=x.device)
    hessian[:, :d, d] += (a / s)[:, None] * mean_y
    hessian[:, d, :d] += (a / s)[:, None] * mean_y
    hessian[:, d, d] += a / s**2 * (p * r2).sum(-1)
    gradient = torch.cat([gradient[:, :d], gradient[:, d:] + rho[:, None] / 2], dim=-1)
    # keys that are all equal leave s undetermined, and the system singular
    jitter = 1e-13 * hessian.diagonal(dim1=-2, dim2=-1).amax(-1).clamp_min(1e-300)
    hessian = hessian + jitter[:, None, None] * torch.eye(d + 1, dtype=x.dtype, device=x.device)
    return -torch.linalg.solve_ex(hessian, gradient).result  # of a singular one the duality gap would tell


def _backtrack(
    tokens: _Tokens, mu: Tensor, s: Tensor, value: Tensor, step: Tensor, target: float
) -> tuple[Tensor, Tensor, _State, bool]:
    """Takes the largest of 1, 1/2, 1/4, ... of a step that keeps s positive and does not raise g, head by head.

    Returns mu, s and the state there, and whether every head has converged.
    """
    scale, trials = torch.ones_like(s), 60
    while True:
        s_new = s + scale * step[:, -1]
        inside, trials = s_new > 0.1 * s, trials - 1
        there = mu + scale[:, None] * step[:, :-1], torch.where(inside, s_new, s)
        state = _state(tokens, *there)
        bad = ~inside | ~(state[1] <= value + 1e-14 * value.abs())
        # both answers at once: for each the host would wait for the device
        again, converged = torch.stack([bad.any(), _within(state, target).all()]).tolist()
        if not again or trials == 0:
            return *there, state, converged
        scale = torch.where(bad, scale / 2, scale)


def _g(tokens: _Tokens, mu: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    rise = (tokens.x - mu.unsqueeze(1)).square().sum(-1) * (tokens.rho / (2 * s)).unsqueeze(-1)  # [H, n]
    logits = rise + tokens.log_w
    log_z = logits.logsumexp(-1)
    return logits - log_z.unsqueeze(-1), log_z + tokens.rho * s / 2


def _primal(tokens: _Tokens, log_p: Tensor) -> Tensor:
    p, x = log_p.exp(), tokens.x
    mu = torch.einsum("hn,hnd->hd", p, x)
    return _entropy(tokens, log_p) + tokens.rho * (p * (x - mu.unsqueeze(1)).square().sum(-1)).sum(-1).sqrt()


def _entropy(tokens: _Tokens, log_p: Tensor) -> Tensor:
    return (log_p.exp() * (tokens.log_w - log_p)).sum(-1)


def radius(keys: Float[Tensor, "*heads n d"]) -> Float[Tensor, "*heads"]:
    """Returns R = max_i |k_i - mean of the keys|, the constant of the unweighted model; at most 2 for unit keys."""
    return (keys - keys.mean(dim=-2, keepdim=True)).norm(dim=-1).amax(dim=-1)


def antipodal_minimum_size(rho: float, epsilon: float) -> float:
    """Returns e^{2 rho} (1 - epsilon) / (1 + epsilon): fewer unweighted antipodal tokens err by more than epsilon.

    Infinite from rho = 355 on. Source: docs/lower_bound.md.
    """
    return exp(2 * rho) * (1 - epsilon) / (1 + epsilon)


def exp(x: float) -> float:
    """Returns e^x, infinite where that is no float: a bound with this factor says nothing there."""
    return math.inf if x > _LARGEST_EXPONENT else math.exp(x)


def check_rho(rho: float) -> float:
    """Returns rho as a number of Python; ValueError unless it is positive and of a size that can be squared."""
    rho = number("rho", rho)
    if not (math.isfinite(rho) and rho > 0):
        raise ValueError(f"rho must be a positive finite number, got {rho}")
    if not 1 / LARGEST_RHO <= rho <= LARGEST_RHO:
        limits = f"{1 / LARGEST_RHO:.0e} and {LARGEST_RHO:.0e}"
        raise ValueError(f"rho must lie between {limits}, got {rho}; scale the keys instead")
    return rho
