"""Keys and values of one's own, compressed head by head: python examples/own_cache.py [FOLDER]

Seconds. It makes a cache of 4 heads, saves it as cache.npz in FOLDER (outputs unless said), reads it back as one would
read one's own, and saves the tokens kept and their log-weights as coreset.npz.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch

from attention_coresets import Cache, make_coreset, worst_query

RHO, SIZE = 2.0, 64  # queries of norm at most RHO; tokens to keep in each head


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    keys, values = rng.normal(size=(2, 4, 512, 8)) / np.sqrt(8)  # [heads, n, d] each, of norm about 1
    np.savez(folder / "cache.npz", keys=keys, values=values)

    saved = np.load(folder / "cache.npz")
    cache = Cache(torch.from_numpy(saved["keys"]), torch.from_numpy(saved["values"]))
    generators = [torch.Generator().manual_seed(head) for head in range(len(saved["keys"]))]  # one a head
    coreset = make_coreset("gram_schmidt_walk", model="tilted")(cache, SIZE, RHO, generators)
    worst = worst_query(cache, coreset, RHO, certify=True)
    assert worst.certificate is not None  # certify=True
    assert coreset.log_weights is not None  # model="tilted"
    for head, (error, ceiling) in enumerate(zip(worst.error, worst.certificate, strict=True)):
        proven = math.ceil(1e4 * float(ceiling)) / 1e4  # to the nearest digit it would be no ceiling
        print(f"head {head}: {float(error):.4f} found <= largest error <= {proven:.4f} proven")
    np.savez(folder / "coreset.npz", indices=coreset.indices, log_weights=coreset.log_weights)  # [heads, SIZE] each


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs"))
