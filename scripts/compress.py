"""The smallest coreset of a cache of your own: python scripts/compress.py FILE --rho R --epsilon E [--out F]

FILE is .npz or .safetensors with `keys` [*heads, n, d] and `values` [*heads, n, dv], or .npy with both stacked, [2,
*heads, n, d]. Logits are <q, k> without a factor 1/sqrt(d), and R bounds |q|: multiply the queries by it beforehand.
E is the largest error allowed, in the unit of the values. With --size M in place of E: the best coreset of M tokens.

Writes OUT.safetensors with `indices` [heads, m] (int64) and `log_weights` [heads, m] (float32), to be added to the
logits of the kept tokens. Says what is proven of it and what was only searched.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
import time
from pathlib import Path

from tqdm import tqdm

from attention_coresets import Cache, Found, find_coreset
from attention_coresets.adversary.certificate import rounded_up
from attention_coresets.finding import CANDIDATES, Tried
from attention_coresets.finding.files import read_cache, write_found

_BAR = "{desc} |{bar:24}| {n_fmt}/{total_fmt} constructions, {elapsed} gone{postfix}"


def main() -> int:
    asked = _options()
    out = asked.out or asked.file.with_suffix(".coreset.safetensors")
    start = time.perf_counter()
    try:
        if asked.epsilon is None and asked.size is None:
            raise ValueError("how good, or how large? give --epsilon E or --size M")
        cache = read_cache(asked.file)
        found = _searched(cache, asked)
        about = {name: str(value) for name, value in vars(asked).items() if name not in ("file", "out")}
        write_found(out, found, {**about, "file": asked.file.name, "n": str(cache.n)})
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(_table(found, asked.by))
    print(_said(found, cache, asked))
    print(f"{out}, in {time.perf_counter() - start:.0f} s")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rho", type=float, required=True, help="largest norm of a query")
    parser.add_argument("--epsilon", type=float, help="largest error allowed, in the unit of the values")
    parser.add_argument("--size", type=int, help="tokens of each head to keep, whatever epsilon says")
    parser.add_argument("--by", choices=tuple(CANDIDATES), default="certificate", help="proven, or found by ascent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: FILE with the ending .coreset.safetensors")
    return parser.parse_args()


def _searched(cache: Cache, asked: argparse.Namespace) -> Found:
    """Searches, with a bar that moves from one construction to the next."""
    names = CANDIDATES[asked.by]
    with tqdm(total=len(names) + 1, desc="searching", bar_format=_BAR) as bar:

        def report(tried: Tried) -> None:
            bar.n = names.index(tried.construction)
            bar.set_postfix_str(f"{tried.construction}: {tried.size} tokens, {asked.by} {tried.value:.3g}")

        epsilon = asked.epsilon if asked.size is None else None
        found = find_coreset(cache, asked.rho, epsilon, size=asked.size, by=asked.by, seed=asked.seed, report=report)
        bar.n = bar.total
        bar.set_postfix_str("checked")
    return found


def _table(found: Found, by: str) -> str:
    """Every construction with the sizes it was tried at, smallest first."""
    lines = [f"{'construction':<28} {'tokens':>6}  {by} (largest of the heads looked at)"]
    order = sorted(found.tried, key=lambda tried: (CANDIDATES[by].index(tried.construction), tried.size))
    for tried in order:
        kept = "  <- kept" if (tried.construction, tried.size) == (found.construction, found.size) else ""
        lines.append(f"{tried.construction:<28} {tried.size:>6}  {tried.value:.4g}{kept}")
    return "\n".join(lines)


def _said(found: Found, cache: Cache, asked: argparse.Namespace) -> str:
    """What is proven, and what was only searched."""
    heads = cache.heads.numel()
    kept = f"kept: {found.size} of {cache.n} tokens of each of {heads} heads, by {found.construction}"
    if found.size == cache.n:
        why = "nothing smaller was found that is good enough" if found.tried else "as many as there are were asked for"
        return f"{kept}; {why}, so this is the whole cache and its error is 0"
    certificate, error = float(found.certificate.max()), float(found.error.max())
    lines = [
        kept,
        f"proven: no query |q| <= {asked.rho:g} errs by more than {rounded_up(certificate)}, on any head",
        f"searched: the worst query that ascent finds errs by {error:.4g}; others may err by more",
    ]
    if asked.size is None:
        lines.append(
            "searched: smaller coresets, to 3 % of the size; one may have been missed, since certificates and"
            " errors do not always fall as sizes grow"
        )
    elif asked.epsilon is not None:
        value = certificate if asked.by == "certificate" else error
        lines.append(f"epsilon = {asked.epsilon:g} is {'met' if value <= asked.epsilon else 'not met'} at this size")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
