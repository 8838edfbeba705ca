"""Lists the certificates by name: ceilings on the error for every query of the ball, in any dimension."""

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.adversary.kernel import kernel_certificate
from attention_coresets.adversary.taylor import taylor_certificate
from attention_coresets.attention import Cache, Coreset
from attention_coresets.theory import check_rho


@torch.no_grad()
def values_certificate(cache: Cache, coreset: Coreset, rho: float) -> Float[Tensor, "*heads"]:
    """Bounds the error by twice the values' largest distance from their mean, float64.

    Both outputs are averages of values, so this holds for any rho and any weights >= 0.

    Cost: O(n dv).
    """
    check_rho(rho)
    cache.check_indices(coreset.indices)
    values = cache.values.to(torch.float64)
    return 2 * (values - values.mean(dim=-2, keepdim=True)).norm(dim=-1).amax(-1)


CERTIFICATES: dict[str, Callable[[Cache, Coreset, float], Tensor]] = {
    "kernel": kernel_certificate,
    "taylor": taylor_certificate,
    "values": values_certificate,
}


def rounded_up(ceiling: float) -> str:
    """Returns a ceiling to four significant digits, the last one rounded up: one that is rounded down is none."""
    return _four_digits(ceiling, ROUND_CEILING)


def rounded_down(floor: float) -> str:
    """Returns a proven lower bound to four significant digits, the last one rounded down."""
    return _four_digits(floor, ROUND_FLOOR)


def _four_digits(bound: float, rounding: str) -> str:
    if not math.isfinite(bound):
        return f"{bound:g}"
    return f"{float(Context(prec=4, rounding=rounding).create_decimal_from_float(bound)):.4g}"
