"""The kernel certificate: an upper bound on the worst-case error that holds for every query of the ball."""

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.theory import tilt

SCALES = tuple(2.0 ** (k / 4) for k in range(-6, 7))  # multiples of rho / sigma tried for a^2; any is valid


def kernel_certificate(cache: Cache, coreset: Coreset, rho: float) -> Float[Tensor, "*heads"]:
    """sup over |q| <= rho of the error is at most the number returned for each head (docs/theory.md, certificates).

    exp(rho^2 / 2a^2 - H(p*)) sqrt(1 + max |v|^2) sqrt(lambda_max(V~^T C G C V~)): C = diag(1 - w), w the coreset's
    weights (0 where dropped) scaled to sum n, G_ij = exp(a^2 <k_i - mu, k_j - mu>), V~ = [V, 1], with the least over
    `SCALES` of a^2. Valid because exp is non-negative: the coreset's output stays in the hull of the values. Float64;
    cost O(n^2 (d + dv)) time a scale and O(n^2) memory, head by head.
    """
    cache.check_indices(coreset.indices)
    keys, values = (x.reshape(-1, *x.shape[-2:]).to(torch.float64) for x in (cache.keys, cache.values))
    t = tilt(keys, rho)
    c = _signed_coefficients(cache, coreset)
    bounds = []
    for head in range(len(keys)):
        x = keys[head] - t.center[head]
        inner = x @ x.mT
        sigma = t.sigma[head].clamp_min(1e-12)
        extended = torch.cat([values[head], torch.ones_like(values[head, :, :1])], dim=-1) * c[head].unsqueeze(-1)
        log_height = 0.5 * (1 + values[head].square().sum(-1).max()).log() - t.entropy[head]
        found = [_bound(inner, extended, rho, rho / sigma * factor) for factor in SCALES]
        bounds.append((torch.stack(found).min() + log_height).exp())
    return torch.stack(bounds).reshape(cache.heads)


def _bound(inner: Tensor, extended: Tensor, rho: float, a2: Tensor) -> Tensor:
    """log of exp(rho^2 / 2a^2) sqrt(lambda_max), with the largest kernel value taken out before the exponential."""
    top = inner.diagonal().max() * a2
    moment = extended.mT @ ((inner * a2 - top).exp() @ extended)  # [dv + 1, dv + 1]
    largest = torch.linalg.eigvalsh((moment + moment.mT) / 2)[-1].clamp_min(0)
    return rho**2 / (2 * a2) + 0.5 * (largest.log() + top)


def _signed_coefficients(cache: Cache, coreset: Coreset) -> Tensor:
    indices = coreset.indices.reshape(-1, coreset.size)
    log_weights = coreset.log_weights
    log_weights = (
        torch.zeros_like(indices, dtype=torch.float64) if log_weights is None else log_weights.to(torch.float64)
    )
    weights = cache.n * log_weights.reshape(indices.shape).softmax(dim=-1)
    ones = torch.ones(len(indices), cache.n, dtype=torch.float64, device=indices.device)
    return ones.scatter_add_(-1, indices, -weights)
