"""A construction of one's own, checked and compared with two others: python examples/own_construction.py

Seconds. It prints the worst-case error of each construction on one cache; smaller is better.
"""

from dataclasses import dataclass

import torch

from attention_coresets import Construction, Coreset, Request, check_construction, make_cache, make_coreset, worst_query

RHO, SIZE = 2.0, 64  # queries of norm at most RHO; tokens to keep


@dataclass(frozen=True)
class TopNorm(Construction):
    """The tokens whose values are longest."""

    model = "unweighted"

    def choose(self, request: Request) -> Coreset:
        norms = request.cache.values.norm(dim=-1)  # [*heads, n]
        return Coreset(norms.topk(request.size, dim=-1).indices.sort(dim=-1).values)


def main() -> None:
    check_construction(TopNorm())  # raises a ValueError of one line where something is wrong
    cache = make_cache("clusters", n=1024, d=8, seed=0)
    rivals = {"gram_schmidt_walk": make_coreset("gram_schmidt_walk"), "uniform": make_coreset("uniform")}
    for name, construct in {"top_norm": TopNorm(), **rivals}.items():
        coreset = construct(cache, SIZE, RHO, torch.Generator().manual_seed(0))
        print(f"{name:18} {float(worst_query(cache, coreset, RHO).error):.4f}")


if __name__ == "__main__":
    main()
