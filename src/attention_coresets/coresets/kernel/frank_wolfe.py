"""Frank-Wolfe coresets: each token is the one most like what is still missing, and all weights are refitted."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Coreset
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.base import Construction, Cost, Request
from attention_coresets.coresets.kernel.law import SCALES, law
from attention_coresets.coresets.kernel.nnls import nnls
from attention_coresets.coresets.kernel.unit_kernel import DENSE, UnitKernel, unit_kernel
from attention_coresets.coresets.selection import first_best, floored_log, mark, over_heads
from attention_coresets.registry import check_name

_TIE = 1e-9  # of the largest entry of the target
_REFIT = 16  # a refit of all weights after each token up to here, then each time their number has grown by 1/16


@dataclass(frozen=True)
class FrankWolfe(Construction):
    """Keeps tokens whose weighted features sum to about the whole cache's, each the one most like what is missing.

    Let phi_i be token i's feature in the tilted balancing kernel, psi_i = phi_i / |phi_i|, and T = sum_i phi_i the
    whole cache. T is approximated by sum_j w_j phi_j over the kept tokens j with weights w_j >= 0. The next token is
    the i of largest <psi_i, T - sum_j w_j phi_j>, which is the vertex of Frank-Wolfe on the hull of the scaled psi. Of
    equal products it is the first.

    Its weight is set by exact line search. All weights are refitted by non-negative least squares after each of the
    first 16 tokens, then each time a sixteenth more have come, and at the end. Tokens whose best weight is 0 stay, for
    log-weights are floored at e^-30 of the largest |w_j phi_j|. Nothing is random: the generator is not used.

    scale: of the kernel (kernel/law.py).

    Cost: for one head, O(n^2 (d + dv)) once, O(n m log m) for the products, some 30 m^3 flops for the weights. Memory
    O(n m), and O(n^2) up to n = 4096.

    Source: Bach, Lacoste-Julien and Obozinski 2012; Clarkson 2010.
    """

    model: ClassVar[str] = "free"
    agreement: ClassVar[Agreement] = Agreement.TIES
    scale: str = "auto"

    def __post_init__(self) -> None:
        check_name(self.scale, SCALES, "scale")

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Estimates the sums over all pairs and the refits."""
        return Cost((size + min(n, DENSE)) * n, 4 * n**2 * d + n * size**2 + 30 * size**3)

    def choose(self, request: Request) -> Coreset:
        cache, size, rho = request.cache, request.size, request.rho

        def of_heads(keys: Tensor, values: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
            kernel = unit_kernel(keys, values, law(keys, rho, "tilted", self.scale), dense=True)
            tokens, weights = pursue(kernel, size)
            return tokens, floored_log(weights) - kernel.log_norms.gather(-1, tokens)

        numbers = (size + min(cache.n, DENSE)) * cache.n
        return over_heads(request, of_heads, numbers=numbers)


def pursue(kernel: UnitKernel, size: int) -> tuple[Tensor, Tensor]:
    """Returns tokens ``[H, size]`` in the order taken, and weights of their unit features, some of them 0."""
    target = kernel.everywhere(kernel.log_norms.exp())  # [H, n], <psi_i, T>
    heads, n = target.shape
    tie = _TIE * target.amax(-1)
    rows = target.new_empty(heads, size, n)
    tokens = torch.empty(heads, size, dtype=torch.int64, device=target.device)
    weights, missing = target.new_zeros(heads, size), target.clone()
    taken, due = torch.zeros_like(target, dtype=torch.bool), 1
    for t in range(size):
        token = first_best(missing.masked_fill(taken, -torch.inf), tie)
        mark(taken, token)
        tokens[:, t] = token
        rows[:, t] = kernel.rows(token.unsqueeze(-1)).squeeze(-2)
        weights[:, t] = missing.gather(-1, token.unsqueeze(-1)).squeeze(-1).clamp_min(0)
        if t + 1 < min(due, size):
            missing = missing - weights[:, t, None] * rows[:, t]
            continue
        due = t + 2 + t // _REFIT
        used = slice(0, t + 1)
        gram = rows[:, used].gather(-1, tokens[:, None, used].expand(-1, t + 1, -1))
        weights[:, used] = nnls(gram, target.gather(-1, tokens[:, used]))
        missing = target - (weights[:, None, used] @ rows[:, used]).squeeze(-2)
    return tokens, weights
