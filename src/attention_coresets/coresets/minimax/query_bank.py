"""A bank of queries, and what a coreset's error at them is made of.

For a query q let T_i(q) be token i's softmax weight over the whole cache, and f_i(q) = T_i(q) (v_i - Attn(q)). A
coreset's output is an average of values, and Attn(q) can be taken from each of them. So the error of tokens S with
weights w is, exactly,

    err(q) = |sum_S w_i f_i(q)| / sum_S w_i T_i(q),

and one table of the f_i serves every subset and all weights. In a WeightedCache T includes the cache's log-weights, and
w_i is in units of token i's own weight.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, attend, base_weights


class Bank(NamedTuple):
    """Queries ``[*heads, b, d]`` and what attention over the whole cache gives at each, ``[*heads, b, dv]``."""

    queries: Float[Tensor, "*heads b d"]
    outputs: Float[Tensor, "*heads b dv"]


def bank_of(cache: Cache, queries: Float[Tensor, "*heads b d"]) -> Bank:
    """Makes the bank of these queries.

    Cost: b n (d + dv) multiply-adds and b n numbers a head.
    """
    return Bank(queries, attend(queries, cache.keys, cache.values, base_weights(cache)))


def random_queries(generators: Sequence[torch.Generator], count: int, d: int, rho: float) -> Float[Tensor, "H count d"]:
    """Draws directions uniformly on the sphere of radius rho, float64 on the CPU, with one generator a head."""
    x = torch.stack([torch.randn(count, d, generator=g, dtype=torch.float64) for g in generators])
    return rho * x / x.norm(dim=-1, keepdim=True).clamp_min(1e-300)


def bank_errors(
    cache: Cache, bank: Bank, tokens: Int[Tensor, "*heads m"], log_weights: Float[Tensor, "*heads m"]
) -> Float[Tensor, "*heads b"]:
    """Measures |Attn(q) - Attn_coreset(q)| at each query of the bank.

    Cost: b m (d + dv) multiply-adds a head.
    """
    return (attend(bank.queries, *cache.take(tokens), log_weights) - bank.outputs).norm(dim=-1)


def second_moment(
    keys: Float[Tensor, "*heads n d"],
    values: Float[Tensor, "*heads n dv"],
    queries: Float[Tensor, "*heads b d"],
    y: Float[Tensor, "*heads b"],
    base: Float[Tensor, "*heads n"] | None = None,
) -> tuple[Float[Tensor, "*heads n n"], Float[Tensor, "*heads n"]]:
    """Computes the quadratic form G of the squared error and the total weights c, over queries of weights y >= 0.

    With A_b = Attn(q_b), and T and f as in the module docstring,

        G_ij = sum_b y_b <f_i, f_j> = sum_b y_b T_i T_j <v_i - A_b, v_j - A_b>   and   c_i = sum_b y_b T_i.

    T is in units of 1/n, its mean. For weights w that sum T to 1 at every query, w^T G w is the y-weighted sum of the
    squared errors: their mean where y sums to 1.

    Cost: b n (d + 2 dv) + 2 b n^2 + n^2 dv multiply-adds and 4 b n + 3 n^2 numbers a head. No b x n x dv table is made.
    """
    logits = queries @ keys.mT
    T = (logits if base is None else logits.add_(base.unsqueeze(-2))).softmax(-1)  # [*heads, b, n]
    outputs = T @ values  # [*heads, b, dv]
    T = T.mul_(keys.shape[-2])
    return weighted_moment(T, values, outputs, y), (y.unsqueeze(-2) @ T).squeeze(-2)


def weighted_moment(
    T: Float[Tensor, "*heads b n"],
    values: Float[Tensor, "*heads n dv"],
    outputs: Float[Tensor, "*heads b dv"],
    y: Float[Tensor, "*heads b"],
) -> Float[Tensor, "*heads n n"]:
    """Computes sum_b y_b T_bi T_bj <v_i - a_b, v_j - a_b>, with a_b the rows of `outputs`.

    It is <v_i, v_j> sum_b y_b T_i T_j - cross - cross^T: two matrix products over b.
    """
    left = T * y.unsqueeze(-1)
    moment = (values @ values.mT).mul_(left.mT @ T)
    offset = (outputs @ values.mT).sub_(0.5 * outputs.square().sum(-1, keepdim=True))  # <a, v_j> - |a|^2 / 2
    cross = left.mT @ offset.mul_(T)
    return moment.sub_(cross).sub_(cross.mT)
