"""BalanceKV: halves blocks of tokens by the self-balancing walk on exp<k_i, k_j> <v_i, v_j>, in two variants."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.attention import Cache, Coreset
from attention_coresets.checks import one_of, positive
from attention_coresets.coresets.base import Construction, Request
from attention_coresets.coresets.kernel.law import SCALES, law
from attention_coresets.coresets.randomness import draw
from attention_coresets.devices import at_once
from attention_coresets.registry import check_name

VARIANTS = ("published", "shipped")
_LEVEL = 1e-6  # of log2: a norm this close below a power of two is one, for rounding must not part unit values
_DELTA = 0.01  # failure probability of the theoretical c
_LIFT = 1e-8 + 0.025  # what the shipped code adds to <v_i, v_j>, for the softmax denominator
_MAX_GRAM = 2**27  # numbers in the Gram matrices of the blocks walked together on the CPU
_MAX_EXPONENT = 300.0


@dataclass(frozen=True)
class BalanceKV(Construction):
    """Halves blocks of tokens by biased coins, so that both halves attend alike, until `size` tokens are left.

    Each block is walked in order. Token j gets the sign s_j = +1 with probability 1/2 - g sum_{i<j} K_ij s_i, clipped
    to [0, 1], where K_ij = exp(a^2 <k_i - mu, k_j - mu>) <v_i, v_j>, mu is the mean key and g > 0 says how strong the
    bias is. (The paper gives up where a probability needs clipping.)

    Stages leave `size` 2^t tokens, then `size` 2^(t-1), down to `size`. A stage that is to leave `target` of its tokens
    draws 2 (tokens - target) of them at random, halves these and keeps the rest.

    "published" is the algorithm of the paper:
    - A block has 2 `size` tokens. Tokens whose value norms lie between the same powers of 2 stand side by side.
    - g = 1 / (2 c R^2), with R^2 the largest K_ii that the norms in the block allow.
    - The tokens of sign +1 are kept, unweighted. A sign that half of the block has is given to no more tokens. (The
      paper keeps the smaller side, of any size up to half.)
    - Survivors of neighbouring blocks form the next blocks: merge and reduce.
    - The paper's second subset, for the softmax denominator, has no place in a coreset. One subset serves both, as in
      the paper's experiments.

    "shipped" is what the repository does:
    - A block has 128 tokens, its keys are centred at their mean, and g = `gamma`. The first sign is +1. 0.025 is added
      to every <v_i, v_j>, in which v_i is multiplied by its weight.
    - The cut is the place, counted over all blocks, where the later of the two signs has reached half of the tokens. Up
      to it the tokens of that sign are dropped, and those of the other sign are kept with twice their weight. Tokens
      after it are kept as they are, and stand last in the next stage.
    - The weights become log-weights. The repository's fixed sinks, recent window and needle rule are left out.

    variant: "published" or "shipped".
    scale: a^2. Both sources have 1 / sqrt(d), "inv_sqrt_d"; others as in `kernel/law.py`, of the unweighted model.
    block: tokens a block, even. None: as above.
    c: of "published". None: 30 log(block / 0.01), the paper's.
    gamma: of "shipped".

    Cost: O(n block (d + dv)) a head, and O(n) choices.

    Source: Kochetkova et al., arXiv 2502.07861, and github.com/ksheth96/BalanceKV.
    """

    variant: str = "published"
    scale: str = "inv_sqrt_d"
    block: int | None = None
    c: float | None = None
    gamma: float = 4.0

    def __post_init__(self) -> None:
        one_of("variant", self.variant, VARIANTS)
        check_name(self.scale, SCALES, "scale")
        positive(gamma=self.gamma, **{k: v for k, v in (("c", self.c), ("block", self.block)) if v is not None})
        if self.block is not None and self.block % 2:
            raise ValueError(f"block must be even, so that it can be halved, got {self.block}")

    @property
    def model(self) -> str:
        """Returns the coreset model of the result."""
        return "unweighted" if self.variant == "published" else "free"

    @property
    def model_units(self) -> bool:
        """Tells whether keys are wanted as the model computes them, for which alone 1 / sqrt(d) is meant."""
        return self.scale == "inv_sqrt_d"

    def choose(self, request: Request) -> Coreset:
        cache, size = request.cache, request.size
        keys, values = (t.reshape(-1, *t.shape[-2:]) for t in (cache.keys, cache.values))
        measure = law(keys, request.rho, "unweighted", self.scale)
        x = (keys - measure.center.unsqueeze(-2)) * measure.scale.sqrt()[:, None, None]
        targets = [size << s for s in reversed(range(math.ceil(math.log2(cache.n / size))))]
        uniforms = draw(request.generator, len(keys), len(targets), 2, cache.n).to(x.device)
        indices = torch.arange(cache.n, device=x.device).repeat(len(x), 1)
        weights = torch.ones_like(x[..., 0])
        for stage, target in enumerate(targets):
            u = uniforms[:, stage, :, : indices.shape[-1]]
            indices, weights = self._stage(x, values, indices, weights, target, u, self.block or 2 * size)
        indices, order = indices.sort(dim=-1)
        log_weights = weights.gather(-1, order).log().reshape(*cache.heads, size)
        return Coreset(indices.reshape(*cache.heads, size), log_weights if self.variant == "shipped" else None)

    def _stage(
        self, x: Tensor, values: Tensor, indices: Tensor, weights: Tensor, target: int, u: Tensor, block: int
    ) -> tuple[Tensor, Tensor]:
        """Returns indices and weights ``[H, target]`` of the tokens left, survivors of the halving first."""
        left = indices.shape[-1]
        count = 2 * (left - target)
        lottery = u[:, 1].argsort(dim=-1)
        halved, rest = lottery[:, :count].sort(dim=-1).values, lottery[:, count:].sort(dim=-1).values
        chosen, w = indices.gather(-1, halved), weights.gather(-1, halved)
        if self.variant == "published":
            norms = values.norm(dim=-1).gather(-1, chosen).clamp_min(1e-300)
            bucket = (norms.log2() + _LEVEL).floor().argsort(dim=-1, stable=True)
            chosen, w = chosen.gather(-1, bucket), w.gather(-1, bucket)
        walk = self._published if self.variant == "published" else self._shipped
        keys, kept_values = Cache(x, values).take(chosen)
        size = block if self.variant == "published" else self.block or 128
        up = _by_blocks(walk, keys, kept_values * w.unsqueeze(-1), u[:, 0, :count], size)
        factor = up.to(torch.int64) if self.variant == "published" else _until_half(up)
        kept = factor.argsort(dim=-1, descending=True, stable=True)[:, : count // 2]  # dropped tokens have factor 0
        chosen = torch.cat([chosen.gather(-1, kept), indices.gather(-1, rest)], dim=-1)
        return chosen, torch.cat([(w * factor).gather(-1, kept), weights.gather(-1, rest)], dim=-1)

    def _published(self, x: Float[Tensor, "R b d"], v: Float[Tensor, "R b dv"], u: Tensor) -> Tensor:
        longest = x.square().sum(-1).amax(-1)[:, None, None]
        values = v / v.norm(dim=-1).amax(-1).clamp_min(1e-300)[:, None, None]
        gram = (x @ x.mT - longest).exp() * (values @ values.mT)  # over R^2
        c = 30 * math.log(x.shape[-2] / _DELTA) if self.c is None else self.c
        return _walk(gram, u, 1 / (2 * c), balanced=True)

    def _shipped(self, x: Float[Tensor, "R b d"], v: Float[Tensor, "R b dv"], u: Tensor) -> Tensor:
        x = x - x.mean(dim=-2, keepdim=True)
        gram = (x @ x.mT).clamp_max(_MAX_EXPONENT).exp() * (v @ v.mT + _LIFT)
        return _walk(gram, u.index_fill(-1, torch.zeros(1, dtype=torch.int64, device=u.device), -1.0), self.gamma)


def _by_blocks(walk, x: Tensor, v: Tensor, u: Tensor, size: int) -> Bool[Tensor, "H count"]:
    """Walks each block of `size` tokens and a shorter last one; all full blocks of all heads go in one loop."""
    full = x.shape[1] // size * size
    parts = []
    for piece, length in ((slice(0, full), size), (slice(full, None), x.shape[1] - full)):
        if x[:, piece].shape[1]:
            chunk = at_once(length**2, x.device, _MAX_GRAM)
            rows = [t[:, piece].reshape(-1, length, *t.shape[2:]).split(chunk) for t in (x, v, u)]
            parts.append(torch.cat([walk(*row) for row in zip(*rows, strict=True)]).reshape(len(x), -1))
    return torch.cat(parts, dim=-1)


def _walk(gram: Tensor, u: Tensor, strength: float, balanced: bool = False) -> Bool[Tensor, "R b"]:
    """Returns which tokens go up. With `balanced`, neither side takes more than half."""
    length = u.shape[-1]
    up = torch.zeros_like(u, dtype=torch.bool)
    inner, ups = torch.zeros_like(u), torch.zeros_like(u[:, 0])
    for j in range(length):
        goes = u[:, j] < 0.5 - strength * inner[:, j]
        if balanced:
            goes = (goes & (2 * ups < length)) | (2 * (j - ups) >= length)
        up[:, j] = goes
        ups += goes
        inner += gram[:, j] * (2 * goes.to(gram) - 1).unsqueeze(-1)
    return up


def _until_half(up: Bool[Tensor, "H count"]) -> Tensor:
    """Returns each token's factor, with exactly half of the tokens dropped.

    0: dropped. 2: kept in exchange for a dropped one. 1: after the cut.
    """
    half = up.shape[-1] // 2
    completed = [(side.cumsum(dim=-1) == half).to(torch.int8).argmax(dim=-1) for side in (up, ~up)]  # 0: never
    cut = torch.maximum(*completed).unsqueeze(-1)
    before = torch.arange(up.shape[-1], device=up.device) <= cut
    dropped = before & (up == up.gather(-1, cut))
    return torch.where(dropped, 0, torch.where(before, 2, 1))
