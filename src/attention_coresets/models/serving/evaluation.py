"""Measures what a cache is worth to a language model: losses on the text that follows, distance to the full cache."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from attention_coresets.models.checkpointing import check_no_checkpointing
from attention_coresets.models.serving.attention import attending, decoder_of
from attention_coresets.models.serving.caches import ModelCache, branch, coreset_layers
from attention_coresets.models.serving.prefill import check_tokens, padded


@torch.no_grad()
def continuation(model, cache: ModelCache, ids: Int[Tensor, "b c"]) -> Float[Tensor, "b c vocabulary"]:
    """Computes log-probabilities after each of these tokens, which follow the cache's; the cache is left as it is.

    One forward reads all c tokens, teacher-forced, which gives the same as one token after the other. A prompt that the
    cache may still be reading is over: it is compressed first. Padding on the left of the prompt is known to a cache of
    this package, and not to one of transformers, which is taken to have none.

    Parameters
    ----------
    model
    cache : ModelCache
        Of `compress`, or a full one; with padding that of `prefill`.
    ids : Int[Tensor, "b c"]

    Returns
    -------
    Float[Tensor, "b c vocabulary"]
        In nats. Row j predicts token j + 1.

    Raises
    ------
    ValueError
        For a model that is not supported or checkpoints gradients, or no tokens.
    """
    check_tokens(ids)
    check_no_checkpointing(model)
    for layer in coreset_layers(cache):
        layer.settle()
    with attending(decoder_of(model)):
        logits = model(input_ids=ids, past_key_values=branch(cache), use_cache=True, **left_padding(cache, ids)).logits
    return logits.float().log_softmax(dim=-1)


def left_padding(cache: ModelCache, ids: Shaped[Tensor, "b c *hidden"]) -> dict[str, Tensor]:
    """Returns mask and positions of tokens that follow a cache of padded samples; nothing where none was padded."""
    known = coreset_layers(cache)
    missing = [known[0].get_seq_length() - known[0].read(b) for b in range(known[0].samples)] if known else []
    if not any(missing):
        return {}
    columns = torch.arange(known[0].get_seq_length() + ids.shape[1], device=ids.device)
    after = columns >= torch.tensor(missing, device=ids.device)[:, None]
    return padded(after.long(), last=ids.shape[1])


def losses(log_probabilities: Float[Tensor, "b c v"], ids: Int[Tensor, "b c"]) -> Float[Tensor, "b c-1"]:
    """Returns the negative log-probability, in nats, of each of the tokens but the first."""
    return -log_probabilities[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)


@dataclass(frozen=True)
class Agreement:
    """How a model on coresets predicts a text, beside the same model on the full cache; in nats, over all positions.

    Parameters
    ----------
    loss, loss_full : float
        Mean next-token losses.
    kl, kl_p99 : float
        Mean and 99th percentile of KL(full || coreset).
    agreement : float
        Share of positions at which both find the same token most probable.
    """

    loss: float
    loss_full: float
    kl: float
    kl_p99: float
    agreement: float


def agreement(full: Float[Tensor, "b c v"], found: Float[Tensor, "b c v"], ids: Int[Tensor, "b c"]) -> Agreement:
    """Compares log-probabilities of `continuation` at the positions whose next token is known, c - 1 a sample.

    Parameters
    ----------
    full, found : Float[Tensor, "b c v"]
        On the full cache, and on coresets.
    ids : Int[Tensor, "b c"]

    Returns
    -------
    Agreement

    Raises
    ------
    ValueError
        For fewer than 2 tokens.
    """
    if ids.shape[-1] < 2:
        raise ValueError(f"a continuation needs at least 2 tokens to have a next one, got {ids.shape[-1]}")
    p, q = full[:, :-1], found[:, :-1]
    kl = (p.exp() * (p - q)).sum(dim=-1).clamp_min(0)  # [b, c - 1]; rounding aside it is not negative
    return Agreement(
        loss=float(losses(found, ids).mean()),
        loss_full=float(losses(full, ids).mean()),
        kl=float(kl.mean()),
        kl_p99=float(kl.flatten().quantile(0.99)),
        agreement=float((p.argmax(dim=-1) == q.argmax(dim=-1)).float().mean()),
    )
