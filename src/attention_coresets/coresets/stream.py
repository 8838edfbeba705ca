"""Keeps a coreset of a stream of tokens in bounded memory: merge and reduce, with the weights of what was dropped."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.running import RunningMoments
from attention_coresets.attention import Cache, Coreset, WeightedCache
from attention_coresets.checks import whole
from attention_coresets.coresets.balancing.base import Balancing
from attention_coresets.coresets.balancing.refinement import ROUND_SWAPS
from attention_coresets.coresets.base import Construction, check_generators, check_size
from attention_coresets.coresets.catalogue import CORESETS, make_coreset
from attention_coresets.coresets.two_stage import TwoStage
from attention_coresets.inputs import (
    Array,
    Generators,
    Seeds,
    check_key_size,
    generators_of,
    least_float32,
    tensor,
)
from attention_coresets.theory import check_rho

_KEEP_WEIGHTS = ("none", ROUND_SWAPS)  # refinements that leave tokens the weights of their marginals
_LEAST = 4  # memory in units of width: a buffer of two and two buckets to merge


@dataclass(frozen=True, kw_only=True)
class HeldCoreset(Coreset):
    """A coreset of a stream, which holds its own keys and values; its indices count the stream's tokens from 0.

    Parameters
    ----------
    indices : Int[Tensor, "*heads m"]
    log_weights : Float[Tensor, "*heads m"], optional
        None: all zero.
    keys : Float[Tensor, "*heads m d"]
    values : Float[Tensor, "*heads m dv"]
    """

    keys: Float[Tensor, "*heads m d"]
    values: Float[Tensor, "*heads m dv"]

    def __getitem__(self, head) -> "HeldCoreset":
        """Returns the coreset of one head, or of a slice of the leading axes."""
        return self._with(super().__getitem__(head), self.keys[head], self.values[head])

    def flat(self) -> "HeldCoreset":
        """Returns the same coreset with one axis of heads."""
        return self._with(super().flat(), *(x.reshape(-1, *x.shape[-2:]) for x in (self.keys, self.values)))

    @staticmethod
    def _with(coreset: Coreset, keys: Tensor, values: Tensor) -> "HeldCoreset":
        return HeldCoreset(coreset.indices, coreset.log_weights, keys=keys, values=values)


@dataclass(frozen=True)
class _Bucket:
    """Weighted tokens, their places in the stream ``[*heads, m]``, and how many tokens of it they stand for."""

    cache: WeightedCache
    places: Int[Tensor, "*heads m"]
    read: int

    def joined(self, later: "_Bucket") -> "_Bucket":
        """Joins this bucket and one that was read after it."""
        keys = torch.cat([self.cache.keys, later.cache.keys], dim=-2)
        values = torch.cat([self.cache.values, later.cache.values], dim=-2)
        log_weights = torch.cat([self.cache.log_weights, later.cache.log_weights], dim=-1)
        places = torch.cat([self.places, later.places], dim=-1)
        return _Bucket(WeightedCache(keys, values, log_weights), places, self.read + later.read)


class Stream:
    """Reads tokens in blocks of any length and holds at most `memory` of them a head, whatever the blocks.

    Let width be `size`, or keep * size for a TwoStage. Every 2 * width tokens read become a bucket of `width` weighted
    ones. The two last buckets are merged and halved as soon as the older one stands for no more tokens than the other,
    or when one bucket more would not fit. So there are never more than log2(n / width) buckets, nor more than
    memory // width - 2.

    `construct` does each reduction, on weighted tokens; a TwoStage does them by its first stage, and what they leave
    goes through its second when a coreset is asked. A tilted one tilts the tokens it is given, so weights stay
    unbiased although p* of the whole stream is not known: by rules that keep the mean (coin, walks, draws), without
    swaps. An unweighted one keeps tokens in proportion to their weights, and the last weights are equal. Where the
    error of one reduction falls like 1 / size, that of the stream is about sqrt(2) times the last reduction's.

    Cost: n / width reductions of 2 * width tokens. Beyond the tokens held, the memory of one reduction.

    Parameters
    ----------
    construct : Construction or str
        One with `takes_weights`, or its name: tilted or unweighted, and but for a second stage without refinement, or
        with "round_swaps".
    size : int
        Tokens of the coreset.
    rho : float
        The largest norm of a query that the coreset is to answer.
    memory : int, optional
        Tokens held a head, at least 4 * width. None: 8 * width.
    generator : torch.Generator or int, or a sequence of them, optional
        One for all heads, or one a head. An int is a seed. None: seed 0.
    certify : bool
        Keep the sums that `ceiling` needs: about d^2 dv numbers a head, and 2 d^2 dv flops a token.

    Raises
    ------
    ValueError
        For another construction, size < 1, rho that is not positive, or less memory.
    """

    def __init__(
        self,
        construct: Construction | str,
        size: int,
        rho: float,
        memory: int | None = None,
        generator: Seeds = None,
        certify: bool = False,
    ) -> None:
        size, rho = check_size(size), check_rho(rho)
        self.construct = make_coreset(construct) if isinstance(construct, str) else construct
        stages = self.construct if isinstance(self.construct, TwoStage) else None
        self._reducer = self.construct if stages is None else stages.thinning
        _check_reducer(self._reducer)
        width = size if stages is None else stages.keep * size
        self.memory = 2 * _LEAST * width if memory is None else whole("memory", memory)
        if self.memory < _LEAST * width:
            of = "size" if stages is None else "keep * size"
            raise ValueError(f"memory must be at least {_LEAST} * {of} = {_LEAST * width} tokens, got {memory}")
        self.size, self.rho, self._width = size, rho, width
        self.generator = generators_of(0 if generator is None else generator)
        self.n, self.certify = 0, certify  # tokens read
        self._moments: RunningMoments | None = None
        self._buckets: list[_Bucket] = []
        self._keys: Tensor | None = None  # [*heads, 2 * width, d], of which the first self._filled are the last read
        self._values: Tensor | None = None
        self._filled = 0
        self._whole = True  # no block was left in its middle

    @property
    def held(self) -> int:
        """Returns how many tokens are held a head; never more than `memory`."""
        return self._filled + sum(bucket.places.shape[-1] for bucket in self._buckets)

    def add(self, keys: Float[Array, "*heads b d"], values: Float[Array, "*heads b dv"]) -> None:
        """Reads a block, which may have no token.

        Raises ValueError for NaN or Inf, keys above 1e15, generators that do not fit the heads, or heads, dimensions,
        dtype or device unlike the first block's: such a block is not read. An error in the middle of a block (memory
        that ends, or keys too far apart for the tilt) leaves the stream of no use: RuntimeError from then on.
        """
        self._check_whole()
        keys, values = tensor("keys", keys).detach(), tensor("values", values).detach()
        if keys.dim() >= 2 and keys.shape[-2] == 0 and keys.shape[:-1] == values.shape[:-1]:
            if self._keys is not None and self._values is not None:
                _check_like(keys, self._keys, "keys")
                _check_like(values, self._values, "values")
            return
        block = Cache(keys, values)
        check_key_size(block.keys)
        if self._keys is None or self._values is None:
            check_generators(self.generator, block)
            self._keys, self._values = (_buffer(t, 2 * self._width) for t in (block.keys, block.values))
        _check_like(block.keys, self._keys, "keys")
        _check_like(block.values, self._values, "values")
        self._whole = False
        start = 0
        while start < block.n:
            stop = min(block.n, start + 2 * self._width - self._filled)
            for buffer, part in ((self._keys, block.keys), (self._values, block.values)):
                buffer[..., self._filled : self._filled + stop - start, :] = part[..., start:stop, :]
            self.n, self._filled, start = self.n + stop - start, self._filled + stop - start, stop
            if self._filled == 2 * self._width:
                self._moments = self._sums() if self.certify else None
                self._buckets.append(self._reduced(self._buffered(), self.generator))
                self._filled = 0
                self._settle()
        self._whole = True

    def coreset(self) -> HeldCoreset:
        """Returns a coreset of all that was read: exactly `size` tokens, or every token while there are no more.

        The stream may go on as if this had not been asked. Asked twice, it answers the same. Raises ValueError before
        the first block.
        """
        self._check_whole()
        if self.n == 0:
            raise ValueError("the stream has read no token; add a block first")
        generator = _copied(self.generator)
        parts = [*self._buckets, self._buffered()] if self._filled else list(self._buckets)
        rest = parts.pop()
        while parts or rest.places.shape[-1] > self._width:
            large = rest.places.shape[-1] > self._width
            rest = self._reduced(rest, generator) if large else parts.pop().joined(rest)
        if rest.places.shape[-1] > self.size:
            assert isinstance(self.construct, TwoStage), "others are of this width already"
            rest = self._by(self.construct.second, self.size, rest, generator)
        plain = self.n <= self.size or self.construct.model == "unweighted"
        weights = None if plain else rest.cache.log_weights.to(least_float32(rest.cache.keys.dtype), copy=True)
        # copies: `rest` may be a bucket of the stream
        return HeldCoreset(rest.places.clone(), weights, keys=rest.cache.keys.clone(), values=rest.cache.values.clone())

    def ceiling(self, coreset: Coreset) -> Float[Tensor, "*heads"]:
        """Returns for each head a number that the error exceeds at no query |q| <= rho, proven: of all tokens so far.

        The error is |Attn - Attn_coreset|, float64, in the unit of the values. `RunningMoments.ceiling` has the proof:
        it knows the sums over the stream up to degree 2 exactly, and the rest by how far keys spread along their widest
        direction. So it is near the error where rho is small, and far above it where a few directions hold the keys.

        The sums are about the mean of the first 2 * width tokens, or of all while these are fewer, however blocks are
        cut.

        Raises ValueError for a stream without `certify`, one that has read no token, or a coreset that holds no keys
        and values or is of other heads.
        """
        self._check_whole()
        if not self.certify or self._keys is None or self._values is None:
            raise ValueError("the stream has kept no sums; make it with certify=True and add a block")
        if not isinstance(coreset, HeldCoreset):
            raise ValueError(f"a ceiling needs a coreset of the stream, got {type(coreset).__name__}; pass .coreset()")
        _check_like(coreset.keys, self._keys, "the coreset's keys")
        _check_like(coreset.values, self._values, "the coreset's values")
        log_weights = torch.zeros_like(coreset.indices) if coreset.log_weights is None else coreset.log_weights
        weights = log_weights.to(torch.float64).softmax(dim=-1).reshape(-1, coreset.size)
        kept = Cache(coreset.keys, coreset.values).flat()
        return self._sums().ceiling(kept, weights, self.rho).reshape(coreset.indices.shape[:-1])

    def _sums(self) -> RunningMoments:
        """Returns the sums over all that was read, about the mean of the first buffer."""
        if not self._filled and self._moments is not None:
            return self._moments
        last = self._buffered().cache
        plain = Cache(last.keys, last.values).flat()
        moments = RunningMoments.about(plain) if self._moments is None else replace(self._moments)
        moments.add(plain)
        return moments

    def _check_whole(self) -> None:
        if not self._whole:
            raise RuntimeError("an error has left a block read in part; begin a new stream")

    def _buffered(self) -> _Bucket:
        assert self._keys is not None, "a block was read"
        assert self._values is not None, "a block was read"
        keys, values = (t[..., : self._filled, :].clone() for t in (self._keys, self._values))
        places = torch.arange(self.n - self._filled, self.n, device=keys.device).expand(keys.shape[:-1])
        return _Bucket(WeightedCache(keys, values, torch.zeros_like(places, dtype=torch.float64)), places, self._filled)

    def _settle(self) -> None:
        """Merges the last buckets until each stands for fewer tokens than the one before, and one more would fit."""
        fit = self.memory // self._width - 2
        while len(self._buckets) > 1:
            older, last = self._buckets[-2:]
            if older.read > last.read and len(self._buckets) <= fit:
                break
            self._buckets[-2:] = [self._reduced(older.joined(last), self.generator)]

    def _reduced(self, bucket: _Bucket, generator: Generators) -> _Bucket:
        return self._by(self._reducer, self._width, bucket, generator)

    def _by(self, construct: Construction, size: int, bucket: _Bucket, generator: Generators) -> _Bucket:
        coreset = construct(bucket.cache, size, self.rho, generator)
        assert coreset.log_weights is not None, "a coreset of weighted tokens carries weights"
        cache = WeightedCache(*bucket.cache.take(coreset.indices), coreset.log_weights)
        return _Bucket(cache, bucket.places.gather(-1, coreset.indices), bucket.read)


def _check_reducer(construct: object) -> None:
    """Raises ValueError unless the construction counts weighted tokens and gives them their marginals' weights."""
    if not isinstance(construct, Construction) or not construct.takes_weights:
        known = ", ".join(name for name, kind in CORESETS.items() if kind.takes_weights)
        raise ValueError(f"{construct!r} does not count weighted tokens; a stream takes one of {known}")
    if construct.model == "free" or (isinstance(construct, Balancing) and construct.refinement not in _KEEP_WEIGHTS):
        but = f"no free model, no refinement but {ROUND_SWAPS}"
        raise ValueError(f"tokens of a stream keep the weights of their marginals: {but}")


def _buffer(block: Tensor, tokens: int) -> Tensor:
    """Returns room for tokens like these, which may be written to inside and outside of torch.inference_mode."""
    with torch.inference_mode(False):
        return block.new_empty(*block.shape[:-2], tokens, block.shape[-1])


def _check_like(block: Tensor, buffer: Tensor, name: str) -> None:
    wanted = (*buffer.shape[:-2], "b", buffer.shape[-1])
    if block.shape[:-2] != buffer.shape[:-2] or block.shape[-1] != buffer.shape[-1]:
        raise ValueError(f"{name} {tuple(block.shape)} must have the first block's shape {wanted}")
    if block.dtype != buffer.dtype or block.device != buffer.device:
        raise ValueError(f"{name} must stay {buffer.dtype} on {buffer.device}, got {block.dtype} on {block.device}")


def _copied(generator: Generators) -> Generators:
    """Returns generators that go on like these and leave them as they are; one that is there twice stays one."""
    if isinstance(generator, torch.Generator):
        return _copy(generator)
    copies = {id(g): _copy(g) for g in generator}
    return [copies[id(g)] for g in generator]


def _copy(generator: torch.Generator) -> torch.Generator:
    return torch.Generator(generator.device).set_state(generator.get_state())
