"""Fits log-weights of a chosen subset so that the largest error over a bank of queries is small."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, base_weights
from attention_coresets.coresets.minimax.in_step import chosen, rows
from attention_coresets.coresets.minimax.query_bank import Bank, weighted_moment
from attention_coresets.devices import at_once, in_parts

_CURVED = 1024  # worst queries that make up the Hessian; the others' share in it is nothing
_MOST_DAMPING = 1e6
_LEAST_GAIN = 1e-4  # nats of the objective: a step that gains less is the last
_FLOOR = -30.0  # log-weight under the largest: a step takes no token further down
_FAR = 1e3  # log-weights that are larger are brought back
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
    logits, x = logits + own.unsqueeze(-2), log_weights - own

    def work(part: slice) -> Tensor:
        return _polish(power, steps, logits[part], values[part], bank.outputs[part], x[part])

    # on the CPU one by one: each then takes its own steps alone
    together = at_once(logits[0].numel(), logits.device, on_cpu=1)
    return torch.cat(in_parts(work, len(x), together)) + own


def _polish(power: int, steps: int, logits: Tensor, values: Tensor, wanted: Tensor, x: Tensor) -> Tensor:
    """Fits heads in step: logits [H, b, m], values [H, m, dv], wanted [H, b, dv], log-weights x [H, m]."""
    damping = torch.full_like(x[:, 0], 1e-3)
    going, taken = torch.full_like(damping, steps > 0, dtype=torch.bool), torch.zeros_like(damping)
    state = _state(logits, values, wanted, x, power)
    gradient, hessian = _derivatives(state, values, power)
    while True:
        trial = x - _solve(hessian, gradient, damping)
        top = trial.amax(-1, keepdim=True)
        # a constant in all log-weights changes nothing, and no step is to carry them all away
        trial = torch.where(top.abs() > _FAR, trial - top, trial)
        trial = trial.clamp_min(trial.amax(-1, keepdim=True) + _FLOOR)
        new = _state(logits, values, wanted, trial, power)
        better, gained = going & (new[0] < state[0]), state[0] - new[0]
        taken, damping = taken + better, torch.where(better, damping / 10, damping * 10)
        going = going & torch.where(better, (gained >= _LEAST_GAIN) & (taken < steps), damping <= _MOST_DAMPING)
        # all answers at once: for each the host would wait for the device
        some, every, more = torch.stack([better.any(), better.all(), going.any()]).tolist()
        if every:
            x, state = trial, new
        elif some:
            x, *state = (chosen(better, a, b) for a, b in zip((trial, *new), (x, *state), strict=True))
        if not more:
            return x
        if some:
            gradient, hessian = _derivatives(state, values, power)


def _state(logits: Tensor, values: Tensor, wanted: Tensor, x: Tensor, power: int) -> Sequence[Tensor]:
    """Returns phi [H], the coreset's softmax [H, b, m], its outputs and their errors D [H, b, dv], and |D|^2 [H, b]."""
    p = (logits + x.unsqueeze(-2)).softmax(-1)
    outputs = p @ values
    error = outputs - wanted
    square = error.square().sum(-1).clamp_min(_SMALLEST)
    return (power * square.log()).logsumexp(-1) / power, p, outputs, error, square


def _derivatives(state: Sequence[Tensor], values: Tensor, power: int) -> tuple[Tensor, Tensor]:
    """Returns gradient [H, m] and Hessian [H, m, m] of phi, on the worst queries."""
    _, p, outputs, error, square = state
    worst = square.topk(min(_CURVED, square.shape[-1])).indices
    worst = worst + square.shape[-1] * torch.arange(len(worst), device=worst.device).unsqueeze(-1)
    p, outputs, error, square = rows(worst, *(x.flatten(0, 1) for x in (p, outputs, error, square)))
    share = (power * square.log()).softmax(-1) / square  # [H, c]
    u = p * (error @ values.mT - (error * outputs).sum(-1, keepdim=True))  # [H, c, m]
    hessian = 2 * weighted_moment(p, values, outputs, share)
    hessian += (4 * (power - 1)) * (u * (share / square).unsqueeze(-1)).mT @ u
    return 2 * (share.unsqueeze(-2) @ u).squeeze(-2), hessian


def _solve(hessian: Tensor, gradient: Tensor, damping: Tensor) -> Tensor:
    """Solves (H + damping * its diagonal) x = gradient; a trace of the mean holds tokens that no query sees."""
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    ridge = damping.unsqueeze(-1) * (diagonal + 1e-6 * diagonal.mean(-1, keepdim=True)).clamp_min(1e-300)
    factor, _ = torch.linalg.cholesky_ex(hessian + torch.diag_embed(ridge))
    return torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1)
