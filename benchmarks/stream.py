"""A stream of a million tokens: seconds, peak memory beyond the input, and error against one-shot constructions.

    python benchmarks/stream.py            # one million tokens, d = 64, to 4096: minutes
    python benchmarks/stream.py --n 100000 --size 1024

One-shot at the same size: kernel halving in stages on a prefix of 32,768 tokens (a walk there would need a Gram matrix
of 8.6 GB), and the Gram-Schmidt walk to 1024 on one of 8192.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from attention_coresets import Cache, Coreset, Stream, make_cache, make_coreset, worst_query

RHO = 2.0
BLOCK = 1000  # tokens of a block that the stream is given


@dataclass(frozen=True)
class Taken:
    """A coreset and what it took: wall and processor seconds, MB of peak memory beyond the input."""

    coreset: Coreset
    seconds: float
    processor: float
    megabytes: float
    held: int = 0  # tokens that a stream held at most


def taken(work: Callable[[], Coreset]) -> Taken:
    """Run `work` once. Linux only."""
    before = _resident("VmRSS")
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as peak:
        peak.write("5")
    start, processor = time.perf_counter(), time.process_time()
    coreset = work()
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return Taken(coreset, seconds, processor, _resident("VmHWM") - before)


def read(cache: Cache, construct, size: int, seed: int = 0) -> Taken:
    """Stream `cache` in blocks."""
    stream, held = Stream(construct, size, RHO, generator=seed), 0

    def work() -> Coreset:
        nonlocal held
        for keys, values in zip(cache.keys.split(BLOCK), cache.values.split(BLOCK), strict=True):
            stream.add(keys, values)
            held = max(held, stream.held)
        return stream.coreset()

    return replace(taken(work), held=held)


def _resident(field: str) -> float:
    """MB of this process's memory, now (VmRSS) or at its peak (VmHWM)."""
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) * 1024 / 1e6


def compare(cache: Cache, stream: str, one_shot: str, size: int) -> str:
    """One line: worst errors of the stream and of the construction called once, at the same size."""
    streamed = read(cache, make_coreset(stream), size).coreset
    once = make_coreset(one_shot)(cache, size, RHO, torch.Generator().manual_seed(1))
    errors = [float(worst_query(cache, c, rho=RHO).error) for c in (streamed, once)]
    return (
        f"n = {cache.n}, size = {size}: stream by {stream} {errors[0]:.3e}, {one_shot} at once {errors[1]:.3e}, "
        f"ratio {errors[0] / errors[1]:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--d", type=int, default=64)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--construct", default="kernel_halving")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; its products here are small for more than one"
    )
    parser.add_argument("--skip-errors", action="store_true", help="time and memory only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cache = make_cache("clusters", n=arguments.n, d=arguments.d, seed=0, dtype=torch.float32)
    read(Cache(cache.keys[:4096], cache.values[:4096]), make_coreset(arguments.construct), 256)  # compiles
    found = read(cache, make_coreset(arguments.construct), arguments.size)
    print(
        f"{arguments.n} tokens, d = {arguments.d}, to {arguments.size} by {arguments.construct}: "
        f"{found.seconds:.0f} s, {found.processor:.0f} s of processor time in {arguments.threads} threads of torch, "
        f"{found.megabytes:.0f} MB beyond the input, {found.held} tokens held at most"
    )
    if not arguments.skip_errors:
        for n, one_shot, size in ((32_768, "kernel_halving", arguments.size), (8192, "gram_schmidt_walk", 1024)):
            prefix = Cache(cache.keys[:n], cache.values[:n])
            print(compare(prefix, arguments.construct, one_shot, size))


if __name__ == "__main__":
    main()
