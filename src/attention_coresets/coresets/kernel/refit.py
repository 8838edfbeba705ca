"""Refits weights: the best non-negative ones for tokens that another construction has chosen."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, calm
from attention_coresets.coresets.base import check_plain
from attention_coresets.coresets.kernel.law import law
from attention_coresets.coresets.kernel.nnls import nnls
from attention_coresets.coresets.kernel.unit_kernel import UnitKernel, unit_kernel
from attention_coresets.coresets.selection import floored_log
from attention_coresets.inputs import least_float32
from attention_coresets.theory import check_rho


def refit_log_weights(cache: Cache, coreset: Coreset, rho: float, *, scale: str = "auto") -> Coreset:
    """Finds new log-weights for the same tokens, of the model "free", whatever weights the coreset had.

    They minimise |sum_i phi_i - sum_j w_j phi_j|^2 over w >= 0, where phi are the features of the tilted balancing
    kernel (`balancing_gram` of kernel/law.py) of this `scale`: non-negative least squares. No weight ends below e^-30
    of the head's largest, in units of 1 / |phi_j|. That changes the objective by about as little.

    Cost: O(n m (d + dv) + m^3) a head.

    Raises ValueError for rho that is not positive, a WeightedCache, or indices that do not fit.
    """
    rho = check_rho(rho)
    check_plain(cache)
    cache.check_indices(coreset.indices)
    flat = calm(cache, torch.float64)[0].flat()
    kernel = unit_kernel(flat.keys, flat.values, law(flat.keys, rho, "tilted", scale))
    fitted = kernel_weights(kernel, coreset.indices.reshape(-1, coreset.size))
    return Coreset(coreset.indices, fitted.reshape(coreset.indices.shape).to(least_float32(cache.keys.dtype)))


def kernel_weights(
    kernel: UnitKernel, tokens: Int[Tensor, "H m"], base: Float[Tensor, "H n"] | None = None
) -> Float[Tensor, "H m"]:
    """Finds log-weights of `tokens` that minimise |sum_i e^base_i phi_i - sum_j w_j phi_j| over w >= 0, floored.

    base: None is 0.
    """
    log_norms = kernel.log_norms.gather(-1, tokens)
    logs = kernel.log_norms if base is None else kernel.log_norms + base
    # with a base, weights may be beyond the numbers of a dtype
    top = torch.zeros_like(logs[..., :1]) if base is None else logs.amax(dim=-1, keepdim=True)
    return floored_log(nnls(kernel.among(tokens), kernel.sums((logs - top).exp(), tokens))) - log_norms + top
