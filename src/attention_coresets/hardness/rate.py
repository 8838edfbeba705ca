"""What the error of a coreset is held against, and the weights of kept tokens: both with derivatives in the keys."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.checks import positive
from attention_coresets.coresets.kernel.law import capped_marginals
from attention_coresets.registry import check_name
from attention_coresets.theory import check_rho, radius, tilt, tilt_step

OBJECTIVES = ("own", "rho")
MODELS = ("tilted", "unweighted")


@dataclass(frozen=True)
class Rate:
    """The rate sqrt(d) e^x / m, in units of which a cache is hard.

    rho: radius of the ball of queries.
    size: tokens kept, m.
    model: "tilted", a kept token has log-weight -log pi, pi = min(1, c p*) of sum m; or "unweighted".
    objective: the exponent x. "own" is that of the model's theorem: rho sigma (tilted), or rho R with
        R = max |k_i - mean| (unweighted). "rho" is rho, whatever the keys.
    """

    rho: float
    size: int
    model: str = "tilted"
    objective: str = "own"

    def __post_init__(self) -> None:
        check_rho(self.rho)
        positive(size=self.size)
        check_name(self.model, MODELS, "coreset model of a search")
        check_name(self.objective, OBJECTIVES, "objective")

    def log_unit(self, d: int) -> float:
        """Returns log(sqrt(d) / m)."""
        return 0.5 * math.log(d) - math.log(self.size)


class Spread(NamedTuple):
    """Centre ``[H, d]`` and sigma ``[H]`` of the tilt of some keys: where the next tilt is sought."""

    center: Float[Tensor, "H d"]
    sigma: Float[Tensor, "H"]

    @classmethod
    def of(cls, keys: Float[Tensor, "H n d"], rho: float) -> "Spread":
        """Returns that of these keys, from scratch."""
        found = tilt(keys, rho)
        return cls(found.center, found.sigma)


class Weighting(NamedTuple):
    """log_weights ``[H, n]`` of each token if kept, and the exponent x of the rate ``[H]``."""

    log_weights: Float[Tensor, "H n"]
    exponent: Float[Tensor, "H"]


def weighting(keys: Float[Tensor, "H n d"], rate: Rate) -> Weighting:
    """Computes weights and exponent exactly. Cost: that of `tilt`."""
    if rate.model == "unweighted":
        return _unweighted(keys, rate)
    found = tilt(keys, rate.rho)
    return _tilted(found.log_p, found.sigma, rate)


def weighting_near(keys: Float[Tensor, "H n d"], rate: Rate, spread: Spread) -> tuple[Weighting, Spread]:
    """Computes them differentiably in the keys, from the spread of keys close by, and the spread of these.

    One Newton step stands for the tilt (`tilt_step`), so that sigma and p* have their derivatives.
    """
    if rate.model == "unweighted":
        return _unweighted(keys, rate), spread
    log_p, center, sigma = tilt_step(keys, rate.rho, *spread)
    return _tilted(log_p, sigma, rate), Spread(center.detach(), sigma.detach())


def _tilted(log_p: Tensor, sigma: Tensor, rate: Rate) -> Weighting:
    own = rate.rho * sigma
    exponent = own if rate.objective == "own" else torch.full_like(own, rate.rho)
    return Weighting(-capped_marginals(log_p, rate.size).log(), exponent)


def _unweighted(keys: Tensor, rate: Rate) -> Weighting:
    own = rate.rho * radius(keys)
    exponent = own if rate.objective == "own" else torch.full_like(own, rate.rho)
    return Weighting(torch.zeros_like(keys[..., 0]), exponent)
