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

from attention_coresets.adversary.difference import Difference, differences
from attention_coresets.attention import Cache, Coreset
from attention_coresets.theory import check_rho

_DEGREES = 80  # at most; beyond, the rest of the series is bounded by norms
_NEGLIGIBLE = 1e-9  # share of e^z that the rest of the series may hold
_ENTRIES = 2**20  # of the key Gram matrix at once: 8 MB a copy
_ROUNDS = 40  # of the search for alpha
_HEIGHTS = (2.0**-4, 2.0**6)  # limits of b, what the appended 1 is multiplied by, in units of max |u|
_NEAR = (0.7, 1.0, 1.4)  # steps of b in a round
_SHELLS = 32
_OVERFLOW = 300.0  # log of what is too large to be multiplied by itself


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
    check_rho(rho)
    found = [_about(difference, rho) for difference in differences(cache, coreset, rho)]
    return torch.stack(found).amin(0).reshape(cache.heads)


def _about(difference: Difference, rho: float) -> Tensor:
    """Returns the ceiling about one law ``[H]``."""
    scale = difference.output_radius.clamp_min(1e-300)
    difference = replace(difference, u=difference.u / scale[:, None, None])
    z = rho * difference.reach
    series = _Series.of(difference, rho, degrees=_degrees(float(z.max().clamp_max(_OVERFLOW))))
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
        full, signed = _moments(x / reach[:, None, None], u, c, degrees, difference.weights)
        edges = torch.linspace(0, rho, _SHELLS + 1, dtype=x.dtype, device=x.device)
        j = torch.arange(degrees + 1, dtype=x.dtype, device=x.device)
        logs = (edges[1:] * reach[:, None]).log().unsqueeze(1) * j[:, None] - torch.lgamma(j + 1)[:, None]
        logs = logs.clamp_max(_OVERFLOW)
        tail = _tail((rho * x.norm(dim=-1)).clamp_max(_OVERFLOW), degrees)
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
        alpha, square = _least_eigenvalue(moments, self.factor[..., -1], output, self.rounding[name])
        numerator = ((self.factor.square() / alpha.unsqueeze(-1)).sum(1) * square.unsqueeze(-1)).sqrt()
        rest = self.rest[name] if output is None else self.rest[name] + self.rest["output"] * output
        return ((numerator + rest.unsqueeze(-1)) / self.log_floor.exp()).amax(-1)


def _least_eigenvalue(
    moments: Tensor, factor: Tensor, output: Tensor | None, rounding: Tensor
) -> tuple[Tensor, Tensor]:
    """Finds weights alpha ``[H, J+1]`` of little product (sum_j factor_j^2 / alpha_j) times square, and returns both.

    square ``[H]`` is the largest of y^T (sum_j alpha_j M_j) y over the y allowed. It is bounded by the least over b of
    (1 + output^2 / b^2) lambda_max, with the last row and column times b.

    The dual maximises the concave sum_j factor_j sqrt(<M_j, Y>) over mixtures Y of y y^T. Frank-Wolfe steps on it need
    only the top eigenvector of the weighted sum.
    """
    heads, rows = len(moments), torch.arange(len(moments), device=moments.device)
    stretch = moments.new_ones(heads, 1 if output is None else len(_NEAR), moments.shape[-1])
    lift, b = torch.ones_like(stretch[..., 0]), moments.new_ones(heads)
    mixture = torch.eye(moments.shape[-1], dtype=moments.dtype, device=moments.device) / moments.shape[-1]
    mixture, tiny = mixture.expand(heads, -1, -1), rounding.unsqueeze(-1).clamp_min(1e-300)
    # any alpha and any b are valid: the best met is kept, whether or not the steps have converged
    best, kept = moments.new_full((heads,), math.inf), (torch.ones_like(factor), rounding)
    for step in range(_ROUNDS):
        if output is not None:
            stretch[..., -1] = (b.unsqueeze(-1) * b.new_tensor(_NEAR)).clamp(*_HEIGHTS)
            lift = 1 + (output.unsqueeze(-1) / stretch[..., -1]).square()
        # for a given mixture the best weights are explicit: factor_j / sqrt(<M_j, Y>)
        alpha = (factor / ((moments * mixture.unsqueeze(1)).sum((-2, -1)) + tiny).sqrt()).clamp_min(1e-300)
        total = (alpha[..., None, None] * moments).sum(1)
        values, vectors = torch.linalg.eigh(total.unsqueeze(1) * stretch.unsqueeze(-1) * stretch.unsqueeze(-2))
        # the computed moments are off by `rounding` each, and so is the eigenvalue of their sum
        slack = (alpha.sum(-1) * rounding).unsqueeze(-1) * stretch.amax(-1).square()
        square, at = (lift * (values[..., -1].clamp_min(0) + slack)).min(-1)
        product = (factor.square() / alpha).sum(-1) * square
        better = product < best
        best, b = torch.where(better, product, best), stretch[rows, at, -1]
        kept = (torch.where(better.unsqueeze(-1), alpha, kept[0]), torch.where(better, square, kept[1]))
        y = vectors[rows, at, :, -1] * stretch[rows, at] * lift[rows, at].sqrt().unsqueeze(-1)
        # the step length of Frank-Wolfe that needs no search
        mixture = mixture + 2 / (step + 3) * (y.unsqueeze(-1) * y.unsqueeze(-2) - mixture)
    return kept


