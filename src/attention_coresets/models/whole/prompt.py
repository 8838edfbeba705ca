"""Compresses a prompt once, for any number of questions: `compress_prompt(model, ids, share=0.25)`."""

import inspect
import operator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from attention_coresets.attention import Coreset
from attention_coresets.models.serving.attention import INTERFACE, Decoder, decoder_of
from attention_coresets.models.serving.caches import ModelCache, branch, cache_bytes, coreset_layers
from attention_coresets.models.serving.evaluation import left_padding
from attention_coresets.models.serving.keeping import keep
from attention_coresets.models.serving.needle import encode
from attention_coresets.models.serving.prefill import padded, prefill
from attention_coresets.models.whole.attention_matching import AttentionMatching
from attention_coresets.models.whole.budgets import check_count
from attention_coresets.models.whole.errors import held_out_errors
from attention_coresets.models.whole.marks import check_marks, marks
from attention_coresets.models.whole.measured import Measured
from attention_coresets.models.whole.replay import read
from attention_coresets.models.whole.replay_fit import ReplayFit

_SHOWN = 5  # heads of largest error that are named


class PromptCache(DynamicCache):
    """The cache of a prompt that was compressed, to be continued any number of times: nothing changes it.

    Pass it to `model.generate(ids, past_key_values=cache)`, with all tokens of the prompt and the new ones in `ids`, to
    a forward, or to `continuation`, with the new ones alone. It knows which samples were padded; a forward after that,
    on the branch that the first one extends, must be given mask and positions. A batch whose size is a multiple of its
    samples continues each of them several times. `print` shows what it keeps. `attach` makes another copy of the model
    ready for it.

    Parameters
    ----------
    cache : ModelCache
        Its layers with full attention hold coresets.
    errors : Float[Tensor, "samples layers kv"]
        For each KV head, the QUANTILE of the norms of its output's error, through the output projection, over the
        typical norm of the residual stream: at queries of the prompt's last positions, moved behind it, to which
        neither tokens nor weights were fitted (SnapKV, TOVA and H2O do score tokens by them, unmoved). NaN for a sample
        or a `calibration` too short to hold any out.
    full_bytes : int
        Memory of the whole cache of the prompt.
    marks : Float[Tensor, "parameters"]
        Of the model that made it (marks.py).
    """

    def __init__(
        self,
        cache: ModelCache,
        errors: Float[Tensor, "samples layers kv"],
        full_bytes: int,
        marks: Float[Tensor, "parameters"],
    ) -> None:
        vars(self).update(vars(cache))
        self.errors, self.full_bytes, self.marks = errors, full_bytes, marks

    def __copy__(self) -> DynamicCache:
        """Returns a cache as any other, of the same layers."""
        twin = DynamicCache.__new__(DynamicCache)
        own = ("errors", "full_bytes", "marks")
        vars(twin).update({name: x for name, x in vars(self).items() if name not in own})
        return twin

    def update(self, *args, **kwargs):
        """Raises ValueError: a prompt's cache is neither extended nor changed."""
        raise ValueError(
            "a compressed prompt is not extended or changed; call `attach(model, cache)`, so that this model continues "
            "a branch of it, or pass `branch(cache)`"
        )

    reset = crop = reorder_cache = batch_repeat_interleave = batch_select_indices = update

    @property
    def bytes(self) -> int:
        """Returns the memory of what is kept."""
        return cache_bytes(self)

    @property
    def sizes(self) -> Int[Tensor, "samples layers kv"]:
        """Returns how many tokens each KV head keeps."""
        layers = [[core.sizes for core in layer.cores or []] for layer in coreset_layers(self)]
        return torch.tensor(layers).transpose(0, 1)

    def __repr__(self) -> str:
        sizes, layers = self.sizes, coreset_layers(self)
        read = torch.tensor([core.context for core in layers[0].cores or []])  # of each sample, without padding
        share, context = float((sizes.double() / read[:, None, None]).mean()), layers[0].context
        lines = [
            f"PromptCache: {share:.1%} of {context} tokens, {int(sizes.min())} to {int(sizes.max())} a KV head; "
            f"{self.bytes / 1e6:.1f} MB of {self.full_bytes / 1e6:.1f} MB",
        ]
        if not bool(self.errors.isnan().all()):
            worst, heads = self.errors.nan_to_num(-torch.inf).amax(0).flatten().sort(descending=True)
            kv, index = self.errors.shape[-1], [layer.index for layer in layers]
            named = ", ".join(
                f"layer {index[int(h) // kv]} head {int(h) % kv}: {float(e):.2g}"
                for e, h in zip(worst[:_SHOWN], heads[:_SHOWN], strict=True)
            )
            lines.append(
                "error of a head's output over the residual stream, 95th percentile at held-out queries: "
                f"median {float(self.errors.nanmedian()):.2g}; largest {named}"
            )
        return "\n".join(lines)


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
        found = Measured(read(alone, mine[None], asked, construct.chunk, construct.repeated, construct.sloped))
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
    cache = PromptCache(kept, torch.stack(errors), full, marks(whole.decoder))
    attach(model, cache)
    return cache


