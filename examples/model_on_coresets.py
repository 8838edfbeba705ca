"""A language model that generates on coresets of its KV cache: python examples/model_on_coresets.py

Seconds; needs transformers, `pip install '.[models]'`. The Llama is tiny and random, so that nothing is downloaded.
"""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from attention_coresets import make_coreset
from attention_coresets.serving import compressed


def main() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model: Any = LlamaForCausalLM(config).eval()
    prompt = torch.randint(256, (1, 512))

    whole = model.generate(prompt, max_new_tokens=16, do_sample=False)[:, 512:]
    with compressed(model, make_coreset("query_exchange"), size=0.25, keep_recent=32) as handle:
        short = model.generate(prompt, max_new_tokens=16, do_sample=False)[:, 512:]

    print(f"{handle.size} of {handle.context} tokens kept in each KV head")
    print(f"{handle.bytes_before} bytes of cache before, {handle.bytes_after} after")
    print(f"{int((whole == short).sum())} of {whole.numel()} new tokens are those of the whole cache")


if __name__ == "__main__":
    main()
