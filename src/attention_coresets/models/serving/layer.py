"""The cache of one attention layer on coresets: what is kept of each sample, and the tokens that came later.

All state of a running model is here, in the cache that belongs to one conversation. Threads, copies of the model and
contexts within each other therefore share nothing.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from attention_coresets.models.serving.asked import Asked
from attention_coresets.models.serving.held import Held, eager
from attention_coresets.models.serving.plan import Plan, Report, storage_bytes
from attention_coresets.models.serving.ragged import Ragged

_ROLLBACK = 64  # queries kept beyond those asked for, so that rejected candidates can be taken back


class CoresetLayer(CacheLayerMixin):
    """A layer that reads a prompt as any other does, and keeps coresets of it once it is read.

    It reports the logical length, all tokens kept or not, so that positions go on as if nothing had been dropped. Its
    mask is that of the later tokens, those after the last compression.

    A prompt is over when one token comes alone (the answer has begun), when `crop` takes candidates back, or when
    `settle` is called. Until then chunks of any number of tokens belong to it. Then its plan compresses it, before the
    next token is appended.

    Parameters
    ----------
    index : int
        Which layer of the model.
    plan : Plan, optional
        Who compresses it. None: it stays as it is, and later tokens are kept.
    calibration : int, optional
        Of how many last positions to keep the queries beside what the plan wants. None: padding is not noted either.
    """

    is_sliding = False
    supports_early_init = False

    def __init__(self, index: int, plan: Plan | None = None, calibration: int | None = None) -> None:
        self.index, self.plan, self.calibration = index, plan, calibration
        self.report = Report()  # shared by the layers of a cache
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the layer is as new."""
        self.is_initialized = False
        self.cores: list[Ragged] | None = None  # one a sample; None: all tokens are among the later ones
        self.context = 0  # columns of the text that the cores stand for, padding too
        self.later: tuple[Tensor, ...] = ()  # keys and values [b, kv, t, d]
        self.real: Bool[Tensor, "b t"] | None = None  # which later tokens count in each sample; None: all
        self.asked: Asked | None = None
        self.softcap: float | None = None  # of the logits, as the model's attention was last told
        self.reading = True  # the last tokens were of a prompt that may not be over
        self.noted = 0  # bytes in the report
        self.prompted = False  # the next token belongs to a prompt, even if it comes alone
        self.fresh = True  # no prompt has been over yet
        self.still = False  # no later context is to compress it

    # What transformers asks of a layer.

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.later = key_states[..., :0, :], value_states[..., :0, :]
        self.is_initialized = True

    @eager
    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Any, Any]:
        """Compresses what is due, and returns what `attention` appends; appends itself where nothing is to be known."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        answering = key_states.shape[-2] == 1 and not self.prompted
        if self.get_seq_length() and (answering or not self.reading):
            self.settle()
        if self.cores is None and not self.watched:
            self.append(key_states, value_states)
            return self.later[0], self.later[1]
        return Held(self, key_states), Held(self, value_states)

    def append(self, keys: Float[Tensor, "b kv q d"], values: Float[Tensor, "b kv q dv"]) -> None:
        """Adds new tokens, all of which count until `see` says otherwise."""
        tokens = keys.shape[-2]
        self.reading = tokens > 1 or self.prompted or self.get_seq_length() == 0
        self.later = tuple(torch.cat(pair, dim=-2) for pair in zip(self.later, (keys, values), strict=True))
        if self.real is not None:
            self.real = torch.nn.functional.pad(self.real, (0, tokens), value=True)

    def get_seq_length(self) -> int:
        """Returns the logical length: all tokens, kept or not."""
        return self.context + self.count

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Returns the number of later tokens and the place of the first: coresets need no mask."""
        return self.count + query_length, self.context

    def crop(self, tokens_to_remove: int) -> None:
        """Takes the last -tokens_to_remove tokens back; a prompt is over then.

        Raises ValueError for a positive number, and where that would cut into a coreset.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}) is not known; crop(-k) takes the last k tokens back")
        removed = -tokens_to_remove
        if removed > self.count:
            raise ValueError(f"cannot remove {removed} tokens: only {self.count} came after the coreset")
        if removed:
            self.later = tuple(x[..., :-removed, :] for x in self.later)
            self.real = None if self.real is None else self.real[:, :-removed]
            self.asked = None if self.asked is None else self.asked.without_last(removed)
        if self.reading and self.fresh:
            self.settle()
        self.reading = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(self.samples).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        if not self.is_initialized:
            return
        self.later = tuple(x[indices.to(x.device)] for x in self.later)
        self.real = None if self.real is None else self.real[indices.to(self.real.device)]
        self.asked = None if self.asked is None else self.asked.select(indices.to(self.device))
        if self.cores is not None:
            self.cores = [self.cores[sample] for sample in torch.arange(len(self.cores))[indices.cpu()].tolist()]

    # What attention and the plan ask.

    @property
    def count(self) -> int:
        """Returns the number of later tokens."""
        return self.later[0].shape[-2] if self.later else 0

    @property
    def samples(self) -> int:
        return self.later[0].shape[0] if self.later else 0

    @property
    def heads(self) -> int:
        """Returns the number of KV heads."""
        return self.later[0].shape[1] if self.later else 0

    def stored(self, sample: int) -> int:
        """Returns how many tokens are stored of a sample, in the head that keeps most."""
        kept = 0 if self.cores is None else max(self.cores[sample].sizes)
        return kept + (self.count if self.real is None else int(self.real[sample].sum()))

    def read(self, sample: int) -> int:
        """Returns how many tokens of a sample were read, kept or not, padding aside."""
        later = self.count if self.real is None else int(self.real[sample].sum())
        return later + (0 if self.cores is None else self.cores[sample].context)

    @property
    def most(self) -> int:
        return max((self.stored(sample) for sample in range(self.samples)), default=0)

    @property
    def bytes(self) -> int:
        """Returns the memory of what is stored, the queries kept for the next compression aside."""
        return storage_bytes(self.tensors())

    @property
    def active(self) -> Plan | None:
        """Returns the plan, if it is open."""
        return self.plan if self.plan is not None and self.plan.open else None

    @property
    def watched(self) -> bool:
        """Tells whether attention must hand over its queries or its mask."""
        return self.active is not None or self.calibration is not None

    def settle(self) -> None:
        """Says that what was read so far is whole: the plan, if any, compresses what is due."""
        plan = self.active
        if plan is None or not self.is_initialized:
            return
        if self.fresh or plan.due(self):
            before, context = self.bytes, self.most
            if plan.due(self):
                plan.compress(self)
            self._note(before, context)
        self.reading = self.fresh = False

    def _note(self, before: int, context: int) -> None:
        if self.fresh:
            self.report.context = context
            self.report.bytes_before += before
        self.report.size = self.most if self.cores is None else max(max(core.sizes) for core in self.cores)
        self.report.bytes_after += self.bytes - self.noted
        self.noted = self.bytes

    def see(self, columns: Bool[Tensor, "b t"]) -> None:
        """Notes which of the later tokens are no padding."""
        if self.real is not None:
            columns = columns & self.real
        self.real = None if bool(columns.all()) else columns

    def ask(self, queries: Float[Tensor, "b heads q d"]) -> None:
        """Keeps the queries of the last positions, where they are wanted."""
        plan = self.active
        wanted = max(self.calibration or 0, 0 if plan is None else plan.wanted(self))
        if wanted:
            b, _, new, _ = queries.shape
            real = torch.ones(b, new, dtype=torch.bool, device=queries.device)
            asked = Asked(queries.detach(), real if self.real is None else self.real[:, -new:])
            self.asked = asked if self.asked is None else self.asked.then(asked, wanted + _ROLLBACK)

    def replace(self, cores: list[Ragged], moved: Bool[Tensor, "b"], compressed: Bool[Tensor, "b"]) -> None:
        """Takes cores in place of the later tokens of the samples that moved; leading columns without any token go.

        What was asked before counts no more for samples that were compressed.
        """
        self.cores, self.asked = cores, None if self.asked is None else self.asked.silenced(compressed)
        left = torch.ones_like(self.later[0][:, 0, :, 0], dtype=torch.bool) if self.real is None else self.real
        left = left & ~moved[:, None]
        some = left.any(dim=0)
        gone = int(some.to(torch.uint8).argmax()) if bool(some.any()) else self.count
        self.context += gone
        # copies, so that the memory of what is gone is freed
        self.later = tuple(x[..., gone:, :].clone() for x in self.later)
        left = left[:, gone:]
        self.real = None if bool(left.all()) else left

    # What readers of a cache ask.

    def even(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Returns keys, values ``[b, kv, m, d]``, places and log-weights ``[b, kv, m]`` of coresets of one size.

        Raises ValueError where heads keep different numbers of tokens; `cores` has each sample's then.
        """
        sizes = {size for core in self.cores or [] for size in core.sizes}
        if self.cores is None or len(sizes) != 1:
            kept = f"{min(sizes)} to {max(sizes)} tokens" if sizes else "no coresets"
            raise ValueError(f"layer {self.index} keeps {kept} a head, no rectangle; read `cores`, sample by sample")
        keys, values, weights = zip(*(core.even() for core in self.cores), strict=True)
        indices = torch.stack([core.indices.unflatten(0, (len(core.sizes), -1)) for core in self.cores])
        known = [w for w in weights if w is not None]
        filled = [torch.zeros_like(known[0]) if w is None else w for w in weights] if known else None
        return torch.stack(keys), torch.stack(values), indices, None if filled is None else torch.stack(filled)

    @property
    def keys(self) -> Float[Tensor, "b kv m d"] | None:
        """Returns all stored keys, where that is a rectangle."""
        return self._stored(0)

    @property
    def values(self) -> Float[Tensor, "b kv m dv"] | None:
        return self._stored(1)

    @property
    def size(self) -> int:
        """Returns how many tokens each head keeps in its coreset, where they are alike."""
        return self.even()[2].shape[-1]

    @property
    def indices(self) -> Int[Tensor, "b kv m"]:
        return self.even()[2]

    @property
    def log_weights(self) -> Float[Tensor, "b kv m"] | None:
        return self.even()[3]

    def _stored(self, part: int) -> Tensor | None:
        if self.cores is None:
            return self.later[part] if self.later else None
        keys, values, *_ = self.even()
        return torch.cat([(keys, values)[part], self.later[part]], dim=-2)

    def tensors(self) -> Iterator[Tensor]:
        """Yields what is stored, the queries kept for the next compression aside."""
        yield from self.later
        if self.real is not None:
            yield self.real
        for core in self.cores or []:
            yield from (x for x in vars(core).values() if isinstance(x, Tensor))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"plan": None}  # a pickled cache goes on in a context of its own

    def __deepcopy__(self, memo: dict) -> "CoresetLayer":
        twin = copy.copy(self)
        vars(twin).update(copy.deepcopy({k: v for k, v in vars(self).items() if k != "plan"}, memo))
        twin.plan = self.plan  # whoever compresses this one compresses its copy
        return twin