def _request(construct: ReplayFit | AttentionMatching, tokenizer) -> Int[Tensor, "r"] | None:
    """Returns the tokens of the construct's wording; ValueError where there is none to make them."""
    if not construct.wording:
        return None
    if tokenizer is None:
        raise ValueError(f"wording = {construct.wording!r} needs the model's tokenizer; pass tokenizer=")
    return encode(tokenizer, construct.wording)


def attach(model, cache: PromptCache) -> None:
    """Makes a model ready to continue compressed prompts: by the attention that reads coresets, in branches.

    Raises ValueError for a model that is not supported, or whose weights are not those that made the cache.
    """
    decoder = decoder_of(model)
    check_marks(decoder, cache.marks, coreset_layers(cache)[0].dtype, "the compressed prompt")
    _attend_to_coresets(decoder)
    for module in {id(module): module for module in (model, decoder)}.values():
        if _continue_a_branch not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_continue_a_branch, with_kwargs=True)


def _attend_to_coresets(decoder: Decoder) -> None:
    if decoder.config._attn_implementation != INTERFACE:
        decoder.set_attn_implementation(INTERFACE)


def _continue_a_branch(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """Before a forward: takes a branch in a prompt's place, one of each sample for each row of a larger batch."""
    cache = next((x for x in (*args, *kwargs.values()) if isinstance(x, PromptCache)), None)
    if cache is None:
        return None
    _attend_to_coresets(decoder_of(module))  # a context that was left meanwhile has put back what was before
    twin, samples = branch(cache), coreset_layers(cache)[0].samples
    given = next((x for x in (*args, kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if x is not None), None)
    if given is not None and len(given) != samples:
        if len(given) % samples:
            raise ValueError(f"a batch of {len(given)} cannot continue the {samples} samples of a compressed prompt")
        twin.batch_repeat_interleave(len(given) // samples)
    in_place = [twin if x is cache else x for x in (*args, *kwargs.values())]
    names = [*inspect.signature(type(module).forward).parameters][1:]
    options = dict(zip((*names[: len(args)], *kwargs), in_place, strict=True))
    return (), options if given is None else options | _places(twin, given, options)


def _places(twin: ModelCache, given: Tensor, options: dict[str, Any]) -> dict[str, Tensor]:
    """Returns mask and positions of tokens that follow a prompt, where its padding makes them needed.

    Raises ValueError for tokens that do not follow it: a mask of other columns, or positions within it.
    """
    mask, places, new = options.get("attention_mask"), options.get("position_ids"), given.shape[1]
    layer, length = coreset_layers(twin)[0], twin.get_seq_length()
    read = torch.tensor([layer.read(b) for b in range(layer.samples)], device=given.device)
    inside = places is not None and places.ndim == 2 and bool((places[:, 0] + 1 < read).any())
    if inside or (mask is not None and mask.ndim == 2 and mask.shape[1] != length + new):
        raise ValueError(
            f"{new} tokens do not follow the {length} of a compressed prompt: their mask or positions begin within it; "
            "assisted decoding and prompt lookup read a prompt again behind its own cache: generate without them"
        )
    if places is not None:
        return {}
    known = left_padding(twin, given)
    if mask is None or not known:
        return known
    return {"position_ids": padded(mask, last=new)["position_ids"]} if mask.ndim == 2 else {}
