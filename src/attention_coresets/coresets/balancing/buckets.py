"""Decides which tokens are halved together: plans a recursion's rounds, and deals a round's tokens into buckets."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.coresets.kernel.law import capped_marginals

RECURSIONS = ("one_walk", "halving", "buckets", "merge_reduce", "compress", "compress_pp")
BUCKETED = ("buckets", "merge_reduce", "compress", "compress_pp")
BUCKET = 512  # tokens of the recursion "buckets"
# g of Compress(g) and Compress++(g): at 3 kernel halving of 8192 tokens to 256 (sphere, d = 8, rho = 2) errs 1.05 times
# as much as in halving, for an eighth of its time; at 1 it is 1.17 times
OVERSAMPLING = 3
# nats: tokens whose probabilities differ by less are dealt as equal, so that rounding does not order them
_LEVEL = 1e-6


@dataclass(frozen=True)
class Round:
    """`buckets` walks side by side, which together leave `target` of `tokens` tokens a head."""

    tokens: int
    target: int
    buckets: int

    @property
    def width(self) -> int:
        """Returns the tokens of the largest bucket."""
        return -(-self.tokens // self.buckets)


def rounds(n: int, size: int, recursion: str, g: int = OVERSAMPLING) -> list[Round]:
    """Plans the rounds that take n tokens to `size`; all but one_walk pass through size * 2^j.

    one_walk: one round.
    halving: one bucket a round. O(n^2) kernel values.
    buckets: buckets of 512 tokens in every round, which never merge. O(n) walks' worth of 512.
    merge_reduce: buckets of 2 * size tokens, halved and merged two by two. O(n * size) kernel values.
    compress: Compress(g). Buckets of 4^(g+1) tokens double from round to round, as four halved ones merge. One is left
        in the end where size is at most about 2^g sqrt(n), and several for larger sizes. O(4^g n log n) kernel values.
    compress_pp: Compress++(g). The same, to 2^g * size tokens in one bucket, which are then halved to `size`. O(4^g (n
        + size^2) log n) kernel values. Where no round would have several buckets (2^g * size above about n / 2) the
        largest smaller g that gives one is taken. For size from n / 2 on there is none, and it is halving.

    Source: Shetty, Dwivedi and Mackey, arXiv 2111.07941.
    """
    if recursion == "one_walk":
        return [Round(n, size, 1)]
    if recursion == "compress_pp":
        # a large g would put all in one bucket at once, which is halving at its full price
        options = [_halvings(n, size, recursion, k) for k in range(g, -1, -1)]
        return next((made for made in options if made[0].buckets > 1), options[-1])
    return _halvings(n, size, recursion, g)


def _halvings(n: int, size: int, recursion: str, g: int) -> list[Round]:
    targets = [size]
    # from `size` up by doubling: every round but the first halves exactly
    while 2 * targets[0] < n:
        targets.insert(0, 2 * targets[0])
    middle, made = 2**g * size, []
    for left, target in zip([n, *targets], targets, strict=False):
        width = {
            "halving": n,
            "buckets": BUCKET,
            "merge_reduce": 2 * size,
            "compress": 2 * 4**g * n / target,  # the paper's: bucket outputs times tokens left are 4^g n in every round
            "compress_pp": n if target < middle else 2 * max(4**g * n, middle**2) / target,
        }[recursion]
        made.append(Round(left, target, max(1, round(left / width))))
    return made


def deal(
    log_p: Float[Tensor, "H n"], step: Round, uniforms: Float[Tensor, "H 2 slots"]
) -> tuple[Int[Tensor, "H B S"], Bool[Tensor, "H B S"], Int[Tensor, "H B"]]:
    """Deals tokens into buckets that are alike; returns positions, which of them are real, and each bucket's target.

    The tokens in order of probability, ties at random, are cut into rows of one token a bucket, and each row is dealt
    at random. So no bucket gets more than its share of the probable tokens. Inside a bucket tokens keep their order.
    Positions that are not real fill up the smaller buckets. Buckets of one token more come first in line for a target
    of one more.
    """
    heads, n = log_p.shape
    buckets, width = step.buckets, step.width
    order = uniforms[:, 0, :n].argsort(dim=-1)
    # the stable sort keeps the random order among tokens of one level
    level = (log_p.gather(-1, order) / _LEVEL).round()
    order = order.gather(-1, level.sort(dim=-1, descending=True, stable=True).indices)
    order = torch.nn.functional.pad(order, (0, width * buckets - n), value=n).reshape(heads, width, buckets)
    places = uniforms[:, 1].reshape(heads, width, buckets).argsort(dim=-1)
    members = order.gather(-1, places).mT.sort(dim=-1).values  # [H, B, S], those that fill up last
    real = members < n
    counts = real.sum(-1)
    # larger buckets give the remainder: a smaller one has a token less
    rank = counts.sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1)
    targets = step.target // buckets + (rank < step.target % buckets).to(torch.int64)
    return torch.where(real, members, members[..., :1]), real, targets


def conditional_marginals(
    log_p: Float[Tensor, "G S"], real: Bool[Tensor, "G S"], targets: Int[Tensor, "G"]
) -> Float[Tensor, "G S"]:
    """Computes min(1, c p_i) over the real tokens of each bucket, with sums `targets` (two values at most)."""
    log_p = log_p.masked_fill(~real, -1e30)
    low = int(targets.min())
    marginals = capped_marginals(log_p, low)
    # targets differ by one at most: two calls serve all buckets
    if int(targets.max()) > low:
        marginals = torch.where((targets > low).unsqueeze(-1), capped_marginals(log_p, low + 1), marginals)
    return marginals.masked_fill(~real, 0.0)
