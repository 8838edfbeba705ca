"""The pair walk: rules that choose one sign at a time, at exact size and from any fractional marginals.

Consecutive alive tokens i, j are paired. A pair moves along e_i - e_j until one of the two freezes, to whichever end
its rule picks. Survivors are paired again. From x = 0 every pair is settled at once: one of each consecutive pair is
kept, which is halving as the rules were published. Other marginals make it pivotal sampling (Deville and Tille 1998)
with a rule for a coin.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.compiled import compiled_module, runs_compiled, triton_kernels
from attention_coresets.coresets.kernel.law import kernel_panel

# None without numba: the torch loop below does the same
pairs_compiled = compiled_module("attention_coresets.coresets.walks.pairs_compiled")
_KERNELS = "attention_coresets.coresets.walks.pairs_triton"

Features = tuple[Tensor, Tensor, Tensor]  # what kernel_panel makes a Gram matrix of
_FREEZE = 1e-10
_EVEN = 1e-12  # marginals of 1/2 but for rounding
_PANELS = 1024  # tokens from which the compiled walk forms its Gram matrix a panel at a time


class Rule:
    """How a pair picks its end; one object a walk, so that it may keep a running state. This one is a fair coin.

    Let f be the feature of i less that of j, h half the length of the pair's segment (1 from x = 0), and alpha = <h f,
    discrepancy so far>. With "fair" the probability that keeps the mean, i goes up with probability

        fair - (base + slope alpha), clipped to [0, 1].
    """

    needs_gram = True
    # the rule's name and parameter in pairs_compiled.py and pairs_triton.py, where it is there
    compiled: tuple[str, float] | None = None
    sharp = False  # True: what is added to "fair" counts as none up to 1 in size

    def start(self, norm2: Float[Tensor, "H P"], fair: Float[Tensor, "H P"]) -> tuple[Tensor, Tensor]:
        """Returns base and slope ``[H, P]`` of a round of P pairs a head, given norm2 = |h f|^2 and "fair" of each."""
        return torch.zeros_like(fair), torch.zeros_like(norm2)


def pair_signs(
    gram: Float[Tensor, "H all all"] | Features | None,
    x: Float[Tensor, "H n"],
    uniforms: Float[Tensor, "H n"],
    rule: Rule,
    tokens: Int[Tensor, "H n"] | None = None,
) -> Bool[Tensor, "H n"]:
    """Rounds fractional x to +-1 pair by pair, and keeps sum x (an integer of the parity of n); True where x became +1.

    A Gram matrix in float32 is read as it is, half the memory; the sums over it are in the dtype of x. With `tokens`
    its rows and columns of these are walked, in their order; None: all of them.

    Cost: O(n^2) a round, about log2(n) rounds (one where x = 0), n choices in all, one uniform a choice. On the CPU
    with numba and on a GPU with Triton the pairs are compiled, and from x = 0 half of the Gram matrix is read, once. On
    the CPU, given features in its place, it is formed a panel at a time and never whole: O(n) memory, from x = 0 or
    1024 tokens on. So are the rows and columns of `tokens` from x = 0; elsewhere they are copied.
    """
    # a rule that reads no Gram matrix moves all pairs of a round at once: torch's operations are enough
    if rule.compiled and rule.needs_gram and (kernels := triton_kernels(_KERNELS, x)):
        return kernels.walk_pairs(_dense(_rows_of(gram, tokens)), x, uniforms, *rule.compiled, _FREEZE)
    if rule.compiled and runs_compiled(pairs_compiled, x):
        if _halves(gram, x, tokens, rule.compiled[0]):
            return pairs_compiled.halve(gram, tokens, x, uniforms, *rule.compiled)
        gram = _rows_of(gram, tokens)
        if isinstance(gram, tuple) and x.shape[-1] >= _PANELS:
            return pairs_compiled.walk_panels(gram, x, uniforms, *rule.compiled, _FREEZE)
        return pairs_compiled.walk_pairs(_dense(gram), x, uniforms, *rule.compiled, _FREEZE)
    gram = _dense(_rows_of(gram, tokens))
    x = x.clone()
    # the discrepancy counts what has moved since the start, not x itself
    moved = torch.zeros_like(x)  # x so far minus where it started
    used = torch.zeros_like(x[:, :1], dtype=torch.int64)  # uniforms a head has spent
    while True:
        alive = x.abs() < 1 - _FREEZE
        count = int(alive.sum(-1).max())
        if count < 2:
            return torch.where(alive, x.sign(), x) > 0
        i, j, real = _pair_up(alive, count)
        # heads use up different numbers of uniforms; a head must draw the same ones whatever its batch
        spend = (used + torch.arange(i.shape[-1], device=x.device)).clamp_max(x.shape[-1] - 1)
        steps = _round(gram, x, moved, (i, j, real), uniforms.gather(-1, spend), rule)
        used += real.sum(-1, keepdim=True)
        for index, sign in ((i, 1.0), (j, -1.0)):
            change = sign * torch.where(real, steps, torch.zeros_like(steps))
            x.scatter_add_(-1, index, change)
            moved.scatter_add_(-1, index, change)


def _halves(gram: Tensor | Features | None, x: Tensor, tokens: Tensor | None, kind: str) -> bool:
    """Tells whether all pairs are settled at once, by parts of the Gram matrix, no pair asking for all before."""
    parts = isinstance(gram, tuple) != (tokens is not None)
    return parts and kind not in ("coin", "self_balancing") and x.shape[-1] % 2 == 0 and float(x.abs().amax()) < _EVEN


def _rows_of(gram: Tensor | Features | None, tokens: Tensor | None) -> Tensor | Features | None:
    if gram is None or tokens is None:
        return gram
    if isinstance(gram, tuple):
        raise ValueError("tokens are of a Gram matrix; of features, give those of the tokens alone")
    return gram[torch.arange(len(gram), device=gram.device)[:, None, None], tokens[:, :, None], tokens[:, None]]


def _dense(gram: Tensor | Features | None) -> Tensor | None:
    return kernel_panel(gram, gram) if isinstance(gram, tuple) else gram


def _pair_up(alive: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs consecutive alive tokens: indices i, j ``[H, P]``, and which of these pairs are real in each head."""
    order = alive.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices
    pairs = count // 2
    real = 2 * torch.arange(pairs, device=alive.device) + 1 < alive.sum(-1, keepdim=True)
    return order[:, 0 : 2 * pairs : 2], order[:, 1 : 2 * pairs : 2], real


