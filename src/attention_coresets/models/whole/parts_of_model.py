"""Finds what a transformers decoder does with a head's output: its projection into the residual stream."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attention_coresets.models.serving.attention import Decoder

PROJECTIONS = ("o_proj", "dense", "out_proj", "c_proj")  # what families call it


def attention_modules(decoder: Decoder) -> dict[int, tuple[nn.Module, nn.Module]]:
    """Returns by layer the attention module, and the block around it whose input is the residual stream."""
    named = dict(decoder.named_modules())
    found = {}
    for name, module in named.items():
        if hasattr(module, "layer_idx") and any(hasattr(module, each) for each in PROJECTIONS):
            found.setdefault(int(module.layer_idx), (module, named[name.rpartition(".")[0]]))
    return found


def projection(attention: nn.Module, heads: int) -> Float[Tensor, "heads dv hidden"]:
    """Returns by query head the matrix that takes its output, a row vector, into the residual stream.

    A norm that a model puts behind it is for `residual_norms`; gates are left out. A factor of what attention adds to
    the stream (Granite's residual_multiplier) is in the matrix.

    Raises ValueError for a module without such a matrix, whose matrix has other axes or holds codes of a quantization,
    or that has a norm before it (BitNet).
    """
    layer = next((getattr(attention, name) for name in PROJECTIONS if hasattr(attention, name)), None)
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.shape[1] % heads:
        raise ValueError(
            f"{type(attention).__name__} has no output projection of its {heads} heads "
            f"({', '.join(PROJECTIONS)}); errors cannot be told in units of the residual stream"
        )
    quantized = not weight.is_floating_point() or weight.element_size() < 2
    if quantized or hasattr(attention, "attn_sub_norm"):
        raise ValueError(
            f"{type(attention).__name__} has {'a quantized' if quantized else 'a norm before its'} output projection; "
            "errors cannot be told in units of the residual stream"
        )
    scale = getattr(getattr(attention, "config", None), "residual_multiplier", 1.0)
    return scale * weight.detach().T.reshape(heads, -1, weight.shape[0])


def output_of(out: Any) -> Tensor:
    """Returns the tensor that a module returns alone or first."""
    return out if isinstance(out, Tensor) else out[0]


@contextmanager
def residual_norms(decoder: Decoder) -> Iterator[dict[int, list[Float[Tensor, "t"]]]]:
    """Collects by layer, at the tokens of each forward (a batch of one sample), the norm of the residual stream.

    Where a model puts a norm behind the attention (Gemma 2 and 3, OLMo 2), what attention adds to the stream is its
    output times a gain that differs from token to token, large where the output is small. The stream's norm is then
    taken over that gain, so that an error of the output over it is again one of the stream.
    """
    norms: dict[int, list[Tensor]] = {}
    outputs: dict[int, Tensor] = {}

    def enter(layer: int):
        def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            norms.setdefault(layer, []).append(hidden[0].detach().float().norm(dim=-1))

        return hook

    def leave(layer: int):
        def hook(_: nn.Module, args: tuple, out: Any) -> None:
            outputs[layer] = output_of(out)

        return hook

    def behind(layer: int):
        def hook(_: nn.Module, args: tuple, out: Any) -> None:
            if args and args[0] is outputs.get(layer):
                before, after = (x[0].detach().float().norm(dim=-1).clamp_min(1e-30) for x in (args[0], out))
                norms[layer][-1] = norms[layer][-1] * (before / after)

        return hook

    with ExitStack() as stack:
        for layer, (attention, block) in attention_modules(decoder).items():
            stack.callback(block.register_forward_pre_hook(enter(layer), with_kwargs=True).remove)
            stack.callback(attention.register_forward_hook(leave(layer)).remove)
            for child in block.children():
                if child is not attention:
                    stack.callback(child.register_forward_hook(behind(layer)).remove)
        yield norms


def factor(output: Float[Tensor, "heads dv hidden"]) -> Float[Tensor, "heads dv dv"]:
    """Returns C with |v W| = |v C| for every v, so that norms in the residual stream take dv numbers and not hidden."""
    moment = (output.double() @ output.double().mT).contiguous()
    level = moment.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    return torch.linalg.cholesky(moment + 1e-10 * level * torch.eye(moment.shape[-1], dtype=moment.dtype).to(moment))
