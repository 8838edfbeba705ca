"""A prompt that is compressed once and asked several times: python examples/compressed_prompt.py

Seconds; needs transformers, `pip install '.[models]'`. The Llama is tiny and random, so that nothing is downloaded.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from attention_coresets.serving import compress_prompt, load_prompt, save_prompt


def main() -> None:
    torch.manual_seed(0)
    heads: Any = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, **heads)
    model: Any = LlamaForCausalLM(config).eval()
    prompt, questions = torch.randint(256, (1, 256)), torch.randint(256, (3, 8))

    cache = compress_prompt(model, prompt, share=0.25)
    print(cache)
    for question in questions:
        ids = torch.cat([prompt, question[None]], dim=1)
        print(model.generate(ids, past_key_values=cache, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :].tolist())

    with tempfile.TemporaryDirectory() as folder:
        save_prompt(cache, Path(folder) / "prompt.safetensors")
        cache = load_prompt(model, Path(folder) / "prompt.safetensors")
    together = torch.cat([prompt.expand(3, -1), questions], dim=1)  # all questions in one batch, of one prompt
    options: Any = {"past_key_values": cache, "attention_mask": torch.ones_like(together), "do_sample": False}
    print(model.generate(together, max_new_tokens=8, **options)[:, -8:].tolist())


if __name__ == "__main__":
    main()
