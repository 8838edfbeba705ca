"""Compares masks with what a layer of a cache has read: which tokens are padding, and which can be hidden no more."""

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from attention_coresets.models.serving.layer import CoresetLayer

_MASKS = "coresets need a mask [batch, tokens] of ones for tokens and zeros for padding, or none"


def causal(new: int, tokens: int, device: torch.device) -> Bool[Tensor, "q t"]:
    """Returns which tokens the last `new` of them see."""
    return torch.ones(new, tokens, dtype=torch.bool, device=device).tril(tokens - new)


def real_columns(mask: Tensor, seen: Bool[Tensor, "q t"], layer: CoresetLayer) -> Bool[Tensor, "_ t"]:
    """Returns which of the later tokens, which are `seen` by place, are no padding.

    The mask may have more columns than there are later tokens, where it was made before the layer compressed what came
    earlier, or fewer, where other layers keep less: what it leaves out is known already.

    Raises ValueError for a mask that is more than causal with padding.
    """
    if mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"attention_mask reached layer {layer.index} as {mask.dtype} {tuple(mask.shape)}; {_MASKS}")
    new, later = seen.shape
    mask = mask[:, 0, :, -later:]
    columns = mask[:, -1]  # what the last query sees is no padding
    if new > 1 and not torch.equal(mask, seen[:, -mask.shape[-1] :] & columns[:, None]):
        raise ValueError(
            f"attention_mask is more than causal with padding (packed texts, blocks that see each other); {_MASKS}"
        )
    if (layer.fresh or new > 1) and bool((~columns[:, -1] & columns.any(dim=-1)).any()):
        raise ValueError(
            "attention_mask ends in zeros: padding on the right; pad on the left (tokenizer.padding_side = 'left')"
        )
    return torch.nn.functional.pad(columns, (later - columns.shape[-1], 0), value=True)


def shown_to(mask: Any) -> Bool[Tensor, "b q tokens"] | None:
    """Returns what queries see by a mask [b, tokens] or [b, 1, q, tokens], alone or one a kind of layer; else None."""
    mask = mask.get("full_attention") if isinstance(mask, dict) else mask
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return mask[:, None].bool()
    return mask[:, 0] if isinstance(mask, Tensor) and mask.ndim == 4 and mask.dtype == torch.bool else None


def check_shown(mask: Any, layer: CoresetLayer, new: int, none_shows_all: bool) -> None:
    """Raises ValueError for a mask of all tokens that hides some that were compressed, or shows padding.

    none_shows_all: no mask is one of ones. Otherwise it says nothing.
    """
    length = layer.get_seq_length()
    if mask is None and none_shows_all and length:
        mask = torch.ones(layer.samples, length + new, dtype=torch.bool, device=layer.device)
    shown = shown_to(mask)
    if shown is None or not length or shown.shape[-1] != length + new:
        return
    later = shown[..., layer.context : length]
    if layer.real is not None:
        later = later & layer.real[:, None]
    found = shown[..., :length].sum(-1) - later.sum(-1)  # [b, q]: of tokens in coresets and of padding
    had = torch.tensor([core.context for core in layer.cores or []] or [0], device=found.device)
    wrong = (found != had[:, None]).any(-1)
    if bool(wrong.any()):
        raise ValueError(
            f"attention_mask hides compressed tokens of sample {int(wrong.to(torch.uint8).argmax())}, or shows its "
            "padding (no mask shows all); pass the mask that the tokens were read with; where answers end at different "
            "lengths use hold=False, or one row at a time"
        )
