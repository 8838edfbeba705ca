"""Exchanges tokens and fits weights so that the kernel certificate itself is small: refinement "certificate"."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.degree_weights import DegreeWeights
from attention_coresets.adversary.difference import Difference, differences
from attention_coresets.adversary.kernel import ceiling_about
from attention_coresets.adversary.subsets import SubsetCeilings
from attention_coresets.attention import Cache, Coreset, base_weights
from attention_coresets.coresets.kernel.degree_kernel import DegreeKernel
from attention_coresets.coresets.minimax.exchange import exchange
from attention_coresets.coresets.selection import floored_log

# the p of each round's search for the kernel: exchanges abuse one of few directions, so they begin near the trace
_POWERS = tuple(1.1 * 1.8 ** (step / 15) for step in range(16))
_LAST_POWERS = (3.0,) * 6  # of rounds that fit weights alone
_STEPS = 12  # of a search
_SHARE = 0.25  # of the tokens are exchanged in a round, at most
_POOL = 512  # tokens that a round looks at, beside twice those kept


def certified(cache: Cache, coreset: Coreset, rho: float, *, exchanges: bool = True, adapts: bool = True) -> Coreset:
    """Lowers the kernel certificate (adversary/kernel.py) by exchanges of tokens and by weights, from a coreset on.

    The certificate is the largest, over unit vectors y, of sum_j rho^j / j! |T_j(y)|: a norm of the vector of weights,
    convex in it. For weights alpha_j of the degrees and a mixture Y of y y^T its square is at most a quadratic form,
    that of the kernel

        G_ik = sum_j alpha_j <x_i, x_k>^j (u_i, 1)^T Y (u_k, 1).

    In turn, `degree_weights` finds alpha and Y for the weights at hand, and `exchange` finds tokens and weights for G.
    Where n is above 512 + 2 m, a round's exchanges look at that many tokens only: those kept, and those that would
    lower the form most for a little weight. What is kept is the least certificate met, that of the start included.
    About which law keys and values are centred is fixed by the start.

    Cost: for each head and round p^2 (J + d) flops for G on p <= 512 + 2 m tokens and up to m / 4 exchanges of O(m p);
    the moments take n^2 J (dv + 1) once and m n J (dv + 1) a round. Memory: four p x p matrices and n J (dv + 1)
    numbers, a head at a time.

    Parameters
    ----------
    cache : Cache
        A flat batch of heads, float64.
    coreset : Coreset
        Of the same batch.
    rho : float
    exchanges : bool
        Whether tokens change. False, for the ablation: weights alone.
    adapts : bool
        Whether alpha and Y follow the weights. False, for the ablation: those of the start stay.

    Returns
    -------
    Coreset
        Of the same size, of the model "free". Weights sum to n, or to the sum of a WeightedCache's own.
    """
    laws = list(differences(cache, coreset, rho))
    if coreset.log_weights is None:
        raise ValueError("a coreset of fitted weights is refined, and this one has none")
    best = torch.stack([ceiling_about(law, rho) for law in laws]).argmin(0).tolist()
    chosen = [
        lowered(SubsetCeilings(head_of(laws[which], h), rho), coreset[h], exchanges=exchanges, adapts=adapts)
        for h, which in enumerate(best)
    ]
    tokens, log_weights = (torch.stack(part) for part in zip(*chosen, strict=True))
    base = base_weights(cache)
    if base is not None:
        log_weights = log_weights + (base.logsumexp(-1, keepdim=True) - math.log(cache.n))
    return Coreset(tokens, log_weights)


def head_of(law: Difference, h: int) -> Difference:
    """Returns one head of a difference, as a batch of one."""
    parts = {name: value[h : h + 1] for name, value in vars(law).items() if value is not None}
    return replace(law, **parts)


def lowered(
    head: SubsetCeilings, coreset: Coreset, *, exchanges: bool = True, adapts: bool = True
) -> tuple[Int[Tensor, "m"], Float[Tensor, "m"]]:
    """Returns tokens and log-weights of the least ceiling that `certified` meets from one head's coreset on."""
    assert coreset.log_weights is not None, "checked by whoever calls"
    return _Search(head).run(coreset.indices, coreset.log_weights, exchanges, adapts)


@dataclass(frozen=True)
class _Met:
    """Tokens ``[m]`` and weights ``[m]`` of sum n, their moments, the radius of their output, and their ceiling."""

    tokens: Tensor
    weights: Tensor
    moments: Tensor
    output: Tensor
    ceiling: float


@dataclass(frozen=True)
class _Search:
    """The rounds of one head; ceilings are in units of its largest |u_i|."""

    head: SubsetCeilings

    def run(self, tokens: Tensor, log_weights: Tensor, exchanges: bool, adapts: bool) -> tuple[Tensor, Tensor]:
        moves = math.ceil(_SHARE * len(tokens)) if exchanges else 0
        met = best = self._first(tokens, self.head.n * log_weights.softmax(-1))
        fixed = None if adapts else self._form(best, _LAST_POWERS[0])
        for power in _POWERS:
            met = self._after(met, fixed or self._form(met, power), moves)
            best = min(best, met, key=lambda one: one.ceiling)
        met = best
        for power in _LAST_POWERS:
            met = self._after(met, fixed or self._form(met, power), 0)
            best = min(best, met, key=lambda one: one.ceiling)
        return best.tokens, floored_log(best.weights.unsqueeze(0))[0]

    def _first(self, tokens: Tensor, weights: Tensor) -> _Met:
        """Computes what the search needs to know of what it starts from."""
        moments = self.head.moments(tokens, weights)
        ceiling = self.head.series.ceiling(moments, self.head.centred)
        return _Met(tokens, weights, moments, (self.head.centred + ceiling).clamp_max(1.0), float(ceiling))

    def _form(self, met: _Met, power: float) -> DegreeWeights:
        return self.head.series.weigh(met.moments, met.output, (power,) * _STEPS)

    def _after(self, met: _Met, form: DegreeWeights, moves: int) -> _Met:
        """Exchanges tokens for the kernel of a form; weights are its best."""
        kernel = DegreeKernel(self.head, form)
        pool = self._pool(met, kernel) if moves else met.tokens
        gram = kernel.among(pool).unsqueeze(0)
        ends = torch.ones_like(gram[:, 0]) / self.head.n
        places, weights = exchange(gram, ends, torch.searchsorted(pool, met.tokens).unsqueeze(0), moves=moves)
        tokens, weights = pool[places[0]], weights[0]
        moments = self.head.moments(tokens, weights)
        ceiling = self.head.series.bound(moments, met.output)
        output = torch.minimum(met.output, self.head.centred + ceiling)
        return _Met(tokens, weights, moments, output, float(ceiling))

    def _pool(self, met: _Met, kernel: DegreeKernel) -> Tensor:
        """Returns the tokens that exchanges look at, sorted."""
        count = _POOL + 2 * len(met.tokens)
        if self.head.n <= count:
            return torch.arange(self.head.n, device=met.tokens.device)
        return kernel.promising(met.tokens, met.weights, count)
