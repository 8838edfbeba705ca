"""Swaps tokens one by one against the errors at a bank of queries; weights stay fixed."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.compiled import compiled_module, runs_compiled
from attention_coresets.coresets.minimax.query_bank import Bank
from attention_coresets.coresets.minimax.swap_tables import SwapTables
from attention_coresets.devices import at_once, in_parts

# None without numba: SwapTables does the same in torch, slower
compiled = compiled_module("attention_coresets.coresets.minimax.swap_tables_compiled")


def minimax_swaps(
    cache: Cache,
    bank: Bank,
    kept: Bool[Tensor, "H n"],
    log_weights: Float[Tensor, "H n"],
    uniforms: Float[Tensor, "H n"],
    *,
    doublings: int = 2,
    gain: float = 1e-3,
) -> Bool[Tensor, "H n"]:
    """Lowers sum_b err_b^p, p = 2^(doublings + 1), by a pass of swaps: one token out, the best other one in.

    Tokens come in the random order of `uniforms`. Each that is kept when its turn comes is swapped for the token that
    leaves the least sum, if that is less by the share `gain`.

    With f and T as in query_bank.py, F = sum_S w_i f_i and Z = sum_S w_i T_i, the error after i gave way to j is

        |F - w_i f_i + w_j f_j| / (Z - w_i T_i + w_j T_j).

    Every token outside is tried on the 128 queries that the removal leaves worst, and the best 8 of them on the whole
    bank. On more queries or candidates the pass takes longer and does not end better (docs/minimax.md). Tables are
    float32 and sums float64, and no swap raises the sum.

    Cost: m (128 n dv + 11 b dv) multiply-adds a pass and head, and 30 passes over m (128 n + 8 b) numbers; 4 b n
    numbers of memory. Heads go one by one on the CPU, and in step on a GPU.

    Parameters
    ----------
    cache : Cache
    bank : Bank
    kept : Bool[Tensor, "H n"]
        The tokens to begin with.
    log_weights : Float[Tensor, "H n"]
        Of every token, with the cache's own in it.
    uniforms : Float[Tensor, "H n"]
    doublings : int
    gain : float

    Returns
    -------
    Bool[Tensor, "H n"]
        As many kept tokens as before.
    """

    def work(part: slice) -> Tensor:
        queries, outputs = (x[part] for x in bank)
        logits, order = queries @ cache.keys[part].mT, uniforms[part].argsort(dim=-1)
        make = compiled.OneHead if runs_compiled(compiled, logits) else SwapTables
        tables = make(logits, log_weights[part], cache.values[part], outputs, kept[part].clone(), doublings, order)
        return _pass(tables, gain)

    # on the CPU one by one: each then leaves out what its own turns do not need
    together = at_once(bank.queries.shape[-2] * cache.n, kept.device, on_cpu=1)
    return torch.cat(in_parts(work, len(kept), together))


def _pass(tables: SwapTables, gain: float) -> Tensor:
    # a token that comes in may have its turn yet: the device is asked only when all turns known of are over
    while turns := int((tables.due < tables.over).sum(-1).max()):
        for _ in range(turns):
            tables.turn(gain)
    return tables.kept
