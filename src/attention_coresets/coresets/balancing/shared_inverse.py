"""Walks to many sizes on one inverse of the Gram matrix."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from attention_coresets.coresets.balancing.recursion import Tokens, Walk
from attention_coresets.coresets.shared import Shared
from attention_coresets.coresets.walks.walk import all_alive, inverses


@dataclass(frozen=True)
class SharedInverse(Walk):
    """A walk that leaves its inverse in `shared`, where all n tokens take part, and takes it from there.

    Where no marginal min(1, c p_i) is 1, the weights 1 / pi_i in the kernel are 1 / p_i but for the factor c, which
    `balancing_features` takes out: the Gram matrix, and so its inverse, is the same for every size.

    `on_inverse(inverse, x, uniforms)` gives the signs on an inverse, which it overwrites.
    """

    n: int
    ridge: float
    shared: Shared
    on_inverse: Callable[[Tensor, Tensor, Tensor], Tensor]

    def kept(self, tokens: Tokens, log_pi: Tensor, marginals: Tensor, uniforms: Tensor) -> Tensor:
        x = 2 * marginals - 1
        if tokens.keys.shape[-2] < self.n or not all_alive(x):
            return super().kept(tokens, log_pi, marginals, uniforms)

        def make() -> Tensor:
            gram = self.vectors(tokens.keys, tokens.values, -log_pi, tokens.measure, uniforms)
            return inverses(gram, self.ridge)

        return self.on_inverse(self.shared.once("inverse", make).clone(), x, uniforms)
