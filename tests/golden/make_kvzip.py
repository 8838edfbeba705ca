"""Scores and tokens of kvpress' own KVzip on a tiny model, for tests/test_whole_model.py.

kvpress 0.5.5 wants transformers below 5.3 and this package one above 5.17, so that two environments are needed:

    python -c "from serving_models import make; make('Llama').save_pretrained('/tmp/tiny')"     # here, from tests/
    python tests/golden/make_kvzip.py /tmp/tiny tests/golden/kvzip.json                         # where kvpress is

The request that KVzip puts before the repetition is three tokens here, whatever a tokenizer would make of its words.
"""

import json
import sys

import torch
from kvpress.presses import kvzip_press
from transformers import AutoModelForCausalLM, DynamicCache

REQUEST, RATIO = [[7, 8, 9]], 0.5


class Words:
    """Stands in for a tokenizer without a chat template."""

    chat_template = None

    @classmethod
    def from_pretrained(cls, _: str) -> "Words":
        return cls()

    def encode(self, text: str, **_) -> torch.Tensor:
        return torch.tensor(REQUEST) if "Repeat" in text else torch.zeros(1, 0, dtype=torch.long)


def main(model_path: str, out: str) -> None:
    kvzip_press.AutoTokenizer = Words
    model = AutoModelForCausalLM.from_pretrained(model_path, attn_implementation="sdpa").eval()
    ids = torch.randint(2, 96, (1, 40), generator=torch.Generator().manual_seed(0))
    press, scores = kvzip_press.KVzipPress(compression_ratio=RATIO), []
    finish = press.compress_post

    def compress_post(model) -> None:
        scores.append(press.score_val[:, 0].clone())
        finish(model)

    press.compress_post = compress_post
    with torch.no_grad(), press(model):
        model.model(input_ids=ids, past_key_values=DynamicCache())
    kept = torch.ones(scores[0].shape, dtype=torch.bool)
    for index, layer in enumerate(model.model.layers):
        _, heads, tokens = layer.self_attn.masked_key_indices
        kept[index, heads, tokens] = False
    content = {
        "kvpress": "0.5.5",
        "ratio": RATIO,
        "kept": [[head.nonzero()[:, 0].tolist() for head in layer] for layer in kept],
        "scores": [[[float(f"{x:.6g}") for x in head.tolist()] for head in layer] for layer in scores[0]],
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(content, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
