"""From a balancing rule to a coreset of exactly the size asked: one fractional walk, or staged halving."""

from collections.abc import Callable

import torch
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.law import Law, balancing_gram, capped_marginals, law
from attention_coresets.coresets.uniforms import Generators, draw
from attention_coresets.theory import check_rho

RECURSIONS = ("one_walk", "halving")
# signs = rule(gram [1, n, n] or None, x [1, n], uniforms [1, 2, n]): which of the n tokens are kept
BalancingRule = Callable[..., Tensor]
# features(keys, values, log_weights, law, uniforms [H, 2, n]): [H, n, rank], what a rule gets in place of `gram`
Features = Callable[[Tensor, Tensor, Tensor, Law, Tensor], Tensor]
_MAX_GRAM = 2**27  # numbers in the Gram matrices of the heads walked together


def balanced_coreset(
    cache: Cache,
    size: int,
    rho: float,
    generator: Generators,
    *,
    model: str,
    scale: str,
    recursion: str,
    rule: BalancingRule,
    needs_gram: bool = True,
    features: Features | None = None,
) -> Coreset:
    """`size` tokens of every head, chosen by `rule`, with log-weights -log pi in the tilted model and none otherwise.

    Each stage takes the tokens left, gives them conditional marginals min(1, c p_i / pi_i) that sum to its target, and
    rounds x = 2 marginals - 1; pi_i is the product of a token's marginals. one_walk has one stage; halving has targets
    size * 2^j below n, so that after the first stage every marginal of an uncapped token is 1/2. `features`, where
    given, takes the place of the balancing Gram matrix, which is then never formed.
    """
    check_rho(rho)
    check_size(size)
    if size >= cache.n:
        return everything(cache)
    keys, values = (t.reshape(-1, *t.shape[-2:]).to(torch.float64) for t in (cache.keys, cache.values))
    targets = _targets(cache.n, size, recursion)
    uniforms = draw(generator, len(keys), len(targets), 2, cache.n).to(keys.device)
    chunk = max(1, _MAX_GRAM // cache.n**2)
    parts = [
        _stages(k, v, law(k, rho, model, scale), targets, u, rule, needs_gram, features)
        for k, v, u in zip(keys.split(chunk), values.split(chunk), uniforms.split(chunk), strict=True)
    ]
    indices, log_pi = (torch.cat(part).reshape(*cache.heads, size) for part in zip(*parts, strict=True))
    return Coreset(indices, -log_pi.to(cache.keys.dtype) if model == "tilted" else None)


def _stages(
    keys: Tensor,
    values: Tensor,
    measure: Law,
    targets: list[int],
    uniforms: Tensor,
    rule: BalancingRule,
    needs_gram: bool,
    features: Features | None,
) -> tuple[Tensor, Tensor]:
    """Indices and log inclusion probabilities ``[H, size]`` after the last stage."""
    heads, n = keys.shape[:2]
    indices = torch.arange(n, device=keys.device).repeat(heads, 1)
    log_pi = torch.zeros_like(keys[..., 0])
    for stage, target in enumerate(targets):
        left = indices.shape[-1]
        marginals = capped_marginals(measure.log_p.gather(-1, indices) - log_pi, target)
        log_pi = log_pi + marginals.clamp_min(1e-300).log()
        taken, u = (*_take(keys, values, indices), -log_pi, measure), uniforms[:, stage, :, :left]
        gram = features(*taken, u) if features else balancing_gram(*taken) if needs_gram else None
        kept = rule(gram, 2 * marginals - 1, u)
        if not bool((kept.sum(-1) == target).all()):
            raise RuntimeError(f"a balancing rule kept {kept.sum(-1).tolist()} tokens where {target} were asked")
        chosen = kept.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[:, :target]
        indices, log_pi = indices.gather(-1, chosen), log_pi.gather(-1, chosen)
    return indices, log_pi


def _targets(n: int, size: int, recursion: str) -> list[int]:
    if recursion == "one_walk":
        return [size]
    targets = [size]
    while 2 * targets[0] < n:
        targets.insert(0, 2 * targets[0])
    return targets


def _take(keys: Tensor, values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    return Cache(keys, values).take(indices)


def everything(cache: Cache) -> Coreset:
    """The coreset that keeps every token, unweighted."""
    return Coreset(torch.arange(cache.n, device=cache.keys.device).expand(*cache.heads, cache.n).contiguous())


def check_size(size: int) -> None:
    """ValueError unless at least one token is asked for."""
    if size < 1:
        raise ValueError(f"size must be at least 1 token, got {size}")
