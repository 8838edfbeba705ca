"""BalanceKV: halving by the self-balancing walk on exp<k_i,k_j> <v_i,v_j>, as published and as shipped."""

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
from attention_coresets.registry import check_name

VARIANTS = ("published", "shipped")
_LEVEL = 1e-6  # of log2: a norm this close below a power of two is one, for rounding must not part unit values
_DELTA = 0.01  # failure probability of the theoretical c
_LIFT = 1e-8 + 0.025  # what the shipped code adds to <v_i, v_j>, for the softmax denominator
_MAX_GRAM = 2**27  # numbers in the Gram matrices of the blocks walked together
_MAX_EXPONENT = 300.0


@dataclass(frozen=True)
class BalanceKV(Construction):
    """Kochetkova et al., arXiv 2502.07861, github.com/ksheth96/BalanceKV: halve blocks of tokens until `size` are left.

    Within a block token j goes up with probability 1/2 - g sum_{i<j} K_ij s_i, clipped (the paper stops there), with
    K_ij = exp(a^2 <k_i - mu, k_j - mu>) <v_i, v_j>. Sizes that are no n / 2^T: the first stage halves 2 (n - target)
    random tokens and keeps the others.

    published: blocks of 2 size tokens, tokens of like value norm (powers of 2) side by side; g = 1 / (2 c R^2), R^2 the
    largest K_ii that norms in the block allow, c = 30 log(block / 0.01); a side that holds half the block takes no
    more (the paper keeps the smaller side, of any size up to half), those up are kept, unweighted. The survivors of
    neighbouring blocks form the next ones: merge and reduce. The paper's second subset for the denominator has no
    place in a coreset: this one, the numerator's, serves both, as in the paper's experiments.

    shipped: blocks of 128, each centred at its mean, g = gamma, the first sign is +1, and 0.025 is added to
    <v_i, v_j>, v_i times its weight. Over all blocks, the sign that completes half of the tokens last is dropped as far
    as that place; tokens of the other sign there double their weight, those after it are kept as they are and stand
    last in the next stage. Log-weights are kept. The repository's fixed sinks, recent window and needle rule are left
    out.

    scale: a^2, "inv_sqrt_d" in both sources, else as GramSchmidtWalk's. Cost O(n block (d + dv)) and n choices.
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
        """The coreset model of the result."""
        return "unweighted" if self.variant == "published" else "free"

    @property
    def model_units(self) -> bool:
        """Whether 1/sqrt(d) asks for a real head's keys as the model computes them."""
        return self.scale == "inv_sqrt_d"

    def choose(self, request: Request) -> Coreset:
        cache, size = request.cache, request.size
        keys, values = (t.reshape(-1, *t.shape[-2:]).to(torch.float64) for t in (cache.keys, cache.values))
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
        log_weights = weights.gather(-1, order).log().to(cache.keys.dtype).reshape(*cache.heads, size)
        return Coreset(indices.reshape(*cache.heads, size), log_weights if self.variant == "shipped" else None)

    def _stage(
        self, x: Tensor, values: Tensor, indices: Tensor, weights: Tensor, target: int, u: Tensor, block: int
    ) -> tuple[Tensor, Tensor]:
        """Indices and weights ``[H, target]`` of those left, the halved tokens' survivors first."""
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
    """The walk on each block of `size` tokens, the last one shorter: all full blocks of all heads in one loop."""
    full = x.shape[1] // size * size
    parts = []
    for piece, length in ((slice(0, full), size), (slice(full, None), x.shape[1] - full)):
        if x[:, piece].shape[1]:
            rows = [
                t[:, piece].reshape(-1, length, *t.shape[2:]).split(max(1, _MAX_GRAM // length**2)) for t in (x, v, u)
            ]
            parts.append(torch.cat([walk(*row) for row in zip(*rows, strict=True)]).reshape(len(x), -1))
    return torch.cat(parts, dim=-1)


def _walk(gram: Tensor, u: Tensor, strength: float, balanced: bool = False) -> Bool[Tensor, "R b"]:
    """Which tokens go up; `balanced`: neither side takes more than half."""
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
    """0 for tokens dropped, 2 for those kept in exchange, 1 for those after the cut: half of the tokens are dropped."""
    half = up.shape[-1] // 2
    completed = [(side.cumsum(dim=-1) == half).to(torch.int8).argmax(dim=-1) for side in (up, ~up)]  # 0: never
    cut = torch.maximum(*completed).unsqueeze(-1)
    before = torch.arange(up.shape[-1], device=up.device) <= cut
    dropped = before & (up == up.gather(-1, cut))
    return torch.where(dropped, 0, torch.where(before, 2, 1))
