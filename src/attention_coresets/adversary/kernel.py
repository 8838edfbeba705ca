"""Computes the kernel certificate: a ceiling on the error in any dimension, from the moments of the difference.

Expand the exponential in the quotient of difference.py, and let T_j(y) = sum_i c_i x_i^{(x)j} <(u_i, 1), y> be the
moment of degree j. The error is at most the largest of sum_j rho^j / j! |T_j(y)| over the floor of Z. Here y is a unit
vector with a number t appended, |t| at most the radius of the coreset's output.

Cauchy-Schwarz with weights alpha_j > 0 turns that into one eigenvalue. Any weights are valid: alpha_j = a^{2j} / j! is
the kernel e^{a^2 <x,y>}, and the best ones are found here. docs/certificates.md has the proof.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.degree_weights import POWERS, DegreeWeights, degree_weights
from attention_coresets.adversary.difference import Difference, differences
from attention_coresets.adversary.moments import degrees_needed, log_tail, token_moments
from attention_coresets.attention import Cache, Coreset
from attention_coresets.theory import check_rho

_SHELLS = 32
_ROUNDS = 6  # each takes the radius of the output from the one before; more gain little
OVERFLOW = 300.0  # log of what is too large to be multiplied by itself


@torch.no_grad()
def kernel_certificate(cache: Cache, coreset: Coreset, rho: float) -> Float[Tensor, "*heads"]:
    """Returns for each head a number that |Attn(q) - Attn_coreset(q)| exceeds at no query |q| <= rho, float64.

    Valid in any d and for any weights >= 0, which log-weights always are. A shift of the keys changes nothing. Infinite
    where the series overflows: rho max |k - mean| above 300. The law under Z, the weights of the degrees, the height b
    of the appended number and the radius of the coreset's output are optimised; the rounding of the moments is added.

    Cost: about n^2 (d + 2 J (dv + 1)) flops for each of three laws, on the cache's device, and 280
    eigenproblems of dv + 1 rows on the CPU for each. J is about 1.5 z + 15 degrees, at most 80, for z = rho max |x|.
    Memory: four blocks of 8 MB and 4 J (dv + 1)^2 moments a head, whatever n.

    Raises ValueError for rho that is not positive.
    """
    rho = check_rho(rho)
    found = [ceiling_about(difference, rho) for difference in differences(cache, coreset, rho)]
    return torch.stack(found).amin(0).reshape(cache.heads).to(cache.keys.device)


def ceiling_about(difference: Difference, rho: float) -> Tensor:
    """Returns the ceiling about one law ``[H]``, on the CPU."""
    scale = difference.output_radius.clamp_min(1e-300)
    difference = replace(difference, u=difference.u / scale[:, None, None])
    reach, u, c = difference.reach, difference.u, difference.c
    z, scale = torch.stack([rho * reach, scale]).cpu()
    degrees = degrees_needed(float(z.max().clamp_max(OVERFLOW)))
    x = difference.x / reach.clamp_min(1e-300)[:, None, None]
    # what follows the sums over tokens is many small eigenproblems, which a GPU would solve one after another
    full, signed = (moments.cpu() for moments in token_moments(x, u, c, degrees, difference.weights))
    series = Series.of(difference, rho, full)
    centred = series.bound(full, None).clamp_max(1.0)
    return torch.where(z > OVERFLOW, math.inf, series.ceiling(signed, centred) * scale)


@dataclass(frozen=True)
class Series:
    """What multiplies the moments of degrees 0..J about one law, and bounds what they leave out.

    Moments are over n, with keys over their reach, of W_i u_i ("full" ``[H, J+1, dv, dv]``) and of c_i (u_i, 1)
    ("signed" ``[H, J+1, dv+1, dv+1]``). Made on the tokens' device, held on the CPU:

    - full: the moments of W_i u_i
    - factor ``[H, J+1, k]``: (r reach)^j / j! at the outer radius r of each shell
    - log_floor ``[H, k]``: in the shell
    - rest: what the degrees above J add; its "output" is for each unit of the output's radius
    - rounding: of the moments
    """

    full: Tensor
    factor: Tensor
    log_floor: Tensor
    rest: dict[str, Tensor]
    rounding: dict[str, Tensor]

    @staticmethod
    def of(difference: Difference, rho: float, full: Tensor) -> "Series":
        """Computes the series of one difference, up to the degrees of its moments `full`."""
        x, u, c, degrees = difference.x, difference.u, difference.c, full.shape[1] - 1
        reach = difference.reach.clamp_min(1e-300)
        edges = torch.linspace(0, rho, _SHELLS + 1, dtype=x.dtype, device=x.device)
        j = torch.arange(degrees + 1, dtype=x.dtype, device=x.device)
        logs = (edges[1:] * reach[:, None]).log().unsqueeze(1) * j[:, None] - torch.lgamma(j + 1)[:, None]
        logs = logs.clamp_max(OVERFLOW)
        tail = log_tail((rho * x.norm(dim=-1)).clamp_max(OVERFLOW), j[-1]).exp()
        sizes, n = u.norm(dim=-1), x.shape[-2]
        own = sizes if difference.weights is None else sizes * difference.weights
        unit = 4 * (n + degrees) * (u.shape[-1] + 1) * torch.finfo(x.dtype).eps
        bounds = [(tail * own).mean(-1), (tail * c.abs() * sizes).mean(-1), (tail * c.abs()).mean(-1)]
        bounds += [unit * own.mean(-1) ** 2, unit * (c.abs() * (sizes + 1)).mean(-1) ** 2]
        tail_full, tail_signed, tail_output, of_full, of_signed = torch.stack(bounds).cpu()
        rest = {"full": tail_full, "signed": tail_signed, "output": tail_output}
        log_floor = difference.log_floor(edges[:-1], edges[1:]).cpu()
        rounding = {"full": of_full, "signed": of_signed}
        return Series(full, logs.exp().cpu(), log_floor, rest, rounding)

    @property
    def degrees(self) -> int:
        """Returns J."""
        return self.full.shape[1] - 1

    def weigh(self, moments: Tensor, output: Tensor | None, powers: Sequence[float] = POWERS) -> DegreeWeights:
        """Finds weights of the degrees for `bound`, where the outer shell's factor is largest."""
        rounding = self.rounding["full" if output is None else "signed"]
        return degree_weights(moments, self.factor[..., -1], output, rounding, powers)

    def bound(self, moments: Tensor, output: Tensor | None) -> Tensor:
        """Bounds the quotient whose moments are given over the ball ``[H]``.

        `output` ``[H]`` is the radius of the coreset's output; None leaves it out.
        """
        name = "full" if output is None else "signed"
        found = self.weigh(moments, output)
        numerator = ((self.factor.square() / found.alpha.unsqueeze(-1)).sum(1) * found.square.unsqueeze(-1)).sqrt()
        rest = self.rest[name] if output is None else self.rest[name] + self.rest["output"] * output
        return ((numerator + rest.unsqueeze(-1)) / self.log_floor.exp()).amax(-1)

    def ceiling(self, signed: Tensor, centred: Tensor) -> Tensor:
        """Bounds the error ``[H]`` by its moments and `centred` ``[H]``, a bound on |Attn(q) - mean_p(v)|.

        The coreset's output o obeys |o| <= |Attn - mean| + error: each ceiling on the error gives a better one on o,
        from which follows the next.
        """
        best, output = torch.full_like(centred, math.inf), torch.ones_like(centred)
        for _ in range(_ROUNDS):
            best = torch.minimum(best, self.bound(signed, output))
            output = torch.minimum(output, centred + best)
        return best
