"""Gram-Schmidt walk coresets: the construction that should reach the sqrt(d) e^{rho sigma} / epsilon rate."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attention_coresets.checks import positive
from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.balancing.buckets import rounds
from attention_coresets.coresets.balancing.recursion import Walk
from attention_coresets.coresets.balancing.shared_inverse import SharedInverse
from attention_coresets.coresets.base import Cost
from attention_coresets.coresets.kernel.law import Law, balancing_gram
from attention_coresets.coresets.randomness import seeded
from attention_coresets.coresets.shared import Shared
from attention_coresets.coresets.walks.feature_walk import feature_signs
from attention_coresets.coresets.walks.features import pivoted_cholesky, random_features
from attention_coresets.coresets.walks.walk import random_places, walk_signs
from attention_coresets.inputs import exact_unit
from attention_coresets.registry import check_name

FORMS = ("gram", "pivoted_cholesky", "random_features")


@dataclass(frozen=True)
class GramSchmidtWalk(Balancing):
    """Keeps half of the tokens, or any share, so that kept and dropped ones balance: signs by the Gram-Schmidt walk.

    The walk (walks/walk.py) balances the kernel of `Balancing`, and reaches any size in one walk.

    model, scale, recursion, refinement: as in `Balancing`; recursion is "one_walk" unless said.
    ridge: added to the kernel's diagonal, in units of its mean. Without it near-duplicate keys make the kernel
        singular.
    form: "gram" walks on the n x n matrix, "pivoted_cholesky" and "random_features" on `rank` features of it
        (walks/features.py, walks/feature_walk.py).
    rank: features of the latter two.

    Cost: O(n^3) a head and walk; with `shared` half of it from the second size on, and O(n^2) more memory. On features
    O(n^2 rank + n rank^2), in n x rank memory.

    Source: Bansal, Dadush, Garg and Lovett 2018; Harshaw, Savje, Spielman and Zhang.
    """

    recursion: str = "one_walk"
    ridge: float = 1e-4
    form: str = "gram"
    rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.ridge) and self.ridge > 0):
            raise ValueError(
                f"ridge must be above 0, got {self.ridge}: near-duplicate keys make the Gram matrix singular"
            )
        check_name(self.form, FORMS, "form")
        if self.form == "gram" and self.rank is not None:
            raise ValueError(f"form gram walks on the whole matrix and has no rank, got {self.rank}; leave rank out")
        if self.form != "gram":
            if self.rank is None:
                raise ValueError(f"form {self.form} needs a rank, the number of features; rank=256 is a good start")
            positive(rank=self.rank)

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Adds the walk to what all balancing takes: on Gram matrices, or on features."""
        numbers, flops = super().cost(n, size, d)
        for step in rounds(n, size, self.recursion):
            columns = step.width if self.rank is None else self.rank
            numbers = max(numbers, 3 * step.width * columns)
            flops += step.buckets * step.width * columns * max(columns, step.width)
        return Cost(numbers, flops)

    def signs(self, vectors: Tensor, x: Tensor, uniforms: Tensor) -> Tensor:
        if self.form != "gram":
            return self._feature_signs(vectors, x, uniforms)
        return self._walk_signs(vectors, x, uniforms)

    def walk(self, n: int, shared: Shared | None) -> Walk:
        if shared is None or self.form != "gram":
            return super().walk(n, shared)
        on_inverse = partial(self._walk_signs, inverted=True)
        return SharedInverse(self.signs, self.vectors, n, self.ridge, shared, on_inverse)

    def vectors(self, keys: Tensor, values: Tensor, log_weights: Tensor, law: Law, uniforms: Tensor) -> Tensor:
        """Makes the Gram matrix ``[H, n, n]``, or features of it, ``[H, n, rank]`` or fewer.

        Random features come dv + 1 a draw; raises ValueError where rank has no room for one draw.
        """
        if self.form == "gram":
            return balancing_gram(keys, values, log_weights, law)
        make = self._pivoted if self.form == "pivoted_cholesky" else self._random
        return make(keys, values, log_weights, law, uniforms)

    def _walk_signs(self, gram: Tensor, x: Tensor, uniforms: Tensor, inverted: bool = False) -> Tensor:
        place, numbers = random_places(uniforms), uniforms[:, 0].contiguous()
        return walk_signs(gram, x, numbers, self.ridge, place=place, inverted=inverted)

    def _feature_signs(self, features: Tensor, x: Tensor, uniforms: Tensor) -> Tensor:
        alive = x.abs() < 1 - 1e-10
        level = (features.square().sum(-1) * alive).sum(-1) / alive.sum(-1).clamp_min(1)  # [H], the mean diagonal
        ridge = self.ridge * torch.where(level > 0, level, 1.0)
        return feature_signs(features, x, uniforms[:, 0].contiguous(), ridge, place=random_places(uniforms))

    def _pivoted(self, keys: Tensor, values: Tensor, log_weights: Tensor, law: Law, uniforms: Tensor) -> Tensor:
        assert self.rank is not None, "checked when built"
        draws = [
            torch.rand(min(self.rank, keys.shape[1]), dtype=keys.dtype, generator=g) for g in seeded(uniforms[:, 1, 0])
        ]
        return pivoted_cholesky(keys, values, log_weights, law, torch.stack(draws).to(keys.device))

    def _random(self, keys: Tensor, values: Tensor, log_weights: Tensor, law: Law, uniforms: Tensor) -> Tensor:
        assert self.rank is not None, "checked when built"
        each = values.shape[-1] + 1
        if self.rank < each:
            raise ValueError(
                f"random features come dv + 1 = {each} a draw; rank must be at least that, got {self.rank}"
            )
        shape = (self.rank // each, keys.shape[-1])
        draws = [torch.randn(shape, dtype=keys.dtype, generator=g) for g in seeded(uniforms[:, 1, 0])]
        features = random_features(keys, values, log_weights, law, torch.stack(draws).to(keys.device))
        return features / exact_unit(features)  # a large rho makes them as small as 1e-150; the walk has no unit
