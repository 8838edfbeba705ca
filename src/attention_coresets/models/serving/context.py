"""Generates on coresets: `with compressed(model, construct, size=...)`."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import torch
from torch import nn

from attention_coresets.coresets.base import Construction
from attention_coresets.models.checkpointing import check_no_checkpointing
from attention_coresets.models.serving.adoption import adopt, new_cache
from attention_coresets.models.serving.attention import attending, decoder_of
from attention_coresets.models.serving.caches import ModelCache, coreset_layers
from attention_coresets.models.serving.calls import (
    check_cache_is_used,
    check_no_attentions,
    in_a_prompt,
    leaves_out_ones,
    named,
    tokens_of,
)
from attention_coresets.models.serving.compression import Compression, drawn_seed
from attention_coresets.models.serving.held import eager
from attention_coresets.models.serving.layout import Layout
from attention_coresets.models.serving.masks import check_shown
from attention_coresets.models.serving.plan import Report


class Compressed:
    """What a context did: to the last prompt, and how many prompts there were."""

    def __init__(self) -> None:
        self.prompts = 0
        self._last: Report = Report()
        self._cache: ModelCache | None = None

    def see(self, cache: ModelCache, new: bool) -> None:
        """Notes a cache that is read; the last that began a prompt is held until it is compressed or another begins."""
        if new:
            self._last, self._cache, self.prompts = coreset_layers(cache)[0].report, cache, self.prompts + 1
        elif cache is self._cache and not coreset_layers(cache)[0].fresh:
            self._cache = None

    @property
    def report(self) -> Report:
        """Returns what became of the last prompt; while it is being read, what of it is stored."""
        layers = coreset_layers(self._cache)
        if not any(layer.fresh and layer.is_initialized for layer in layers):
            self._cache = None
            return self._last
        stored = sum(layer.bytes for layer in layers)
        return Report(stored, stored, layers[0].get_seq_length(), layers[0].most)

    @property
    def bytes_before(self) -> int:
        return self.report.bytes_before

    @property
    def bytes_after(self) -> int:
        return self.report.bytes_after

    @property
    def context(self) -> int:
        return self.report.context

    @property
    def size(self) -> int:
        return self.report.size

    def __repr__(self) -> str:
        return f"Compressed(prompts={self.prompts}, last={self.report})"


@dataclass(eq=False)
class _Open:
    """A context that is open."""

    plan: Compression
    handle: Compressed
    within: tuple[str, ...]  # the contexts around it, where it was entered
    caches: "weakref.WeakSet[Any]" = field(default_factory=weakref.WeakSet)
    lock: threading.Lock = field(default_factory=threading.Lock)


_OPEN: dict[str, _Open] = {}
_WITHIN: ContextVar[tuple[str, ...]] = ContextVar("attention_coresets_contexts", default=())


@dataclass(frozen=True)
class _Door:
    """A hook before a forward of a model or its decoder: it makes every new cache one that holds coresets.

    It knows its context by name alone. So a copy of the model, or one unpickled in this process, is served as the model
    itself while the context is open, and runs as usual after that and everywhere else.
    """

    key: str

    @eager
    def __call__(self, module: nn.Module, args: tuple, kwargs: dict | None = None) -> tuple[tuple, dict] | None:
        if kwargs is None:  # torch forgets that a hook takes them while another thread removes it
            return None
        if self.key not in _OPEN or _chosen(module) != self.key:
            return None
        context = _OPEN[self.key]
        given = named(module, args, kwargs)
        if given is None:
            return None
        decoder = context.plan.decoder
        check_cache_is_used(module, given)
        check_no_attentions(module, given)
        check_no_checkpointing(module)
        cache = given.get("past_key_values")
        if cache is None:
            cache = given["past_key_values"] = new_cache(decoder)
        new, tokens = adopt(cache, decoder, context.plan), tokens_of(given)
        if tokens is not None:
            first, whole = coreset_layers(cache)[0], leaves_out_ones(module)
            check_shown(given.get("attention_mask"), first, tokens.shape[1], whole)
        with context.lock:
            if new:
                context.caches.add(cache)
            context.handle.see(cache, new)
        for layer in coreset_layers(cache):
            layer.prompted = in_a_prompt()
        return (), given


def _chosen(module: nn.Module) -> str:
    """Returns the context that serves this thread: the innermost it entered, else the innermost there is.

    Raises ValueError where other threads opened several, none within another.
    """
    hooks = module._forward_pre_hooks.values()
    here = [hook.key for hook in hooks if isinstance(hook, _Door) and hook.key in _OPEN]
    own = [key for key in _WITHIN.get() if key in here]
    if own:
        return own[-1]
    inner = max(here, key=lambda key: len(_OPEN[key].within))
    if set(here) - {inner, *_OPEN[inner].within}:
        raise ValueError(
            f"{len(here)} threads run this model on coresets, each in a context of its own, and this thread in none; "
            "enter `with compressed(model, ...)` in the thread that generates"
        )
    return inner


@contextmanager
def compressed(
    model,
    construct: Construction,
    size: int | float,
    keep_recent: int = 0,
    rho: float = 4.0,
    calibration: int = 512,
    seed: int | torch.Generator = 0,
    hold: bool = True,
    short: str = "keep",
) -> Iterator[Compressed]:
    """Runs a transformers decoder on coresets: ``with compressed(model, construct, size=512) as handle: ...``.

    A prompt is read with usual attention, in one forward or in chunks. Once it is over, the cache of each layer with
    full attention is replaced, in place, by a coreset of `size` tokens for each sample and KV head. That is when the
    first token of an answer comes alone, when rejected candidates are taken back (assisted decoding), or when the
    context is left, whichever comes first. Layers with a sliding window are bounded already and stay, and so do those
    without tokens. Later tokens are appended, and positions go on as if nothing had been dropped.

    All state is in the cache that the model returns. Threads may generate at the same time, batches may be padded on
    the left, and each sample gets the coreset that it would get alone. Contexts may be entered within each other: the
    innermost of the thread serves it. A cache can be continued inside this or a later context, and nowhere else.
    docs/serving.md lists what works and what is refused. The model is restored on exit.

    Cost: the whole cache in memory until the prompt is read, then size / context of it.

    Parameters
    ----------
    model
        A transformers decoder that takes another attention function (AttentionInterface).
    construct : Construction
    size, keep_recent, rho, seed
        As in `compress`.
    calibration : int
        Of how many last positions before the `keep_recent` ones to keep the queries, for constructions that need them.
    hold : bool
        Hold later turns and long answers to the budget too: whenever a sample stores size + max(size, 32) tokens and no
        prompt is being read, it is compressed again. False: all tokens after the first prompt are kept. Padding behind
        an answer that ended before others of its batch counts as tokens until a mask hides it, and once compressed it
        cannot be hidden: a later turn that does so is refused.
    short : str
        What becomes of prompts of at most `size` tokens, or of so few that a share of them leaves no room beside the
        `keep_recent` last: "keep" all their tokens, or "refuse" them.

    Yields
    ------
    Compressed
        What the last prompt became.

    Raises
    ------
    ValueError
        At once: a model without AttentionInterface, sizes that fit no context, calibration < 1. At the prompt: extra
        sinks, padding on the right, another cache than DynamicCache, no cache at all. When it is compressed: NaN or
        Inf, or what the construction refuses. Later: a mask that hides what was compressed, or shows padding.
    """
    if calibration < 1:
        raise ValueError(f"calibration must be at least 1 query, got {calibration}")
    layout, decoder = Layout(size, keep_recent, short), decoder_of(model)
    plan = Compression(construct, layout, rho, drawn_seed(seed), decoder, asked=calibration, hold=hold)
    key, context = uuid4().hex, _Open(plan, Compressed(), _WITHIN.get())
    with ExitStack() as stack:
        stack.enter_context(attending(decoder))
        for module in {id(module): module for module in (model, decoder)}.values():
            stack.callback(module.register_forward_pre_hook(_Door(key), with_kwargs=True).remove)
        _OPEN[key] = context
        _WITHIN.set((*_WITHIN.get(), key))
        try:
            yield context.handle
            _settle(context)
        finally:
            del _OPEN[key]
            _WITHIN.set(tuple(other for other in _WITHIN.get() if other != key))
            plan.open = False


def _settle(context: _Open) -> None:
    """Compresses the prompts that nobody has continued."""
    with context.lock:
        caches = list(context.caches)
    for cache in caches:
        for layer in coreset_layers(cache):
            if layer.fresh:
                layer.settle()
