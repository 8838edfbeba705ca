"""Learns how a decoder positions its queries, before they are moved."""

import torch
from torch import Tensor

from attention_coresets.models.checkpointing import check_no_checkpointing
from attention_coresets.models.rotary import any_token, learn_positions
from attention_coresets.models.serving.adoption import adopt, new_cache
from attention_coresets.models.serving.attention import Decoder, attending
from attention_coresets.models.serving.caches import coreset_layers


def check_positions(decoder: Decoder) -> None:
    """Raises ValueError for a decoder whose queries cannot be moved (rotary.py), or that checkpoints gradients.

    Cost: two forwards over a token.
    """
    learn_positions(decoder, lambda place: _asked(decoder, place))


@torch.no_grad()
def _asked(decoder: Decoder, place: int) -> dict[int, Tensor]:
    check_no_checkpointing(decoder)
    cache, ids = new_cache(decoder), any_token(decoder)
    adopt(cache, decoder, plan=None, calibration=1)
    with attending(decoder):
        decoder(input_ids=ids, position_ids=torch.full_like(ids, place), past_key_values=cache, use_cache=True)
    return {layer.index: layer.asked.queries[0] for layer in coreset_layers(cache) if layer.asked is not None}
