"""Computes the kernel certificate: a ceiling on the error in any dimension, from the moments of the difference.

Expand the exponential in the quotient of difference.py, and let T_j(y) = sum_i c_i x_i^{(x)j} <(u_i, 1), y> be the
moment of degree j. The error is at most the largest of sum_j rho^j / j! |T_j(y)| over the floor of Z. Here y is a unit
vector with a number t appended, |t| at most the radius of the coreset's output.

Cauchy-Schwarz with weights alpha_j > 0 turns that into one eigenvalue. Any weights are valid: alpha_j = a^{2j} / j! is
the kernel e^{a^2 <x,y>}, and the best ones are found here. docs/certificates.md has the proof.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.degree_weights import degree_weights
from attention_coresets.adversary.difference import Difference, differences
from attention_coresets.adversary.moments import degrees_needed, log_tail, token_moments
from attention_coresets.attention import Cache, Coreset
from attention_coresets.theory import check_rho

_SHELLS = 32
_OVERFLOW = 300.0  # log of what is too large to be multiplied by itself


@torch.no_grad()
def kernel_certificate(cache: Cache, coreset: Coreset, rho: float) -> Float[Tensor, "*heads"]:
    """Returns for each head a number that |Attn(q) - Attn_coreset(q)| exceeds at no query |q| <= rho, float64.

    Valid in any d and for any weights >= 0, which log-weights always are. A shift of the keys changes nothing. Infinite
    where the series overflows: rho max |k - mean| above 300. The law under Z, the weights of the degrees, the height b
    of the appended number and the radius of the coreset's output are optimised; the rounding of the moments is added.

    Cost: about n^2 (d + 2 J (dv + 1)) flops for each of three laws. J is about 1.5 z + 15 degrees, at most 80, for
    z = rho max |x|.
    Memory: four blocks of 8 MB and 4 J (dv + 1)^2 moments a head, whatever n.

    Raises ValueError for rho that is not positive.
    """
    rho = check_rho(rho)
    found = [_about(difference, rho) for difference in differences(cache, coreset, rho)]
    return torch.stack(found).amin(0).reshape(cache.heads)


def _about(difference: Difference, rho: float) -> Tensor:
    """Returns the ceiling about one law ``[H]``."""
    scale = difference.output_radius.clamp_min(1e-300)
    difference = replace(difference, u=difference.u / scale[:, None, None])
    z = rho * difference.reach
    series = _Series.of(difference, rho, degrees=degrees_needed(float(z.max().clamp_max(_OVERFLOW))))
    output = torch.ones_like(z)
    centred = series.bound(series.full, None).clamp_max(1.0)  # |Attn(q) - mean_p(v)|
    best = torch.full_like(z, math.inf)
    # the coreset's output o obeys |o| <= |Attn - mean| + error: each ceiling on the error gives a better one on o, from
    # which follows the next
    for _ in range(3):
        best = torch.minimum(best, series.bound(series.signed, output))
        output = torch.minimum(output, centred + best)
    return torch.where(z > _OVERFLOW, math.inf, best * scale)


@dataclass(frozen=True)
class _Series:
    """Moments of degrees 0..J about one law, and what multiplies them; all over n, with keys over their reach.

    - full ``[H, J+1, dv, dv]``: moments of W_i u_i
    - signed ``[H, J+1, dv+1, dv+1]``: moments of c_i (u_i, 1)
    - factor ``[H, J+1, k]``: (r reach)^j / j! at the outer radius r of each shell
    - log_floor ``[H, k]``: in the shell
    - rest: what the degrees above J add; its "output" is for each unit of the output's radius
    - rounding: of the moments
    """

    full: Tensor
    signed: Tensor
    factor: Tensor
    log_floor: Tensor
    rest: dict[str, Tensor]
    rounding: dict[str, Tensor]

    @staticmethod
    def of(difference: Difference, rho: float, degrees: int) -> "_Series":
        """Computes the series of one difference up to `degrees`."""
        x, u, c = difference.x, difference.u, difference.c
        reach = difference.reach.clamp_min(1e-300)
        full, signed = token_moments(x / reach[:, None, None], u, c, degrees, difference.weights)
        edges = torch.linspace(0, rho, _SHELLS + 1, dtype=x.dtype, device=x.device)
        j = torch.arange(degrees + 1, dtype=x.dtype, device=x.device)
        logs = (edges[1:] * reach[:, None]).log().unsqueeze(1) * j[:, None] - torch.lgamma(j + 1)[:, None]
        logs = logs.clamp_max(_OVERFLOW)
        tail = log_tail((rho * x.norm(dim=-1)).clamp_max(_OVERFLOW), j[-1]).exp()
        sizes, n = u.norm(dim=-1), x.shape[-2]
        own = sizes if difference.weights is None else sizes * difference.weights
        rest = {
            "full": (tail * own).mean(-1),
            "signed": (tail * c.abs() * sizes).mean(-1),
            "output": (tail * c.abs()).mean(-1),
        }
        unit = 4 * (n + degrees) * (u.shape[-1] + 1) * torch.finfo(x.dtype).eps
        rounding = {"full": unit * own.mean(-1) ** 2, "signed": unit * (c.abs() * (sizes + 1)).mean(-1) ** 2}
        return _Series(full, signed, logs.exp(), difference.log_floor(edges[:-1], edges[1:]), rest, rounding)

    def bound(self, moments: Tensor, output: Tensor | None) -> Tensor:
        """Bounds the quotient whose moments are given over the ball ``[H]``.

        `output` ``[H]`` is the radius of the coreset's output; None leaves it out.
        """
        name = "full" if output is None else "signed"
        alpha, square = degree_weights(moments, self.factor[..., -1], output, self.rounding[name])
        numerator = ((self.factor.square() / alpha.unsqueeze(-1)).sum(1) * square.unsqueeze(-1)).sqrt()
        rest = self.rest[name] if output is None else self.rest[name] + self.rest["output"] * output
        return ((numerator + rest.unsqueeze(-1)) / self.log_floor.exp()).amax(-1)
