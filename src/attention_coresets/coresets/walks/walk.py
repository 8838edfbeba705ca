"""The Gram-Schmidt walk in Gram form, exact size, batched over heads.

Source: Bansal, Dadush, Garg and Lovett 2018; Harshaw, Savje, Spielman and Zhang (the ridge is their robustness term).
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.compiled import compiled_module, runs_compiled, triton_kernels
from attention_coresets.coresets.walks.spd_inverse import invert_regular_
from attention_coresets.coresets.walks.walk_loop import WalkLoop, alive_inverse
from attention_coresets.threads import on_threads

_fast = compiled_module("attention_coresets.coresets.walks.walk_blocked")
# None without numba: the torch loop does the same, at a third of the speed
blocked_walk = _fast.blocked_walk if _fast else None
_KERNELS = "attention_coresets.coresets.walks.walk_triton"
BLOCK = 96
FREEZE = 1e-10  # a coordinate this close to +-1 is frozen there


def random_places(uniforms: Float[Tensor, "H 2 n"]) -> Int[Tensor, "H n"]:
    """Returns each token's place among the pivots, a random order, from the second half of a walk's numbers."""
    return uniforms[:, 1].argsort(dim=-1).argsort(dim=-1)


def walk_signs(
    gram: Float[Tensor, "H n n"],
    x: Float[Tensor, "H n"],
    uniforms: Float[Tensor, "H n"],
    ridge: float = 1e-4,
    exact: bool = True,
    block: int = BLOCK,
    place: Int[Tensor, "H n"] | None = None,
    inverted: bool = False,
) -> Bool[Tensor, "H n"]:
    """Rounds fractional x in [-1, 1] to +-1 along directions of least discrepancy; True where x became +1.

    Each step moves x along a direction u. At the pivot p, u_p = 1. Over the other alive coordinates u minimises u^T (G
    + ridge * mean diagonal) u, with sum u = 0 if `exact`. The move goes to one or the other end of the segment inside
    [-1, 1]^n, with the probabilities that keep the mean. It uses one uniform.

    Cost: for one head on the CPU, n^3 flops for the inverse and n^3 / 3 for the downdates, in place. Without numba or
    on a GPU 2 n^3 and 2 n^3 / 3, with at most 4 n x n matrices at once. On a GPU with Triton, where the dtype is
    float64, a launch takes `block` steps of all heads.

    Parameters
    ----------
    gram : Float[Tensor, "H n n"]
        G, which is overwritten.
    x : Float[Tensor, "H n"]
        With `exact`, its sum is an integer of the parity of n, and never changes.
    uniforms : Float[Tensor, "H n"]
    ridge : float
        Not used with `inverted`.
    exact : bool
    block : int
        Downdates that wait for one matrix product.
    place : Int[Tensor, "H n"], optional
        The pivot is the alive token of lowest place. A random place makes the pivots random. None: the tokens' order.
    inverted : bool
        `gram` is what `inverses` made of G, of which walks from several x may take copies. No x may be at +-1 then.

    Returns
    -------
    Bool[Tensor, "H n"]
    """
    if inverted and not all_alive(x):
        raise ValueError("a walk on an inverse needs every |x| below 1; give it the Gram matrix")
    if place is None:
        place = torch.arange(x.shape[-1], device=x.device).expand(x.shape)
    how = (None if inverted else ridge, exact, block, FREEZE)
    if kernels := triton_kernels(_KERNELS, gram):
        return kernels.walk(gram, x, uniforms, place, *how)
    if not runs_compiled(blocked_walk, gram):
        return WalkLoop(gram, x, place, *how).run(uniforms)
    return each_head(blocked_walk, [(*head, *how) for head in zip(gram, x, uniforms, place, strict=True)])


def all_alive(x: Float[Tensor, "H n"]) -> bool:
    """Tells whether no coordinate is at +-1, so that a walk from x may take the inverse of the whole matrix."""
    return bool((x.abs() < 1 - FREEZE).all())


def inverses(gram: Float[Tensor, "H n n"], ridge: float = 1e-4) -> Float[Tensor, "H n n"]:
    """Inverts G + ridge * mean diagonal, which a walk does first: for walks from several x, each on a copy.

    Overwrites `gram`. Cost: n^3 flops a head on the CPU, 2 n^3 on a GPU.
    """
    if gram.device.type != "cpu":
        return alive_inverse(gram, torch.ones_like(gram[..., 0], dtype=torch.bool), ridge, partial=False)
    return each_head(_inverse, [(head, ridge) for head in gram])


def _inverse(gram: Tensor, ridge: float) -> Tensor:
    invert_regular_(gram, ridge)
    return gram.tril_().add_(gram.tril(-1).mT)


def each_head(walk: Callable[..., Tensor], heads: list[tuple]) -> Tensor:
    """Stacks `walk(*head)` of every head: as many at once as torch has threads, the last few one after another."""
    threads = torch.get_num_threads()
    together = len(heads) - len(heads) % threads if threads > 1 else 0
    kept = on_threads(walk, heads[:together]) if together else []
    return torch.stack(kept + [walk(*head) for head in heads[together:]])