def _round(gram: Tensor | None, x: Tensor, moved: Tensor, pairs, uniforms: Tensor, rule: Rule) -> Tensor:
    """Returns the step of each pair: x_i moves by it and x_j by its negative."""
    i, j, real = pairs
    xi, xj = x.gather(-1, i), x.gather(-1, j)
    up, down = torch.minimum(1 - xi, 1 + xj), torch.minimum(1 + xi, 1 - xj)
    fair = down / (up + down)
    # such a rule looks at no pair before it: all of them move at once
    if gram is None or not rule.needs_gram:
        return torch.where(uniforms < fair, up, -down)
    # a pair that is not real has length 0, so that a rule's running state passes over it
    up, down = up * real, down * real
    half = (up + down) / 2
    cross = _differences(gram, i, j)  # [H, P, P]
    past = (gram @ moved.to(gram.dtype).unsqueeze(-1)).squeeze(-1)  # [H, n], <feature, discrepancy before this round>
    inner = (past.gather(-1, i) - past.gather(-1, j)).to(x.dtype)  # <f, discrepancy so far>
    base, slope = rule.start(half.square() * cross.diagonal(dim1=-2, dim2=-1), fair)
    each = (y.split(1, dim=-1) for y in (base, slope * half, inner, fair - uniforms, up, -down))
    steps = []
    for first, factor, product, least, forth, back, row in zip(*each, cross.unbind(1), strict=True):
        pull = torch.addcmul(first, factor, product)
        pull = torch.nn.functional.hardshrink(pull, 1.0) if rule.sharp else pull
        steps.append(torch.where(pull < least, forth, back))  # the uniform is below fair - pull
        # the pairs of this round that come after this one see it, hence a loop
        inner.addcmul_(row, steps[-1])
    return torch.cat(steps, dim=-1)


def _differences(gram: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Computes <f_s, f_t> for f_t = feature of i_t minus feature of j_t, ``[H, P, P]``."""
    rows = torch.stack([g[a] - g[b] for g, a, b in zip(gram, i, j, strict=True)])  # [H, P, n]
    return torch.stack([r[:, a] - r[:, b] for r, a, b in zip(rows, i, j, strict=True)])
