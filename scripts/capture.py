#!/usr/bin/env python
"""Capture a language model's keys, values and queries: `python scripts/capture.py --tokens 4096 --queries 1024`.

The `model` cache family does this by itself at first use; here for another model, text or length, or to check what is
there: layers already captured are verified and listed, not computed again. One forward, about a minute on two cores.
"""

import argparse
import sys
import time

from attention_coresets.caches.capture import Source, capture
from attention_coresets.caches.model import Model, read_layer


def main() -> int:
    options = _options()
    start = time.perf_counter()
    try:
        source = Source(options.model, options.text, options.tokens, options.queries)
        files = capture(source, options.layers)
        print(f"{'layer':>5} {'KV heads':>8} {'heads':>5} {'tokens':>6} {'queries':>7} {'d':>4} {'MB':>6}")
        for layer, path in zip(options.layers or range(len(files)), files, strict=True):
            held = read_layer(source, layer)
            (kv, n, d), (heads, queries, _) = held.keys.shape, held.queries.shape
            print(f"{layer:>5} {kv:>8} {heads:>5} {n:>6} {queries:>7} {d:>4} {path.stat().st_size / 1e6:>6.1f}")
    except (ValueError, OSError, ImportError) as error:
        print(f"capture: {error}", file=sys.stderr)
        return 1
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(f"{len(files)} layers, {megabytes:.1f} MB, {time.perf_counter() - start:.1f} s, in {source.folder()}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=Model.model, help="smollm2-135m, tiny-random, or a hub model as owner/name")
    parser.add_argument("--text", default=Model.text, help="britannica, or the path of a text file")
    parser.add_argument("--tokens", type=int, default=Model.n, help="length n of the cache")
    parser.add_argument("--queries", type=int, default=Model.queries, help="later positions whose queries are kept")
    parser.add_argument("--layers", type=_layers, help="such as 0,5,10 (default: all)")
    return parser.parse_args()


def _layers(text: str) -> list[int]:
    return sorted({int(layer) for layer in text.split(",")})


if __name__ == "__main__":
    sys.exit(main())
