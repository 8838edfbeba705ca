"""Reads a compressed prompt in kvpress: `with CoresetPress("prompt.safetensors")(model): ...`, or as scores.

kvpress (0.5.5) wants transformers below 5.3, and compressing a prompt here wants a newer one: `save_prompt` writes the
file in one environment, kvpress reads it in its own, where this package is installed without extras. Needs kvpress.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from kvpress import BasePress, ScorerPress  # pyright: ignore[reportMissingImports]
from safetensors import safe_open
from torch import Tensor


@dataclass
class CoresetPress(BasePress):
    """Has a model that has read a prompt inside the `with` block look at what a file keeps of it, from then on.

    Its text is to be the file's. Like kvpress' own presses with budgets of heads it hides tokens, and frees no memory.

    weighted: keys get the file's log-weights, by a bias on the logits that outlives the block, until `release` or the
        next block. Otherwise the tokens alone, as `masked_key_indices`, which kvpress reads outside the block too.

    Raises ValueError where the prompt that is read has another length than the file's, for several samples, and for a
    model whose attention is not laid out as Llama's.
    """

    path: str = ""
    weighted: bool = True
    hooks: list = field(default_factory=list, init=False, repr=False)
    masked: list = field(default_factory=list, init=False, repr=False)

    @property
    def compression_ratio(self) -> float:
        """Returns the share of the cache that is hidden."""
        biases = _read(self.path)
        return 1 - sum(int(x.isfinite().sum()) for x in biases) / sum(x.numel() for x in biases)

    @contextmanager
    def __call__(self, model: Any) -> Iterator[None]:
        self.release()
        layers, biases = _layers(model), _read(self.path)
        attentions = [layer.self_attn for layer in layers]
        read: list[int] = []
        watch = layers[0].register_forward_pre_hook(lambda _, args: read.append(args[0].shape[1]))
        try:
            yield
        finally:
            watch.remove()
        _check_length(self.path, biases[0], sum(read))
        for attention, bias in zip(attentions, biases, strict=True):
            if self.weighted:
                hook = _Biased(bias)
                self.hooks.append(attention.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                head, token = (~bias.isfinite()).nonzero().T
                attention.masked_key_indices = (torch.zeros_like(head), head, token)
                self.masked.append(attention)

    def release(self) -> None:
        """Lets the model look at whole caches again."""
        for hook in self.hooks:
            hook.remove()
        for attention in self.masked:
            attention.masked_key_indices = None
        self.hooks.clear()
        self.masked.clear()


@dataclass
class CoresetScorer(ScorerPress):
    """Scores a prompt's tokens by the weights that a file gives those it keeps, and 0 for the others.

    For kvpress' wrappers, which ask for scores: `AdaKVPress(CoresetScorer(0.75, "prompt.safetensors"))` keeps a quarter
    of each layer, the file's tokens first. Tokens that the file leaves out are all alike, and weights serve for the
    order alone: `CoresetPress` is what attends as this package does.

    Raises ValueError where the prompt that is read has another length than the file's.
    """

    compression_ratio: float = 0.0
    path: str = ""

    def score(
        self,
        module: Any,
        hidden_states: Tensor,
        keys: Float[Tensor, "samples kv n d"],
        values: Float[Tensor, "samples kv n dv"],
        attentions: Tensor | None,
        kwargs: dict,
    ) -> Float[Tensor, "samples kv n"]:
        (bias,) = _read(self.path, [module.layer_idx])
        _check_length(self.path, bias, keys.shape[2])
        return bias.exp().to(keys).expand(len(keys), -1, -1).clone()  # a wrapper writes into it


class _Biased:
    """Adds a bias [kv, n] to the logits of the prompt's keys, by the mask that attention is given."""

    def __init__(self, bias: Tensor) -> None:
        self.bias = bias

    def __call__(self, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        before = kwargs["past_key_values"].get_seq_length(module.layer_idx)
        if before == 0:  # another prompt is read
            return None
        samples, new = hidden.shape[:2]
        bias = self.bias.to(hidden).repeat_interleave(module.num_key_value_groups, 0)[:, None]  # [heads, 1, n]
        ahead = torch.ones(new, before + new, dtype=torch.bool, device=hidden.device).triu(before + 1)
        mask = torch.zeros(new, before + new, dtype=hidden.dtype, device=hidden.device).masked_fill(ahead, -torch.inf)
        later = mask[:, bias.shape[-1] :].expand(len(bias), -1, -1)
        whole = torch.cat([bias.expand(-1, new, -1), later], dim=-1)
        return args, kwargs | {"attention_mask": whole.expand(samples, -1, -1, -1)}


def _layers(model: Any) -> list:
    """Returns the decoder's layers. ValueError where kvpress would not find its way in them."""
    inner = model.base_model
    inner = inner.language_model if hasattr(inner, "language_model") else inner
    layers = list(inner.layers) if hasattr(inner, "layers") else []
    if not layers or not all(hasattr(x, "self_attn") and hasattr(x.self_attn, "num_key_value_groups") for x in layers):
        raise ValueError(
            f"{type(model).__name__}: kvpress works on model.model.layers[i].self_attn with num_key_value_groups, as "
            "Llama, Mistral, Phi-3, Qwen and Gemma have it"
        )
    return layers


def _check_length(path: str, bias: Tensor, read: int) -> None:
    if bias.shape[-1] != read:
        raise ValueError(f"{path} is of a prompt of {bias.shape[-1]} tokens, and the model has read {read}")


def _read(path: str, only: Sequence[int] | None = None) -> list[Tensor]:
    """By layer, all or `only` these, what is added to the logits of each KV head's keys [kv, n]: -inf where a token is
    not kept."""
    with safe_open(Path(path), framework="pt") as file:
        layers = json.loads(file.metadata()["prompt"])["layers"]
        return [_bias(file, index, layers[index]) for index in (range(len(layers)) if only is None else only)]


def _bias(file: Any, index: int, layer: dict) -> Tensor:
    if len(layer.get("samples", ())) != 1:
        raise ValueError(f"layer {index}: kvpress reads prompts of one sample, with full attention in every layer")
    (sample,), names = layer["samples"], set(file.keys())
    places = file.get_tensor(f"{index}.0.indices").long()
    weighted = f"{index}.0.log_weights" in names
    weights = file.get_tensor(f"{index}.0.log_weights") if weighted else torch.zeros(len(places))
    bias = torch.full((len(sample["sizes"]), sample["context"]), -torch.inf)
    head = torch.arange(len(sample["sizes"])).repeat_interleave(torch.tensor(sample["sizes"]))
    bias[head, places] = weights.float()
    return bias
