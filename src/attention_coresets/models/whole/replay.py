"""Replays a context: the model on its full cache is made to repeat it, and the queries that look back are kept.

A cache is compressed before anyone has asked for anything. Whoever repeats the whole text looks once at everything that
a reader could want, each token when its turn comes (KVzip: Kim et al., arXiv 2505.23416). The repetition is forced, not
sampled: one forward a chunk.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.models.rotary import move
from attention_coresets.models.serving.attention import Decoder, attending
from attention_coresets.models.serving.caches import branch, coreset_layers
from attention_coresets.models.serving.positions import check_positions
from attention_coresets.models.serving.prefill import Prefilled
from attention_coresets.models.whole.parts_of_model import (
    PROJECTIONS,
    attention_modules,
    factor,
    projection,
    residual_norms,
)
from attention_coresets.models.whole.reading import CHUNK, LEAD, LayerReading, Lookback, Reading
from attention_coresets.models.whole.slopes import slopes


@torch.no_grad()
def read(
    prefilled: Prefilled,
    ids: Int[Tensor, "b n"],
    request: Int[Tensor, "r"] | None = None,
    chunk: int = CHUNK,
    repeated: float = 1.0,
    sloped: bool = False,
    lead: int = LEAD,
) -> Reading:
    """Makes the model repeat the context, chunk by chunk, and keeps what looked at the cache.

    Cost: a forward over chunk + r + lead tokens a chunk on the full cache. Memory, until the reading is dropped:
    queries, keys and values of the repeated tokens in all layers, (1 + (r + lead) / chunk) (heads / kv + 2) / 2 times
    the bytes of the cache;
    the statistics keep some 6 times the cache in float32 (statistics.py), whatever its dtype.

    Parameters
    ----------
    prefilled : Prefilled
        Of one sample without padding, with the queries of some last positions. Stays as it is.
    ids : Int[Tensor, "b n"]
        The tokens of the context, of one sample.
    request : Int[Tensor, "r"], optional
        What is put before each chunk, such as "Repeat the previous context exactly." None: nothing.
    chunk : int
        Tokens of the context that one forward repeats. Each chunk follows the context directly.
    repeated : float
        Share of each chunk that is repeated, its first tokens; its lead comes on top.
    sloped : bool
        Whether to add the gradients that KVgrad's score asks for, by a second forward and a backward a chunk.
    lead : int
        How many tokens before a chunk are repeated with it, and their queries kept as well. What is repeated first has
        nothing that it could go on from, so that nothing looks for it in the text: without a lead what stands across
        chunks may be lost.

    Returns
    -------
    Reading

    Raises
    ------
    ValueError
        For several samples or padding, other ids than the cache's, no queries, gradients in inference mode, a replay
        beyond the model's positions, or a model whose output projections or rotary positions are not known.
    """
    _check(prefilled, ids, chunk, repeated, lead)
    n = prefilled.context
    longest = max(min(lead, first) + min(chunk, n - first) for first in range(0, n, chunk))
    _check_places(prefilled, longest + (0 if request is None else len(request)))
    if sloped and torch.is_inference_mode_enabled():
        raise ValueError("KVgrad's score needs gradients, which torch.inference_mode forbids; use torch.no_grad")
    decoder, asked = prefilled.decoder, [] if request is None else [request.to(ids)]
    replays: dict[int, list[Lookback]] = {layer: [] for layer in prefilled.layers}
    for first in range(0, n, chunk):
        piece, before = ids[0, first : first + chunk], ids[0, max(0, first - lead) : first]
        piece = piece[: max(1, round(repeated * len(piece)))]
        said = torch.cat([*asked, before, piece])[None]
        found = _forward(decoder, prefilled, said)
        steep = slopes(prefilled, said) if sloped else {}
        for layer, look in found.items():
            replays[layer].append(replace(look, slopes=steep.get(layer)))
    with torch.autocast(ids.device.type, enabled=False):
        return Reading({i: _layer(prefilled, i, replays[i]) for i in prefilled.layers})


def _check(prefilled: Prefilled, ids: Tensor, chunk: int, repeated: float, lead: int) -> None:
    layer = coreset_layers(prefilled.cache)[0]
    if layer.samples != 1 or layer.real is not None or layer.cores is not None:
        raise ValueError("a replay needs the full cache of one sample without padding; read samples one by one")
    if ids.shape != (1, prefilled.context):
        raise ValueError(f"ids {tuple(ids.shape)} are not the {prefilled.context} tokens of the cache")
    if not prefilled.queries:
        raise ValueError("a replay needs queries of the context's last positions: calibration >= 1")
    if chunk < 1 or not 0 < repeated <= 1:
        raise ValueError(f"chunk = {chunk} must be at least 1 token, and repeated = {repeated} in (0, 1]")
    if lead < 0:
        raise ValueError(f"lead = {lead} must be at least 0 tokens")
    known = attention_modules(prefilled.decoder)
    if missing := [layer for layer in prefilled.layers if layer not in known]:
        raise ValueError(
            f"{type(prefilled.decoder).__name__} has no output projection of a known name in layer {missing[0]} "
            f"({', '.join(PROJECTIONS)}); errors cannot be told in units of the residual stream"
        )
    check_positions(prefilled.decoder)


def _check_places(prefilled: Prefilled, longest: int) -> None:
    """Raises ValueError where a replay, unlike the context, reaches positions that the model does not know, or at which
    it turns all queries by other angles than the keys in the cache (longrope)."""
    config, n = prefilled.decoder.config, prefilled.context
    ropes = getattr(config, "rope_parameters", None) or {}
    ropes = [rope for rope in (ropes, *ropes.values()) if isinstance(rope, dict)]  # one, or one a kind of layer
    ends = [rope["original_max_position_embeddings"] for rope in ropes if rope.get("rope_type") == "longrope"]
    for end in (*ends, getattr(config, "max_position_embeddings", None) or n):
        if n <= end < n + longest:
            raise ValueError(
                f"a replay of {longest} tokens after {n} passes position {end}, where the positions that this "
                f"{type(prefilled.decoder).__name__} knows end or change; shorten the text to {end - longest} tokens, "
                "or take a smaller chunk or lead"
            )


def _forward(decoder: Decoder, prefilled: Prefilled, ids: Tensor) -> dict[int, Lookback]:
    """Reads ids after the cache; returns what each layer with full attention was asked."""
    cache, new = branch(prefilled.cache), ids.shape[-1]
    for layer in coreset_layers(cache):
        layer.calibration = new
    with attending(decoder), residual_norms(decoder) as norms:
        decoder(input_ids=ids, past_key_values=cache, use_cache=True)
    found = {}
    for layer in coreset_layers(cache):
        assert layer.asked is not None, "calibration was set"
        keys, values = (x[0, :, prefilled.context :].clone() for x in layer.later)
        queries = layer.asked.queries[0, :, -new:].unflatten(0, (layer.heads, -1))
        found[layer.index] = Lookback(queries, keys, values, norms[layer.index][-1])
    return found


def _layer(prefilled: Prefilled, index: int, replays: list[Lookback]) -> LayerReading:
    layer, queries = prefilled.cache.layers[index], prefilled.queries[index][0]  # [kv, group, c, d]
    keys, values = (x[0] for x in layer.later)
    attention, _ = attention_modules(prefilled.decoder)[index]
    factors = factor(projection(attention, queries.shape[0] * queries.shape[1])).unflatten(0, queries.shape[:2])
    moved = move(prefilled.decoder, queries, queries.shape[-2], index)
    # the norms where these were asked are not at hand: those of the replay are of the same layer and text
    typical = torch.cat([look.norms for look in replays]).square().reciprocal().mean().rsqrt()
    nothing, held = (keys[:, :0], values[:, :0]), torch.arange(moved.shape[-2], device=moved.device) % 32 >= 24
    split = [moved[..., each, :] for each in (~held, held)]
    ahead, held_out = (Lookback(part, *nothing, typical.expand(part.shape[-2])) for part in split)
    plain = move(prefilled.decoder, keys, -torch.arange(keys.shape[-2]), index)  # each key back at position 0
    return LayerReading(keys, values, factors, replays, queries, leverage(plain), ahead, held_out, layer.softcap)


def leverage(keys: Float[Tensor, "kv n d"]) -> Float[Tensor, "kv n"]:
    """Returns x_i^T (X^T X)^-1 x_i of each key about its head's mean, in float64: how far it lies from the others."""
    x = keys.double() - keys.double().mean(-2, keepdim=True)
    gram = x.mT @ x
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None].clamp_min(1e-300)  # of one key it is 0
    gram = gram + 1e-10 * level * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return (x * torch.linalg.solve(gram, x.mT).mT).sum(-1)
