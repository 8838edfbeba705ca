"""Tiny random models of many families, and what generating on coresets must give, computed another way."""

import torch
import transformers

from attention_coresets import make_coreset
from attention_coresets.models.serving import compress, continuation, prefill

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
GEMMA = {
    "head_dim": 8,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "query_pre_attn_scalar": 8,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 128,
}
HYBRID = {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, "block_auto_adjust_ff_dim": False}
SHARING = GEMMA | {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,  # the last two read the keys of the first two
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 96,
}
FAMILIES: dict[str, dict] = {
    "Llama": {},
    "Mistral": {"sliding_window": None, "head_dim": 8},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Phi": {},
    "Phi3": {"rope_parameters": LONGROPE, "original_max_position_embeddings": 128},
    "StableLm": {},
    "Persimmon": {},
    "Nemotron": {},
    "GPTNeoX": {},
    "Glm": {"head_dim": 8},
    "Gemma": {"head_dim": 8},
    "Gemma2": GEMMA,
    "Gemma3": GEMMA,
    "Gemma3n": SHARING | {"laurel_rank": 4, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0] * 4},
    "Gemma4": SHARING | {"global_head_dim": 8},
    "Lfm2": HYBRID,
}
N, NEW, SIZE, RECENT = 40, 5, 16, 3
SNAPKV = make_coreset("snapkv", window=4)
EXCHANGE = make_coreset("query_exchange", moves=4)
UNIFORM = make_coreset("uniform", sinks=2)
GREEDY = {"max_new_tokens": NEW, "do_sample": False}


def make(family: str = "Llama", **changes):
    """Makes the family's tiny model with seed 0, whatever was drawn before."""
    kind = f"{family}Text" if family in ("Gemma3", "Gemma3n", "Gemma4") else family
    config = getattr(transformers, f"{kind}Config")(**(SHAPE | FAMILIES.get(family, {}) | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def text(batch: int = 1, length: int = N, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, SHAPE["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


def answer(model, ids: torch.Tensor, **options) -> torch.Tensor:
    """The tokens generated after these, greedily."""
    return model.generate(ids, **(GREEDY | options))[:, ids.shape[1] :]


def expected(
    model, ids: torch.Tensor, construct=SNAPKV, size: float = SIZE, keep_recent=RECENT, new=NEW, **options
) -> torch.Tensor:
    """The same on coresets, without generation: every token from one forward over all tokens after the coreset.

    Each sample is compressed alone. The first token comes from the whole prompt, as it does in a context.
    """
    rows = []
    for row in ids.split(1):
        with torch.no_grad():
            found = model(row).logits[:, -1:].argmax(-1)
        held = compress(prefill(model, row, 512), construct, size, keep_recent, **options)
        while found.shape[1] < new:
            following = continuation(model, held, found)[:, -1:].argmax(-1)
            found = torch.cat([found, following], dim=1)
        rows.append(found)
    return torch.cat(rows)


def padded(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads prompts of different lengths on the left; returns tokens and mask."""
    length = max(row.shape[1] for row in rows)
    ids = torch.cat([torch.nn.functional.pad(row, (length - row.shape[1], 0)) for row in rows])
    mask = torch.cat([torch.nn.functional.pad(torch.ones_like(row), (length - row.shape[1], 0)) for row in rows])
    return ids, mask


class Around(torch.nn.Module):
    """Passes everything on, as wrappers of models do."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model, self.config, self.get_decoder = model, model.config, model.get_decoder

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)