def _moments(x: Tensor, u: Tensor, c: Tensor, degrees: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Computes sum_ik <x_i,x_k>^j f_i f_k^T / n^2 for j = 0..degrees, by blocks of rows and heads.

    Returns them for f = W u and for f = c (u, 1).
    """
    heads, n, dv = u.shape
    signed = torch.cat([u, torch.ones_like(c).unsqueeze(-1)], dim=-1) * c.unsqueeze(-1)
    both = torch.cat([u if weights is None else u * weights.unsqueeze(-1), signed], dim=-1) / n
    out = both.new_zeros(heads, degrees + 1, 2 * dv + 1, 2 * dv + 1)
    group = max(1, _ENTRIES // n**2)
    for a in range(0, heads, group):
        head, rows = slice(a, a + group), max(1, _ENTRIES // (n * min(group, heads - a)))
        for b in range(0, n, rows):
            left, right = both[head, b : b + rows].mT, both[head, b:]
            inner = x[head, b : b + rows] @ x[head, b:].mT
            power = torch.ones_like(inner)
            # of the symmetric sum only the blocks on and right of the diagonal are met; the transpose added at the end
            # counts the others, and the diagonal one twice
            power[..., : left.shape[-1]] = 0.5
            for j in range(degrees + 1):
                out[head, j] += left @ (power @ right)
                power *= inner
    out = out + out.mT
    return out[..., :dv, :dv], out[..., dv:, dv:]


def _degrees(z: float) -> int:
    """Returns the least J with sum_{j > J} z^j / j! <= _NEGLIGIBLE e^z, at most _DEGREES."""
    j = torch.arange(1, _DEGREES + 1, dtype=torch.float64)
    logs = log_tail(torch.tensor([z], dtype=torch.float64), j)
    small = (logs <= math.log(_NEGLIGIBLE) + z).nonzero()
    return int(j[small[0, 0]]) if len(small) else _DEGREES


def _tail(z: Tensor, degrees: int) -> Tensor:
    """Bounds sum_{j > degrees} z^j / j!."""
    return log_tail(z, torch.tensor(float(degrees), dtype=z.dtype, device=z.device)).exp()


def log_tail(z: Tensor, degrees: Tensor) -> Tensor:
    """Returns the log of a bound on sum_{j > degrees} z^j / j!: first term over 1 - z / (degrees + 2), or e^z."""
    ratio = z / (degrees + 2)
    first = (degrees + 1) * z.clamp_min(1e-300).log() - torch.lgamma(degrees + 2)
    return torch.where(ratio < 0.9, first - torch.log1p(-ratio.clamp_max(0.9)), z)
