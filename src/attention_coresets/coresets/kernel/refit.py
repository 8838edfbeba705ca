"""Refits weights: the best non-negative ones for tokens that another construction has chosen."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, attend, calm
from attention_coresets.coresets.base import check_plain
from attention_coresets.coresets.kernel.law import law
from attention_coresets.coresets.kernel.nnls import nnls
from attention_coresets.coresets.kernel.unit_kernel import UnitKernel, unit_kernel
from attention_coresets.coresets.selection import FLOOR, floored_log
from attention_coresets.inputs import least_float32
from attention_coresets.registry import check_name
from attention_coresets.theory import check_rho

OBJECTIVES = ("kernel", "queries")
_STEPS = 30  # damped Gauss-Newton steps, at most
_LEAST_GAIN = 1e-6  # of the objective: a step that gains less is the last
_MOST_DAMPING = 1e6
_MAX_NUMBERS = 2**25  # logits at once


def refit_log_weights(
    cache: Cache,
    coreset: Coreset,
    rho: float,
    *,
    objective: str = "kernel",
    scale: str = "auto",
    queries: int = 1024,
    generator: torch.Generator | None = None,
) -> Coreset:
    """Finds new log-weights for the same tokens, of the model "free".

    "kernel" minimises |sum_i phi_i - sum_j w_j phi_j|^2 over w >= 0, where phi are the features of the tilted balancing
    kernel (`balancing_gram` of kernel/law.py). Non-negative least squares finds the optimum, whatever weights the
    coreset had.

    "queries" lowers the mean squared error of attention over a bank of random queries of the ball |q| <= rho, half of
    them along or against a key less the mean key. Damped Gauss-Newton steps (Levenberg-Marquardt) on the log-weights
    start from the coreset's own and end at a local optimum that is never worse. Take queries * dv well above the size.

    No weight ends below e^-30 of the head's largest, in units of 1 / |phi_j|. That changes the objective by about as
    little.

    Cost: for one head, "kernel" takes O(n m (d + dv) + m^3) and "queries" O(queries (n (d + dv) + dv m^2)) a step, 30
    steps at most.

    Parameters
    ----------
    cache : Cache
        Without weights.
    coreset : Coreset
    rho : float
    objective : str
        "kernel" or "queries".
    scale : str
        Of the kernel. "queries" uses it for the floor alone.
    queries : int
        Queries in the bank.
    generator : torch.Generator, optional
        Draws the bank. None: seed 0.

    Returns
    -------
    Coreset

    Raises
    ------
    ValueError
        For rho that is not positive, a WeightedCache, an unknown objective, queries < 1, or indices that do not fit.
    """
    rho = check_rho(rho)
    check_plain(cache)
    check_name(objective, OBJECTIVES, "objective")
    if queries < 1:
        raise ValueError(f"queries must be at least 1, got {queries}")
    cache.check_indices(coreset.indices)
    flat = calm(cache, torch.float64)[0].flat()
    tokens = coreset.indices.reshape(-1, coreset.size)
    start = torch.zeros_like(flat.keys[:, : coreset.size, 0])
    if coreset.log_weights is not None:
        start = coreset.log_weights.to(torch.float64).reshape(start.shape)
    # "queries" needs the kernel too: its floor is in units of 1 / |phi_j|
    kernel = unit_kernel(flat.keys, flat.values, law(flat.keys, rho, "tilted", scale))
    if objective == "kernel":
        fitted = kernel_weights(kernel, tokens)
    else:
        bank = _bank(flat, rho, queries, generator or torch.Generator().manual_seed(0))
        log_norms = kernel.log_norms.gather(-1, tokens)
        fitted = _floored(_gauss_newton(flat, tokens, bank, start) + log_norms) - log_norms
    return Coreset(coreset.indices, fitted.reshape(coreset.indices.shape).to(least_float32(cache.keys.dtype)))


def kernel_weights(
    kernel: UnitKernel, tokens: Int[Tensor, "H m"], base: Float[Tensor, "H n"] | None = None
) -> Float[Tensor, "H m"]:
    """Finds log-weights of `tokens` that minimise |sum_i e^base_i phi_i - sum_j w_j phi_j| over w >= 0, floored.

    base: None is 0.
    """
    log_norms = kernel.log_norms.gather(-1, tokens)
    if base is None:
        return floored_log(nnls(kernel.among(tokens), kernel.sums(kernel.log_norms.exp(), tokens))) - log_norms
    logs = kernel.log_norms + base
    top = logs.amax(dim=-1, keepdim=True)  # weights may be beyond the numbers of a dtype
    return floored_log(nnls(kernel.among(tokens), kernel.sums((logs - top).exp(), tokens))) - log_norms + top


def _bank(cache: Cache, rho: float, count: int, generator: torch.Generator) -> Tensor:
    """Draws queries ``[H, count, d]`` in the ball: even ones anywhere, odd ones along or against a centred key."""
    directions = torch.randn(count, cache.d, generator=generator, dtype=torch.float64)
    radii = rho * torch.rand(count, generator=generator, dtype=torch.float64) ** (1 / cache.d)
    tokens = torch.randint(cache.n, (count,), generator=generator).to(cache.keys.device)
    centred = cache.keys - cache.keys.mean(dim=-2, keepdim=True)
    # against keys too: a query and its opposite see different tokens
    signs = (2.0 * torch.arange(count).div(2, rounding_mode="floor").remainder(2) - 1).to(centred)
    aimed = (torch.arange(count) % 2 == 1).to(centred.device)
    bank = torch.where(aimed[:, None], signs[:, None] * centred[:, tokens], directions.to(centred))
    return bank * (radii.to(centred)[:, None] / bank.norm(dim=-1, keepdim=True).clamp_min(1e-300))


def _gauss_newton(cache: Cache, tokens: Tensor, bank: Tensor, log_weights: Tensor) -> Tensor:
    """Takes damped steps, head by head. One that loses is undone and raises the damping; one that gains lowers it."""
    keys, values = cache.take(tokens)
    rows = max(1, _MAX_NUMBERS // cache.keys[..., 0].numel())
    wanted = torch.cat([attend(q, cache.keys, cache.values) for q in bank.split(rows, dim=-2)], dim=-2)  # [H, c, dv]
    logits = bank @ keys.mT
    damping = torch.full_like(log_weights[:, 0], 1e-3)
    done = torch.zeros_like(damping, dtype=torch.bool)
    value, normal, slope = _normal_equations(logits, values, wanted, log_weights)
    for _ in range(_STEPS):
        trial = log_weights - _solve(normal, slope, damping)
        new_value, new_normal, new_slope = _normal_equations(logits, values, wanted, trial)
        # a head that is done stays as it is, whatever its batch goes on to do
        better = (new_value < value) & ~done
        done = done | (better & (new_value > (1 - _LEAST_GAIN) * value)) | (damping > _MOST_DAMPING)
        log_weights = torch.where(better[:, None], trial, log_weights)
        normal = torch.where(better[:, None, None], new_normal, normal)
        slope = torch.where(better[:, None], new_slope, slope)
        value = torch.where(better, new_value, value)
        damping = torch.where(better, 0.1 * damping, 10 * damping)
        if bool(done.all()):
            break
    return log_weights


def _normal_equations(logits: Tensor, values: Tensor, wanted: Tensor, log_weights: Tensor) -> tuple[Tensor, ...]:
    """Returns the sum of squared errors [H], J^T J [H, m, m] and J^T r [H, m].

    r are the errors; J has p_j (v_j - Attn) for each query and token, p the coreset's softmax.
    """
    p = (logits + log_weights.unsqueeze(-2)).softmax(-1)  # [H, c, m]
    found = p @ values  # [H, c, dv]
    error = found - wanted
    slope = (p * (error @ values.mT - (error * found).sum(-1, keepdim=True))).sum(-2)
    size2 = found.square().sum(-1, keepdim=True)
    # <v_i - a, v_j - a> summed over queries with p_i p_j: the cross terms share one matrix product
    cross = p.mT @ (p * (found @ values.mT - 0.5 * size2))
    normal = (p.mT @ p) * (values @ values.mT) - cross - cross.mT
    return error.square().sum((-1, -2)), normal, slope


def _solve(normal: Tensor, slope: Tensor, damping: Tensor) -> Tensor:
    """Solves (J^T J + damping * its diagonal) x = J^T r; a trace of the mean holds tokens that no query sees."""
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    ridge = damping[:, None] * (diagonal + 1e-6 * diagonal.mean(-1, keepdim=True)).clamp_min(1e-300)
    factor, failed = torch.linalg.cholesky_ex(normal + torch.diag_embed(ridge))
    step = torch.cholesky_solve(slope.unsqueeze(-1), factor).squeeze(-1)
    # NaN compares false: the step counts as a loss, and the damping is raised
    return torch.where((failed > 0)[:, None], torch.full_like(step, torch.nan), step)


def _floored(log_weights: Tensor) -> Tensor:
    return log_weights.clamp_min(log_weights.amax(-1, keepdim=True) + FLOOR)
