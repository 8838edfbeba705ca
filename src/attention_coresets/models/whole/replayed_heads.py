"""The KV heads of a model with the queries of a replay: what a head is asked when its text is looked up."""

from functools import lru_cache

import torch

from attention_coresets.geometry.coverage import subsample
from attention_coresets.models.capture import Source, segment
from attention_coresets.models.heads import RealHead, real_head
from attention_coresets.models.language_models import load_model
from attention_coresets.models.serving import prefill
from attention_coresets.models.serving.needle import encode
from attention_coresets.models.whole.arms import REPEAT
from attention_coresets.models.whole.reading import LayerReading, Reading
from attention_coresets.models.whole.replay import read

HELD_OUT = 768  # positions at most whose queries are held out, drawn with seed 0


def replayed_head(source: Source, device: torch.device, layer: int, kv_head: int) -> RealHead:
    """Returns a head of the source's cache: its `moved` queries repeat the text, its `heldout` ones when told to.

    The former are of all tokens of the text, each once, chunk by chunk (`read`). For the latter the repetition is asked
    for in words first, so that they are of other positions and contexts: nothing made for the former has seen them.
    They are of HELD_OUT positions. The two replays are made once a process for the last source.

    Raises ValueError for a layer that has no full attention or has soft caps, or a KV head that there is not.
    """
    plain, asked = _readings(source, device)
    if layer not in plain.layers:
        known = ", ".join(map(str, plain.layers))
        raise ValueError(f"{source.model} has full attention in layers {known}, got layer = {layer}")
    mine, told = plain.layers[layer], asked.layers[layer]
    if mine.softcap is not None:
        raise ValueError(f"{source.model} has soft caps in layer {layer}: its heads are no plain softmax")
    if kv_head >= len(mine.keys):
        raise ValueError(f"{source.model} has KV heads 0 to {len(mine.keys) - 1}, got kv_head = {kv_head}")
    repeating, heldout = (_queries(each, kv_head) for each in (mine, told))
    heldout = heldout[:, subsample(heldout.shape[1], HELD_OUT)]
    # the queries have the scaling already
    return real_head(mine.keys[kv_head], mine.values[kv_head], mine.asked[kv_head], repeating, heldout, scaling=1.0)


def _queries(layer: LayerReading, kv_head: int) -> torch.Tensor:
    """All queries of a replay, ``[group, q, d]``."""
    return torch.cat([look.queries[kv_head] for look in layer.replays], dim=-2)


@lru_cache(maxsize=1)
def _readings(source: Source, device: torch.device) -> tuple[Reading, Reading]:
    """Two replays of the source's text: unasked, and asked for in words."""
    model, tokenizer, _ = load_model(source.model)
    torch.nn.Module.to(model, device)
    ids = segment(source, model, tokenizer)[0][:, : source.n].to(device)
    prefilled = prefill(model, ids, source.calibrated)
    words = torch.arange(8) if tokenizer is None else encode(tokenizer, REPEAT)
    return read(prefilled, ids, lead=0), read(prefilled, ids, words, lead=0)
