"""Gram-Schmidt walk coresets: the construction that should reach the sqrt(d) e^{rho sigma} / epsilon rate."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.checks import positive
from attention_coresets.coresets.agreement import Agreement, of_refinement
from attention_coresets.coresets.feature_walk import feature_signs
from attention_coresets.coresets.features import pivoted_cholesky, random_features
from attention_coresets.coresets.law import Law
from attention_coresets.coresets.parameters import check_axes
from attention_coresets.coresets.recursion import balanced_coreset, whole_gram
from attention_coresets.coresets.uniforms import Generators, seeded
from attention_coresets.coresets.walk import walk_signs
from attention_coresets.registry import check_name

FORMS = ("gram", "pivoted_cholesky", "random_features")


@dataclass(frozen=True)
class GramSchmidtWalk:
    """Balance exp(a^2 <k_i - mu, k_j - mu>) (<v_i, v_j> + 1) / (pi_i pi_j) by the Gram-Schmidt walk (walk.py).

    model "tilted": marginals from p* (theory.tilt), a^2 = rho / sigma, log-weights -log pi; "unweighted": marginals
    m/n, a^2 = rho / R. scale replaces a^2; recursion is "one_walk" (any size at once) or "halving". ridge is in units
    of the mean diagonal. form "gram" walks on the n x n matrix, O(n^3) a head and walk; "pivoted_cholesky" and
    "random_features" walk on `rank` features of it (features.py, feature_walk.py), O(n^2 rank + n rank^2) in n x rank
    memory. Sources: Bansal et al. 2018, Harshaw et al.; the tilt is this project's.
    """

    weighted: ClassVar[bool] = True  # takes a WeightedCache
    model: str = "tilted"
    scale: str = "auto"
    recursion: str = "one_walk"
    refinement: str = "none"
    ridge: float = 1e-4
    form: str = "gram"
    rank: int | None = None

    def __post_init__(self) -> None:
        check_axes(self.model, self.scale, self.recursion, self.refinement, self.ridge)
        check_name(self.form, FORMS, "form")
        if self.form == "gram" and self.rank is not None:
            raise ValueError(f"form gram walks on the whole matrix and has no rank, got {self.rank}; leave rank out")
        if self.form != "gram":
            if self.rank is None:
                raise ValueError(f"form {self.form} needs a rank, the number of features; rank=256 is a good start")
            positive(rank=self.rank)

    @property
    def agreement(self) -> Agreement:
        """How far two runs may differ by rounding."""
        return of_refinement(self.model, self.refinement)

    def __call__(self, cache: Cache, size: int, rho: float, generator: Generators) -> Coreset:
        """A coreset of exactly `size` tokens a head, for queries of norm at most rho.

        Raises ValueError where form is random_features and rank has no room for one draw, dv + 1 features.
        """
        vectors = {"gram": whole_gram, "pivoted_cholesky": self._pivoted, "random_features": self._random}[self.form]
        return balanced_coreset(
            cache,
            size,
            rho,
            generator,
            rule=self._walk if self.form == "gram" else self._feature_walk,
            vectors=vectors,
            model=self.model,
            scale=self.scale,
            recursion=self.recursion,
            refinement=self.refinement,
        )

    def _walk(self, gram: Tensor, x: Tensor, uniforms: Tensor) -> Tensor:
        return walk_signs(gram, x, uniforms[:, 0].contiguous(), self.ridge, place=_places(uniforms))

    def _feature_walk(self, features: Tensor, x: Tensor, uniforms: Tensor) -> Tensor:
        alive = x.abs() < 1 - 1e-10
        level = (features.square().sum(-1) * alive).sum(-1) / alive.sum(-1).clamp_min(1)  # [H], the mean diagonal
        ridge = self.ridge * torch.where(level > 0, level, 1.0)
        return feature_signs(features, x, uniforms[:, 0].contiguous(), ridge, place=_places(uniforms))

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
        return random_features(keys, values, log_weights, law, torch.stack(draws).to(keys.device))


def _places(uniforms: Tensor) -> Tensor:
    """Each token's place among the pivots, ``[H, n]``: a random order."""
    return uniforms[:, 1].argsort(dim=-1).argsort(dim=-1)
