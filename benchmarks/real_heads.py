"""Real heads with coresets, asked in an ellipsoid of their queries, as `experiment=real_errors` has them."""

from collections.abc import Iterator

import torch

from attention_coresets import Cache, Coreset, QueryBody, ellipsoid, make_coreset
from attention_coresets.coresets.base import Construction
from attention_coresets.models.captured import Model, load_head
from attention_coresets.models.heads import RealHead

ARMS = ("keydiff", "snapkv", "uniform", "walk_tilted", "query_walk", "query_exchange_weights")
RHO = 0.25
KV_HEAD = 0  # the experiment's is 1
SMALL = {"model": "tiny-random", "n": 64, "queries": 32}, ("britannica",), (0, 1), 16
WHOLE = {"model": "smollm2-135m", "n": 2048, "queries": 1024}
TIERS = {  # model; texts; layers; size
    "smoke": SMALL,
    "quick": (WHOLE, ("britannica", "code"), (7, 19), 256),
    "full": (WHOLE, ("britannica", "code"), tuple(range(1, 30, 3)), 256),
}


def cases(tier: str, device: str) -> Iterator[tuple[Cache, Coreset, QueryBody, str]]:
    """Each head with a coreset of each arm."""
    model, texts, layers, size = TIERS[tier]
    for text in texts:
        for layer in layers:
            head = load_head(Model(**model, text=text, layer=layer, kv_head=KV_HEAD))
            cache, body = head.cache[None].to(device), ellipsoid(head.moved[None]).to(device)
            for arm in ARMS:
                coreset = _coreset(make_coreset(arm), head, cache, body, size)
                yield cache, coreset, body, f"{text}, layer {layer}, {arm}"


def _coreset(construct: Construction, head: RealHead, cache: Cache, body: QueryBody, size: int) -> Coreset:
    """In the units that the construction is defined in, or in the body's view where it takes one."""
    if construct.takes_weights:
        return body.outside(construct(body.view(cache), size, RHO, 0), cache)
    if not construct.in_model_units:
        return construct(cache, size, RHO, 0)
    given, queries = head.in_model_units(moved=construct.moved)
    places = torch.arange(cache.n, device=cache.keys.device)[None]
    asked = queries[None].to(cache.keys)
    return construct(given[None].to(cache.keys.device), size, RHO, 0, queries=asked, positions=places)
