"""Whether two coresets that should be one are, as far as the class of their construction says."""

import torch

from attention_coresets import Cache, Coreset, attend, worst_query
from attention_coresets.coresets.agreement import DIGITS, SOLVED, WITHIN, Agreement


def assert_agree(agreement: Agreement, one: Coreset, other: Coreset, cache: Cache, rho: float) -> None:
    """Tokens and log-weights of a batch of heads alike, or the worst-case errors where the class promises no more.

    The caches of the tests hold equal tokens, but no two that are equally good by chance: TIES too means equal tokens.
    """
    assert one.indices.shape == other.indices.shape
    if agreement is Agreement.ERROR:
        a, b = (worst_query(cache, coreset, rho).error for coreset in (one, other))
        torch.testing.assert_close(a, b, rtol=WITHIN, atol=1e-9)
        return
    assert torch.equal(one.indices, other.indices)
    assert (one.log_weights is None) == (other.log_weights is None)
    if one.log_weights is None or other.log_weights is None:
        return
    if agreement is Agreement.TOKENS:
        torch.testing.assert_close(one.log_weights, other.log_weights, rtol=DIGITS, atol=DIGITS)
    else:
        queries = torch.randn(
            *cache.heads, 200, cache.d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        queries *= rho / queries.norm(dim=-1, keepdim=True)
        a, b = (attend(queries, *cache.take(c.indices), c.log_weights) for c in (one, other))
        torch.testing.assert_close(a, b, rtol=0, atol=SOLVED * float(cache.values.norm(dim=-1).max()))
