"""A tiny Llama of random weights on coresets of its context: seconds a token, and the same losses as on the CPU."""

from collections.abc import Iterator
from typing import Any

import torch

from attention_coresets import make_coreset
from benchmarks.gpu.journal import Found
from benchmarks.gpu.measuring import timed
from benchmarks.records import Target, single
from benchmarks.timing import Task

SIZES = {"smoke": (48, 8, 16), "full": (2048, 64, 256)}  # tokens of the context, tokens that follow, tokens kept
ARMS = ("uniform", "walk_tilted", "kernel_halving_tilted")
APART = Target(1e-3)  # nats, in float32; set before it was measured


def tiny_llama(context: int = 4096) -> Any:
    """A LlamaForCausalLM of three layers with two KV heads of dimension 8, the same wherever it is made."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def text(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random tokens of its vocabulary, ``[batch, length]``."""
    return torch.randint(2, 96, (batch, length), generator=torch.Generator().manual_seed(seed))


def served(model, arm: str, context: torch.Tensor, following: torch.Tensor, size: int) -> torch.Tensor:
    """Log-probabilities of the tokens that follow, on coresets of `size` tokens of the context."""
    from attention_coresets.models.serving import compress, continuation, prefill

    device = model.device
    held = compress(prefill(model, context.to(device), 16), make_coreset(arm), size, seed=3)
    return continuation(model, held, following.to(device))


def measure(tier: str, device: str) -> Iterator[Found]:
    """Prefill, compression and continuation in one; the largest difference of a log-probability from the CPU's."""
    n, new, size = SIZES[tier]
    context, following = text(1, n), text(1, new, seed=1)
    there, here = tiny_llama(), tiny_llama().to(device)
    for arm in ARMS:
        run = timed(Task(lambda _, a=arm: served(here, a, context, following, size)), 0.0, least=2)
        yield run.row(f"Llama on coresets, {arm}", n, m=size, d=8, heads=6)
        expected = served(there, arm, context, following, size)
        apart = float((run.result.cpu() - expected).abs().max())
        yield single(f"log-probabilities on {device} and on the CPU apart, {arm}", apart, APART)
