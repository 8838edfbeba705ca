"""Compresses a prompt once, for any number of questions: `compress_prompt(model, ids, share=0.25)`."""

import operator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import DynamicSlidingWindowLayer

from attention_coresets.attention import Coreset
from attention_coresets.models.serving.caches import cache_bytes
from attention_coresets.models.serving.keeping import keep
from attention_coresets.models.serving.needle import encode
from attention_coresets.models.serving.prefill import prefill
from attention_coresets.models.whole.attention_matching import AttentionMatching
from attention_coresets.models.whole.budgets import check_count
from attention_coresets.models.whole.continuing import attach
from attention_coresets.models.whole.errors import held_out_errors
from attention_coresets.models.whole.marks import Marks
from attention_coresets.models.whole.measured import Measured
from attention_coresets.models.whole.prompt_cache import PromptCache
from attention_coresets.models.whole.replay import read
from attention_coresets.models.whole.replay_fit import ReplayFit


def compress_prompt(
    model,
    ids: Int[Tensor, "b n"],
    share: float | None = None,
    *,
    count: int | None = None,
    attention_mask: Int[Tensor, "b n"] | None = None,
    construct: ReplayFit | AttentionMatching | None = None,
    tokenizer=None,
    calibration: int = 128,
) -> PromptCache:
    """Reads a prompt, has the model repeat it, and keeps a share of its cache: for prompts that are asked many times.

    Layers with full attention share one budget; the others stay as they are. The model is left with this package's
    attention function, which for every other cache is transformers' `sdpa`, and with a hook that has it continue a
    branch of such a cache.

    Cost: two forwards over the prompt, a third for several samples, and the statistics of its queries: for SmolLM2-135M
    at 2048 tokens some minutes of one core. Memory: the whole cache, and `read`'s.

    Parameters
    ----------
    model
        A transformers decoder that takes another attention function (AttentionInterface).
    ids : Int[Tensor, "b n"]
    share : float, optional
        Of the whole cache, in (0, 1]; 1 keeps everything.
    count : int, optional
        Instead of it: tokens of all KV heads of the model together, for each sample.
    attention_mask : Int[Tensor, "b n"], optional
        0 for padding, which must be on the left. Samples are compressed one by one, each as if it were alone.
    construct : ReplayFit or AttentionMatching, optional
        None: `ReplayFit()`.
    tokenizer
        Needed where the construct's `wording` asks for the repetition in words.
    calibration : int
        Last positions of the prompt whose queries are used, three of four for the fit and one to tell the errors.

    Returns
    -------
    PromptCache

    Raises
    ------
    ValueError
        For a share or count that does not fit, a construct that changes values or chooses for one head alone, padding
        on the right, a replay beyond the model's positions, or a model that is not supported.
    """
    if (share is None) == (count is None):
        raise ValueError(f"give a share or a count of tokens, not both: share = {share}, count = {count}")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"share = {share} must lie in (0, 1]")
    construct = construct or ReplayFit()
    if not isinstance(construct, ReplayFit | AttentionMatching):
        raise ValueError(
            f"compress_prompt needs ReplayFit or AttentionMatching, which choose for a whole model; {construct} "
            "chooses for a head: use compressed(model, construct, size)"
        )
    if construct.model in ("merged", "refitted"):
        raise ValueError(f"a compressed prompt keeps tokens' own values, and {construct} changes them")
    asked = _request(construct, tokenizer)
    gaps = attention_mask is not None and not bool(attention_mask.all())
    whole = prefill(model, ids, min(calibration, ids.shape[-1]), attention_mask)
    lengths = [ids.shape[-1]] * len(ids) if attention_mask is None else attention_mask.sum(-1).tolist()
    budgets = [round(share * whole.heads * n) if share else operator.index(count or 0) for n in lengths]
    for budget, n in zip(budgets, lengths, strict=True):  # before the long work
        check_count(budget, whole.heads, n, construct.sinks + construct.recent)
    chosen: dict[int, list[list[Coreset]]] = {index: [] for index in whole.layers}
    errors = []
    for sample, budget in enumerate(budgets):
        mine = ids[sample] if attention_mask is None else ids[sample, attention_mask[sample].bool()]
        alone = prefill(model, mine[None], min(calibration, len(mine))) if gaps or len(ids) > 1 else whole
        found = Measured(read(alone, mine[None], asked, *construct.repeating))
        with torch.autocast(ids.device.type, enabled=False):
            coresets = construct.choose(found, budget)
            errors.append(held_out_errors(found.reading, coresets))
        for index, heads in coresets.items():
            chosen[index].append(heads)
        del found, alone  # before the next sample's are made
    full = cache_bytes(whole.cache)
    kept = keep(whole, chosen)
    windows: list[Any] = [layer for layer in kept.layers if isinstance(layer, DynamicSlidingWindowLayer)]
    for layer in windows:  # they have views of longer tensors, which end here
        layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
    cache = PromptCache(kept, torch.stack(errors), full, Marks.of(whole.decoder))
    attach(model, cache)
    return cache


def _request(construct: ReplayFit | AttentionMatching, tokenizer) -> Int[Tensor, "r"] | None:
    """Returns the tokens of the construct's wording; ValueError where there is none to make them."""
    if not construct.wording:
        return None
    if tokenizer is None:
        raise ValueError(f"wording = {construct.wording!r} needs the model's tokenizer; pass tokenizer=")
    return encode(tokenizer, construct.wording)
