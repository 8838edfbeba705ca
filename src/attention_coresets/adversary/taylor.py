"""Computes the Taylor certificate: a ceiling for small rho from explicit moment tensors, linear in n."""

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.difference import Difference, differences
from attention_coresets.adversary.moments import log_tail
from attention_coresets.attention import Cache, Coreset
from attention_coresets.theory import check_rho

_ENTRIES = 2**16  # of the largest moment tensor
_POWERS = 2**20  # entries of the tensor powers held at once
_DEGREES = 6
_FARTHEST = 300.0  # rho |x| beyond which there is no ceiling


@torch.no_grad()
def taylor_certificate(cache: Cache, coreset: Coreset, rho: float) -> Float[Tensor, "*heads"]:
    """Returns for each head a number that |Attn(q) - Attn_coreset(q)| exceeds at no query |q| <= rho, float64.

    About the uniform law, or a WeightedCache's weights, the difference (difference.py) has the moments
    sum_i c_i x_i^{(x)j} (x) u_i, and the same without u_i, times the radius of the coreset's output. Up to degree J
    each enters by the least spectral norm of its unfoldings. The rest of the series enters by norms, at full size: the
    certificate is of use while (rho max |x|)^{J+1} / (J+1)! is below the error. J is the largest, up to 6, with
    d^J dv <= 2^16.

    Cost: O(n d^J dv + d^{2J} dv) flops; memory: 8 MB and the tensors.

    Raises ValueError for rho that is not positive.
    """
    rho = check_rho(rho)
    difference = next(iter(differences(cache, coreset, rho)))  # about the first law, the uniform one
    c = difference.c
    low = difference.log_floor(c.new_zeros(1), c.new_full((1,), rho)).exp()
    sums = [_sums(difference, head, rho) for head in range(len(c))]
    # all at once to the CPU: a GPU would solve the small eigenproblems that follow one after another
    rows = torch.cat([low, torch.stack(sums)], dim=-1).cpu()
    d, dv = difference.x.shape[-1], difference.u.shape[-1]
    return torch.stack([_ceiling(row, d, dv, rho) for row in rows]).reshape(cache.heads).to(cache.keys.device)


def _sums(difference: Difference, head: int, rho: float) -> Tensor:
    """Returns what the ceiling of one head needs of its tokens, flat: max |u| and three series."""
    x, u, c = difference.x[head], difference.u[head], difference.c[head]
    ones = torch.ones_like(c)
    own = ones if difference.weights is None else difference.weights[head]
    series = [_series(x, u, own, rho), _series(x, u, c, rho), _series(x, ones.unsqueeze(-1), c, rho)]
    return torch.cat([u.norm(dim=-1).amax(keepdim=True), *series])


def _ceiling(row: Tensor, d: int, dv: int, rho: float) -> Tensor:
    """Returns the ceiling of one head from the floor of Z and its `_sums`."""
    sizes = [1 + sum(d**j * width for j in range(_degrees(d, width) + 1)) for width in (dv, dv, 1)]
    low, radius, full, signed, plain = row.split([1, 1, *sizes])
    bounds = [_bound(part, d, width, rho) for part, width in ((full, dv), (signed, dv), (plain, 1))]
    outward, with_values, alone = torch.stack(bounds) / low
    radius = radius.squeeze(0)
    outward = torch.minimum(outward, radius)
    output, best = radius, with_values + radius * alone
    # the coreset's output o obeys |o| <= |Attn - mean| + error: each ceiling on the error gives a better one on o
    for _ in range(3):
        output = torch.minimum(output, outward + best)
        best = torch.minimum(best, with_values + output * alone)
    return best


def _degrees(d: int, width: int) -> int:
    return max(j for j in range(_DEGREES + 1) if d**j * width <= _ENTRIES)


def _series(x: Tensor, u: Tensor, c: Tensor, rho: float) -> Tensor:
    """Returns of sum_i c_i e^{<q,x_i>} u_i / n the tensors of the explicit degrees, flat, after a bound on the rest."""
    n, (d, width) = len(x), (x.shape[-1], u.shape[-1])
    degrees, rounding = _degrees(d, width), 4 * n * torch.finfo(x.dtype).eps
    sizes, z = u.norm(dim=-1) * c.abs(), rho * x.norm(dim=-1)
    some = z.clamp_max(_FARTHEST)
    rest = log_tail(some, z.new_full((), degrees)).exp() + rounding * some.exp()
    rest = torch.where(z > _FARTHEST, torch.inf, sizes * rest)  # a small c may have underflowed
    tensors = _tensors(x, u * c.unsqueeze(-1) / n, degrees)
    return torch.cat([rest.mean(0, keepdim=True), *(tensor.flatten() for tensor in tensors)])


def _bound(series: Tensor, d: int, width: int, rho: float) -> Tensor:
    """Bounds |sum_i c_i e^{<q,x_i>} u_i| / n for |q| <= rho from its `_series`."""
    degrees = _degrees(d, width)
    rest, *tensors = series.split([1, *(d**j * width for j in range(degrees + 1))])
    total, factor = rest.squeeze(0), 1.0
    for j, tensor in enumerate(tensors):
        factor *= rho / j if j else 1.0
        # every unfolding bounds the form on the sphere from above, and which is least is not known before
        unfoldings = [tensor.reshape(d**a, -1) for a in range(j + 1)]
        total = total + factor * torch.stack([spectral_norm(m) for m in unfoldings]).min()
    return total


def spectral_norm(matrix: Tensor) -> Tensor:
    """Returns the largest singular value, from the Gram matrix of the shorter side."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    return torch.linalg.eigvalsh(short @ short.mT)[-1].clamp_min(0).sqrt()


def _tensors(x: Tensor, weighted: Tensor, degrees: int) -> list[Tensor]:
    """Returns sum_i x_i^{(x)j} (x) weighted_i for j = 0..degrees, each flat ``[d^j, width]``."""
    out = [x.new_zeros(x.shape[-1] ** j, weighted.shape[-1]) for j in range(degrees + 1)]
    # a token's powers fill d^degrees numbers: few tokens at once, so that memory does not grow with n
    tokens = max(1, _POWERS // len(out[-1]))
    for part, weights in zip(x.split(tokens), weighted.split(tokens), strict=True):
        power = torch.ones_like(part[:, :1])
        for j in range(degrees + 1):
            out[j] += power.mT @ weights
            if j < degrees:
                power = (power.unsqueeze(-1) * part.unsqueeze(1)).flatten(1)
    return out
