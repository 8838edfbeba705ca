"""Lists the certificates by name: ceilings on the error for every query of the ball, in any dimension."""

from collections.abc import Callable

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
