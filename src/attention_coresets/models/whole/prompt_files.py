"""Saves compressed prompts as safetensors, and loads them: indices, keys, values and log-weights of each layer."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicSlidingWindowLayer

from attention_coresets.files import replacing
from attention_coresets.models.serving.adoption import new_cache
from attention_coresets.models.serving.attention import decoder_of
from attention_coresets.models.serving.layer import CoresetLayer
from attention_coresets.models.serving.ragged import Ragged
from attention_coresets.models.whole.continuing import attach
from attention_coresets.models.whole.marks import Marks, check_marks
from attention_coresets.models.whole.prompt_cache import PromptCache

FORMAT = "attention_coresets.prompt.3"
_PARTS = ("keys", "values", "indices", "log_weights")


def save_prompt(cache: PromptCache, path: str | Path) -> None:
    """Writes a compressed prompt to a safetensors file, which appears whole or not at all.

    Tensors: ``errors``; ``marks``, entries of the model's weights; of layer i and sample s ``i.s.keys`` [stored, d],
    ``i.s.values``, ``i.s.indices`` and, if there are any, ``i.s.log_weights``, head after head; of a layer with a
    sliding window ``i.keys`` and ``i.values``. The metadata's "prompt" is JSON: sizes of heads, lengths, window
    positions, the model's dtype and settings of positions. So others can read what each head keeps.

    Raises ValueError for layers that are neither, and OSError where the disk refuses.
    """
    from safetensors.torch import save_file

    tensors, layers = {"errors": cache.errors, "marks": cache.marks.weights}, []
    for index, layer in enumerate(cache.layers):
        own, facts = _stored(index, layer)
        tensors |= own
        layers.append(facts)
    made = {"dtype": cache.marks.dtype, "settings": cache.marks.settings}
    meta = {"format": FORMAT, "prompt": json.dumps({"layers": layers, "full_bytes": cache.full_bytes} | made)}
    with replacing(Path(path)) as part:
        save_file({name: x.contiguous().clone() for name, x in tensors.items()}, part, metadata=meta)


def _stored(index: int, layer: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if isinstance(layer, CoresetLayer) and layer.cores is not None and not layer.count:
        tensors = {
            f"{index}.{sample}.{part}": tensor
            for sample, core in enumerate(layer.cores)
            for part in _PARTS
            if (tensor := getattr(core, part)) is not None
        }
        samples = [{"sizes": core.sizes, "context": core.context} for core in layer.cores]
        return tensors, {"context": layer.context, "samples": samples}
    if isinstance(layer, DynamicSlidingWindowLayer):
        window: Any = layer
        tensors = {f"{index}.keys": window.keys, f"{index}.values": window.values}
        return tensors, {"window": layer.sliding_window, "read": layer.cumulative_length}
    raise ValueError(f"layer {index} of the cache is a {type(layer).__name__}, which cannot be saved")


@torch.no_grad()
def load_prompt(model, path: str | Path) -> PromptCache:
    """Reads a compressed prompt for the model that made it, in the dtype it was saved in and on the model's device.

    Raises ValueError for a file that is damaged or no prompt, or was made by a model of other weights or settings, and
    OSError where there is none.
    """
    from safetensors import SafetensorError, safe_open

    decoder = decoder_of(model)
    try:
        with safe_open(Path(path), framework="pt", device=str(decoder.device)) as file:
            meta, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); compress the prompt again") from error
    if meta.get("format") != FORMAT:
        raise ValueError(
            f"{path} is {meta.get('format', 'of no known format')}, not {FORMAT}; compress the prompt again"
        )
    try:
        content = json.loads(meta["prompt"])
        known = Marks(tensors["marks"].cpu(), content["dtype"], content["settings"])
        check_marks(decoder, known, str(path))
        cache = new_cache(decoder)
        for index, facts in enumerate(content["layers"]):
            cache.layers[index] = _layer(index, cache.layers[index], facts, tensors)
        found = PromptCache(cache, tensors["errors"], content["full_bytes"], known)
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} lacks a part of the prompt ({error}); compress the prompt again") from error
    attach(model, found)
    return found


def _layer(index: int, usual: Any, facts: dict, tensors: dict[str, Tensor]) -> Any:
    if "samples" not in facts:
        usual.lazy_initialization(tensors[f"{index}.keys"], tensors[f"{index}.values"])
        usual.keys, usual.values = tensors[f"{index}.keys"], tensors[f"{index}.values"]
        usual.cumulative_length = facts["read"]
        return usual
    layer, cores = CoresetLayer(index), []
    for sample, each in enumerate(facts["samples"]):
        name = f"{index}.{sample}"
        keys, values, indices = (tensors[f"{name}.{part}"] for part in _PARTS[:3])
        weights = tensors.get(f"{name}.{_PARTS[3]}")
        cores.append(Ragged(keys, values, indices, weights, tuple(each["sizes"]), each["context"]))
    nothing = (len(cores), len(cores[0].sizes), 0)
    layer.lazy_initialization(*(x.new_zeros(*nothing, x.shape[-1]) for x in (cores[0].keys, cores[0].values)))
    layer.cores, layer.context = cores, facts["context"]
    layer.reading = layer.fresh = False
    layer.still = True
    return layer
