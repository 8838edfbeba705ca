"""How much a model's last hidden states depend on what each layer's attention adds, position by position (KVgrad)."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from attention_coresets.models.serving.attention import Decoder, attending
from attention_coresets.models.serving.caches import branch
from attention_coresets.models.serving.prefill import Prefilled
from attention_coresets.models.whole.parts_of_model import attention_modules, output_of


def slopes(prefilled: Prefilled, ids: Int[Tensor, "1 t"]) -> dict[int, Float[Tensor, "t"]]:
    """Reads ids after the cache and returns, by layer, norms of the gradient by the attention's output at each of them.

    The gradient is that of sum_p |h_p|^2 over the positions of ids, h the residual stream behind the last layer, before
    the last norm: KVgrad's objective (https://openreview.net/forum?id=cg1wTCJjjk). The cache stays as it is.

    Cost: a forward and a backward over ids on the full cache. Memory: the activations of all layers at ids.
    """
    decoder = prefilled.decoder
    with torch.enable_grad(), attending(decoder), _watched(decoder, prefilled.layers) as (outputs, last):
        embedded = decoder.get_input_embeddings()(ids).detach().requires_grad_()  # parameters may be frozen
        decoder(inputs_embeds=embedded, past_key_values=branch(prefilled.cache), use_cache=True)
        gradients = torch.autograd.grad(last[-1].float().square().sum(), list(outputs.values()))
    return {layer: each[0].float().norm(dim=-1) for layer, each in zip(outputs, gradients, strict=True)}


@contextmanager
def _watched(decoder: Decoder, layers: Sequence[int]) -> Iterator[tuple[dict[int, Tensor], list[Tensor]]]:
    """Collects by layer, of these, the output of its attention in a forward, and that of the last of all blocks."""
    outputs: dict[int, Tensor] = {}
    last: list[Tensor] = []

    def attended(layer: int):
        def hook(_: nn.Module, args: tuple, output: Any) -> None:
            outputs[layer] = output_of(output)

        return hook

    def ended(_: nn.Module, args: tuple, output: Any) -> None:
        last.append(output_of(output))

    modules = attention_modules(decoder)
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(modules[layer][0].register_forward_hook(attended(layer)).remove)
        stack.callback(modules[max(modules)][1].register_forward_hook(ended).remove)
        yield outputs, last
