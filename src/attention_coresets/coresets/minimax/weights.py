"""Fits log-weights of a chosen subset so that the largest error over a bank of queries is small."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, base_weights
from attention_coresets.coresets.minimax.query_bank import Bank, weighted_moment

_CURVED = 1024  # worst queries that make up the Hessian; the others' share in it is nothing
_MOST_DAMPING = 1e6
_LEAST_GAIN = 1e-4  # nats of the objective: a step that gains less is the last
_FLOOR = -30.0  # log-weight under the largest: a step takes no token further down
_SMALLEST = 1e-20  # squared error, against log 0


def minimax_weights(
    cache: Cache,
    bank: Bank,
    tokens: Int[Tensor, "H m"],
    log_weights: Float[Tensor, "H m"],
    *,
    power: int = 8,
    steps: int = 12,
) -> Float[Tensor, "H m"]:
    """Lowers phi = (1/p) log sum_b |err_b|^(2p), p = `power`, over the log-weights of `tokens`, from `log_weights` on.

    phi stands in for the largest error: exp(phi / 2) is at least that of the bank, and at most b^(1/2p) times it.

    The steps are damped Newton steps (Levenberg-Marquardt) for sum_b |err_b|^(2p), with the curvature of err left out.
    Let D_b = Attn_coreset - Attn at query b, pi_b the softmax over b of p log |D_b|^2, J_b the slopes of Attn_coreset,
    which are s_j (v_j - Attn_coreset) for token j of softmax weight s_j, and u_b = J_b^T D_b. Over the 1024 worst
    queries,

        gradient = 2 sum pi_b u_b / |D_b|^2,
        Hessian  = 2 sum pi_b J_b^T J_b / |D_b|^2 + 4 (p - 1) sum pi_b u_b u_b^T / |D_b|^4.

    A step that does not lower phi is not taken, so phi never ends above its start. A step takes no weight below e^-30
    of the largest. The weights of a WeightedCache's tokens are fitted, and floored, in units of their own.

    Cost: b m dv + min(b, 1024) m (2 dv + 3 m) + m^3 / 3 multiply-adds a step and head.
    """
    keys, values = cache.take(tokens)
    logits, base = bank.queries @ keys.mT, base_weights(cache)  # [H, b, m]
    own = torch.zeros_like(log_weights) if base is None else base.gather(-1, tokens)
    heads = zip(logits + own.unsqueeze(-2), values, bank.outputs, log_weights - own, strict=True)
    return torch.stack([_polish(power, steps, *arrays) for arrays in heads]) + own


def _polish(power: int, steps: int, logits: Tensor, values: Tensor, wanted: Tensor, x: Tensor) -> Tensor:
    """Fits one head: logits [b, m], values [m, dv], wanted [b, dv], log-weights x [m]."""
    damping = 1e-3
    state = _state(logits, values, wanted, x, power)
    value = float(state[0])
    for _ in range(steps):
        gradient, hessian = _derivatives(state, values, power)
        while damping <= _MOST_DAMPING:
            trial = x - _solve(hessian, gradient, damping)
            trial = trial.clamp_min(trial.max() + _FLOOR)
            new = _state(logits, values, wanted, trial, power)
            reached = float(new[0])
            if reached < value:
                break
            damping *= 10
        else:
            return x
        gained, value = value - reached, reached
        x, state, damping = trial, new, damping / 10
        if gained < _LEAST_GAIN:
            break
    return x


def _state(logits: Tensor, values: Tensor, wanted: Tensor, x: Tensor, power: int) -> tuple[Tensor, ...]:
    """Returns phi, the coreset's softmax [b, m], its outputs and their errors D [b, dv], and |D|^2 [b]."""
    p = (logits + x).softmax(-1)
    outputs = p @ values
    error = outputs - wanted
    square = error.square().sum(-1).clamp_min(_SMALLEST)
    return (power * square.log()).logsumexp(0) / power, p, outputs, error, square


def _derivatives(state: tuple[Tensor, ...], values: Tensor, power: int) -> tuple[Tensor, Tensor]:
    """Returns gradient [m] and Hessian [m, m] of phi, on the worst queries."""
    _, p, outputs, error, square = state
    worst = square.topk(min(_CURVED, len(square))).indices
    p, outputs, error, square = (x[worst] for x in (p, outputs, error, square))
    share = (power * square.log()).softmax(0) / square  # [c]
    u = p * (error @ values.mT - (error * outputs).sum(-1, keepdim=True))  # [c, m]
    hessian = 2 * weighted_moment(p, values, outputs, share)
    hessian += (4 * (power - 1)) * (u * (share / square).unsqueeze(-1)).mT @ u
    return 2 * (share @ u), hessian


def _solve(hessian: Tensor, gradient: Tensor, damping: float) -> Tensor:
    """Solves (H + damping * its diagonal) x = gradient; a trace of the mean holds tokens that no query sees."""
    diagonal = hessian.diagonal()
    ridge = damping * (diagonal + 1e-6 * diagonal.mean()).clamp_min(1e-300)
    factor, _ = torch.linalg.cholesky_ex(hessian + torch.diag(ridge))
    return torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1)
