"""Computes a ceiling on a coreset's error from sums over the tokens, for a stream that has let go of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.taylor import spectral_norm
from attention_coresets.attention import Cache
from attention_coresets.inputs import exact_unit

_POWERS = 2**22  # entries of x (x) x held at once
_LEAST = 1e-100  # in the unit of the sums; squares of much smaller values vanish, and would leave a ceiling of 0
_ROUNDS = 4  # a ceiling of the error gives one of the output, and that a better one of the error


@dataclass
class RunningMoments:
    """Sums over weighted tokens, with x_i = k_i - k_0 and u_i = v_i / unit - v_0 about two points that stay; float64.

    - total ``[H]``: sum w_i
    - mean_keys ``[H, d]``, keys ``[H, d, d]``: sum w_i x_i and sum w_i x_i x_i^T
    - values ``[H, dv]``, first ``[H, d, dv]``, second ``[H, d^2, dv]``: sum w_i x_i^{(x)j} u_i^T for j = 0, 1, 2
    - lengths ``[H, d, d]``: sum w_i |u_i| x_i x_i^T
    - reach ``[H]``, radius ``[H]``: max |x_i| and max |u_i|

    unit ``[H, 1, 1]`` is a power of 2 (`exact_unit`). No tensor changes once it is made, so a shallow copy goes its own
    way.

    Memory: d^2 (dv + 2) + (d + 1)(dv + 1) numbers a head, whatever the number of tokens.
    """

    origin: tuple[Tensor, Tensor]
    unit: Tensor
    total: Tensor
    mean_keys: Tensor
    keys: Tensor
    values: Tensor
    first: Tensor
    second: Tensor
    lengths: Tensor
    reach: Tensor
    radius: Tensor

    @classmethod
    def about(cls, cache: Cache) -> "RunningMoments":
        """Makes sums of no token yet, about the mean key and value of this flat cache ``[H, n, d]``."""
        keys, values = (x.to(torch.float64) for x in (cache.keys, cache.values))
        unit = exact_unit(values)
        return cls.empty((keys.mean(dim=-2, keepdim=True), (values / unit).mean(dim=-2, keepdim=True)), unit)

    @classmethod
    def empty(cls, origin: tuple[Tensor, Tensor], unit: Tensor) -> "RunningMoments":
        """Makes sums of no token yet about these two points, ``[H, 1, d]`` and ``[H, 1, dv]``, values in this unit."""
        (heads, _, d), dv = origin[0].shape, origin[1].shape[-1]
        shapes = ((), (d,), (d, d), (dv,), (d, dv), (d * d, dv), (d, d), (), ())
        return cls(origin, unit, *(origin[0].new_zeros(heads, *shape) for shape in shapes))

    def add(self, cache: Cache, weights: Float[Tensor, "H n"] | None = None) -> None:
        """Adds the tokens of a flat cache, each with weight 1 or its own.

        Cost: 2 n d^2 dv flops a head.
        """
        tokens = max(1, _POWERS // (cache.d**2 * len(cache.keys)))
        for start in range(0, cache.n, tokens):
            part = slice(start, start + tokens)
            x = cache.keys[:, part].to(torch.float64) - self.origin[0]
            u = cache.values[:, part].to(torch.float64) / self.unit - self.origin[1]
            w = torch.ones_like(x[..., 0]) if weights is None else weights[:, part]
            self._add(x, u, w)

    def _add(self, x: Tensor, u: Tensor, w: Tensor) -> None:
        weighted, length = u * w.unsqueeze(-1), u.norm(dim=-1)
        self.total = self.total + w.sum(-1)
        self.mean_keys = self.mean_keys + (w.unsqueeze(-2) @ x).squeeze(-2)
        self.keys = self.keys + (x * w.unsqueeze(-1)).mT @ x
        self.values = self.values + weighted.sum(-2)
        self.first = self.first + x.mT @ weighted
        self.second = self.second + (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2).mT @ weighted
        self.lengths = self.lengths + (x * (w * length).unsqueeze(-1)).mT @ x
        self.reach = torch.maximum(self.reach, x.norm(dim=-1).amax(-1))
        self.radius = torch.maximum(self.radius, length.amax(-1))

    def ceiling(self, coreset: Cache, weights: Float[Tensor, "H m"], rho: float) -> Float[Tensor, "H"]:
        """Returns for each head a number that |Attn(q) - Attn_coreset(q)| exceeds at no query |q| <= rho.

        `coreset` holds the kept tokens, flat, whose weights are scaled to the total here. With c_i = 1 - w_i and t_i =
        <q, x_i>, the difference (difference.py) is sum_i c_i e^{t_i} (u_i - o) / Z. For t <= T = rho max |x_i|

            |e^t - 1 - t - t^2 / 2| <= g |t|^3,   g = (e^T - 1 - T - T^2 / 2) / T^3.

        So degrees up to 2 enter by the spectral norms of the sums' differences, with what the coreset gets right taken
        off; the rest by g T sum_i (1 + w_i) t_i^2 (|u_i| + |o|), a form in q, at full size. Z >= n e^{-rho |mean x|}.

        It is of use where the keys lie along many directions, so that <q, x_i> is mostly small beside rho |x_i|, and
        rho is at most about 2. It is never below 1e-100 `unit`.

        Cost: an eigenproblem of d and one of dv numbers a head, and O(m d^2 dv).
        """
        other = RunningMoments.empty(self.origin, self.unit)
        other.add(coreset, weights * (self.total / weights.sum(-1)).unsqueeze(-1))
        n = self.total
        reach = rho * torch.maximum(self.reach, other.reach)
        rest = rho**2 * reach * _rest(reach) / n
        floor = (-rho * self.mean_keys.norm(dim=-1) / n).exp()
        # what sums of this many terms may lose to rounding
        loss = 8 * n * torch.finfo(torch.float64).eps * reach.exp()
        apart = (a - b for a, b in zip(self._sums(), other._sums(), strict=True))
        signed = RunningMoments(self.origin, self.unit, *apart)
        radius = torch.maximum(self.radius, other.radius)

        def bound(sums: RunningMoments, lengths: Tensor) -> Tensor:
            return _known((sums._values_form(rho) / n + rest * _largest(lengths) + loss * radius) / floor)

        alone = (signed._keys_form(rho) / n + rest * _largest(self.keys + other.keys) + loss) / floor
        with_values, outward = bound(signed, self.lengths + other.lengths), bound(self, self.lengths)
        outward = torch.minimum(outward, self.radius)
        output, best = other.radius, outward + other.radius
        for _ in range(_ROUNDS):
            best = torch.minimum(best, _known(with_values + output * alone))
            output = torch.minimum(output, outward + best)
        return _known(best.clamp_min(_LEAST) * self.unit.flatten())

    def _sums(self) -> tuple[Tensor, ...]:
        return (
            *(self.total, self.mean_keys, self.keys, self.values, self.first, self.second),
            *(self.lengths, self.reach, self.radius),
        )

    def _values_form(self, rho: float) -> Tensor:
        """Bounds |sum_i w_i (1 + t_i + t_i^2 / 2) u_i| over the ball."""
        d, dv = self.first.shape[-2:]
        square = self.second.reshape(-1, d, d * dv), self.second
        second = torch.minimum(*(_each(spectral_norm, x) for x in square))
        return self.values.norm(dim=-1) + rho * _each(spectral_norm, self.first) + rho**2 / 2 * second

    def _keys_form(self, rho: float) -> Tensor:
        """Bounds |sum_i w_i (t_i + t_i^2 / 2)| over the ball."""
        return rho * self.mean_keys.norm(dim=-1) + rho**2 / 2 * _each(spectral_norm, self.keys)


def _rest(reach: Tensor) -> Tensor:
    """Returns g at T: sum_{j >= 3} T^{j-3} / j!, by its series up to T = 1, where the closed form cancels."""
    small, series = reach.clamp_max(1), torch.zeros_like(reach)
    for j in range(25, 2, -1):
        series = series * small + torch.lgamma(reach.new_tensor(j + 1.0)).neg().exp()
    large = reach.clamp_min(1)
    return torch.where(reach <= 1, series, (large.exp() - 1 - large - large.square() / 2) / large**3)


def _largest(form: Tensor) -> Tensor:
    """Returns the largest eigenvalue of each positive form ``[H, d, d]``, infinite where one is not finite."""
    finite = form.isfinite().all(-1).all(-1)
    clean = torch.where(finite[:, None, None], form, 0.0)
    largest = torch.linalg.eigvalsh(clean.cpu())[..., -1].clamp_min(0).to(form.device)
    return torch.where(finite, largest, torch.inf)


def _known(ceiling: Tensor) -> Tensor:
    """Returns a ceiling, infinite where numbers beyond the floats left none (inf times 0)."""
    return ceiling.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _each(norm: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    """Returns the norm of each matrix, in a unit that squares stay finite in; infinite where one is not finite."""
    finite = matrices.isfinite().all(-1).all(-1)
    clean = torch.where(finite[:, None, None], matrices, 0.0)
    unit = exact_unit(clean)
    norms = torch.stack([norm(matrix) for matrix in clean / unit]) * unit.flatten()
    return torch.where(finite, norms, torch.inf)
