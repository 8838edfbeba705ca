"""Runs where kvpress is: the logits of a question after a compressed prompt, for tests/test_kvpress_adapter.py.

python tests/kvpress_child.py MODEL PROMPT OUT
"""

import sys

import torch
from kvpress import AdaKVPress
from transformers import AutoModelForCausalLM, DynamicCache

from attention_coresets.kvpress_adapter import CoresetPress, CoresetScorer


def main(model_path: str, prompt: str, out: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_path, attn_implementation="sdpa").eval()
    given = torch.load(f"{out}.in")
    found, wrong = {}, ""
    with torch.no_grad():
        for weighted in (True, False):
            press, cache = CoresetPress(prompt, weighted=weighted), DynamicCache()
            with press(model):
                model.model(given["ids"], past_key_values=cache)
            # outside the block, as kvpress' pipeline does; masked indices need few queries at once
            pieces = [given["more"]] if weighted else given["more"].split(1, dim=1)
            logits = [model(piece, past_key_values=cache).logits for piece in pieces]
            found[str(weighted)] = torch.cat(logits, dim=1).log_softmax(-1)
            press.release()
        press = CoresetPress(prompt)
        try:
            with press(model):
                model.model(given["ids"][:, :9], past_key_values=DynamicCache())
        except ValueError as error:
            wrong = str(error)
        ratio = press.compression_ratio
        with AdaKVPress(CoresetScorer(ratio, prompt), alpha_safeguard=0.0)(model):
            model.model(given["ids"], past_key_values=DynamicCache())
        hidden = [torch.stack(layer.self_attn.masked_key_indices[1:]) for layer in model.model.layers]
        for layer in model.model.layers:
            layer.self_attn.masked_key_indices = None
        cache = DynamicCache()
        with CoresetScorer(ratio, prompt)(model):
            model.model(given["ids"], past_key_values=cache)
    torch.save({**found, "ratio": ratio, "wrong": wrong, "hidden": hidden, "left": cache.get_seq_length()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
