"""Gram-Schmidt walk coresets: the construction that should reach the sqrt(d) e^{rho sigma} / epsilon rate."""

from dataclasses import dataclass

from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.parameters import check_axes
from attention_coresets.coresets.recursion import balanced_coreset
from attention_coresets.coresets.uniforms import Generators
from attention_coresets.coresets.walk import walk_signs


@dataclass(frozen=True)
class GramSchmidtWalk:
    """Balance exp(a^2 <k_i - mu, k_j - mu>) (<v_i, v_j> + 1) / (pi_i pi_j) by the Gram-Schmidt walk (walk.py).

    model "tilted": marginals from p* (theory.tilt), a^2 = rho / sigma, log-weights -log pi; "unweighted": marginals
    m/n, a^2 = rho / R. scale replaces a^2; recursion is "one_walk" (any size at once) or "halving". ridge is in units
    of the mean diagonal. Sources: Bansal et al. 2018, Harshaw et al.; the tilt is this project's. Cost O(n^3) a head
    and walk.
    """

    model: str = "tilted"
    scale: str = "auto"
    recursion: str = "one_walk"
    ridge: float = 1e-4

    def __post_init__(self) -> None:
        check_axes(self.model, self.scale, self.recursion, self.ridge)

    def __call__(self, cache: Cache, size: int, rho: float, generator: Generators) -> Coreset:
        """A coreset of exactly `size` tokens a head, for queries of norm at most rho."""
        return balanced_coreset(
            cache, size, rho, generator, rule=self._walk, model=self.model, scale=self.scale, recursion=self.recursion
        )

    def _walk(self, gram: Tensor, x: Tensor, uniforms: Tensor) -> Tensor:
        rank = uniforms[:, 1].argsort(dim=-1).argsort(dim=-1)  # [H, n]; the pivots in random order
        return walk_signs(gram, x, uniforms[:, 0].contiguous(), self.ridge, rank=rank)
