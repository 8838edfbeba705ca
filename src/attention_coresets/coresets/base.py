"""Defines the type of a construction: what it is asked for, what it needs, takes and promises, and how it is called."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from attention_coresets.attention import Cache, Coreset, WeightedCache, base_weights, calm
from attention_coresets.checks import whole
from attention_coresets.coresets.agreement import Agreement
from attention_coresets.coresets.randomness import draw
from attention_coresets.coresets.shared import Shared
from attention_coresets.devices import one_line_of_memory, warn_if_slow
from attention_coresets.inputs import (
    Array,
    Generators,
    Seeds,
    check_finite,
    generators_of,
    least_float32,
    tensor,
    whole_numbers,
)
from attention_coresets.masked import masked_tokens, without_masked
from attention_coresets.theory import check_rho

MODELS = ("tilted", "unweighted", "free")  # of a coreset; see `Construction.model`


class Cost(NamedTuple):
    """Roughly what a coreset of one head takes: float64 numbers held at once beside the cache, and flops."""

    numbers: float
    flops: float


@dataclass(frozen=True)
class Request:
    """What a construction is asked for, already checked: 1 <= size < n, rho > 0, and all that its flags say it needs.

    Parameters
    ----------
    cache : Cache
        float64, whatever the caller's dtype: tokens are those of the float64 computation on the caller's very bits.
        Values are the caller's but for a power of 2 (`calm` of attention.py).
    size : int
        Tokens of each head to keep.
    rho : float
        The largest norm of a query that the coreset is to answer.
    generator : torch.Generator or a sequence of them
        One for all heads, or one a head.
    queries : Float[Tensor, "*heads group b d"], optional
        As given to the call. Where `needs_queries` is set they are there, in the cache's dtype and on its device.
    positions : Int[Tensor, "*heads n"], optional
        As given to the call.
    shared : Shared, optional
        As given to the call.
    """

    cache: Cache
    size: int
    rho: float
    generator: Generators
    queries: Float[Tensor, "*heads group b d"] | None = None
    positions: Int[Tensor, "*heads n"] | None = None
    shared: Shared | None = None

    @property
    def heads(self) -> int:
        """Returns the number of heads, leading axes multiplied."""
        return self.cache.heads.numel()

    @cached_property
    def rank(self) -> Int[Tensor, "*heads n"]:
        """Returns each token's place in the text, 0 the first; without positions, its place in the cache."""
        return place_in_text(self.positions, self.cache)

    @property
    def asked(self) -> Float[Tensor, "*heads group b d"]:
        """Returns the queries, for a construction with `needs_queries`."""
        assert self.queries is not None, "needs_queries was checked by the call"
        return self.queries


class Construction(ABC):
    """A rule that picks a coreset: a frozen dataclass of its parameters, with one method, `choose`.

    Inherit from it, set `model`, write `choose`, and call the object:

        construct(cache, size=256, rho=2.0, generator=g) -> Coreset

    The call checks what it is asked and what comes back, so `choose` need not. Flags are class attributes; those that
    depend on parameters are fields or properties. A flag that a class leaves out has the value given here.
    `attention_coresets.check_construction` tries a construction on small caches and says in one line what is wrong.
    """

    # What it takes. `takes_weights`: a WeightedCache, whose log-weights it then counts. Tokens that these mask
    # (masked.py) never reach `choose`.
    takes_weights: bool = False
    # What it needs. `needs_queries`: queries of the model, `[*heads, group, b, d]`: those of the last b positions of
    # the text in the cache, from each of the `group` query heads that share a KV head. `moved`: these as if they were
    # asked at the b positions after the cache. `needs_positions`: each token's position in that text.
    needs_queries: bool = False
    moved: bool = False
    needs_positions: bool = False
    # `model_units`: keys, values and queries as a model computes them, where a cache of a model is given centred and
    # scaled otherwise; implied by `needs_queries`.
    model_units: bool = False
    # `evicts`: what it drops is gone: in a running model each token it keeps counts once beside those that come later.
    # Otherwise each of m kept tokens, if without weights, stands for n / m of the n.
    evicts: bool = False
    # `sinks`: how many first tokens of the text it always keeps; the size asked must be larger.
    sinks: int = 0
    # What it promises. `model`, which has no default: "unweighted", tokens without weights; "tilted", weights that
    # follow from the marginals of a sampling law; "free", any weights.
    model: str
    # How far two runs on the same input may differ by rounding (see `Agreement`).
    agreement: Agreement = Agreement.TOKENS

    @property
    def in_model_units(self) -> bool:
        """Tells whether keys and values of a model are given as the model computes them."""
        return self.model_units or self.needs_queries

    @abstractmethod
    def choose(self, request: Request) -> Coreset:
        """Picks `request.size` distinct tokens of every head, sorted, on the cache's device.

        `log_weights` are float64, or None in the model "unweighted". Random numbers come from
        `request.generator` alone, best by `randomness.draw`, so that a head is the same in every batch.
        """

    def cost(self, n: int, size: int, d: int) -> Cost:
        """Estimates the cost of `size` of n tokens in R^d, by which sweeps refuse what would never end.

        Here that of a rule that looks at all tokens once for each token kept.
        """
        return Cost(4 * n * d, 4 * n * size * d)

    def __call__(
        self,
        cache: Cache,
        size: int,
        rho: float,
        generator: Seeds = None,
        queries: Float[Array, "*heads group b d"] | None = None,
        positions: Int[Array, "*heads n"] | None = None,
        *,
        shared: Shared | None = None,
    ) -> Coreset:
        """Picks a coreset of exactly `size` tokens a head, for queries of norm at most rho; all tokens if size >= n.

        Parameters
        ----------
        cache : Cache
            Keys ``[*heads, n, d]`` and values ``[*heads, n, dv]``.
        size : int
            Tokens of each head to keep.
        rho : float
            The largest norm of a query that the coreset is to answer.
        generator : torch.Generator or int, or a sequence of them, optional
            One for all heads, or one a head, which makes a head independent of its batch. An int is a seed. None: fresh
            random numbers, so that another call gives another coreset. Numbers are drawn on the CPU: a generator of
            another device draws the seed of a new one.
        queries, positions : Tensor, optional
            See the flags of the class. Constructions that do not need them ignore them. Without positions the tokens
            are taken to be in the order of the text.
        shared : Shared, optional
            Passed again for each of several sizes: what they have in common is found once, and tokens stay the same.

        Returns
        -------
        Coreset
            Indices ``[*heads, size]``, distinct and sorted, and log-weights of that shape or None, in the widest dtype
            of the cache and at least float32.

        Raises
        ------
        ValueError
            For a size that is no whole number, below 1 or not above the construction's sinks, rho that is not positive,
            generators that do not fit the heads, queries that are missing or do not fit, a WeightedCache whose weights
            would be ignored, or `shared` of another cache, rho, construction, queries or positions. Also where `choose`
            returns no Coreset of the size asked, or log-weights in the model "unweighted".
        """
        rho, size, generators = check_rho(rho), check_size(size), generators_of(generator)
        check_generators(generators, cache)
        if shared is not None:
            shared.check(self, cache, rho, queries, positions)
        warn_if_slow(cache.keys.device)
        if not self.takes_weights:
            check_plain(cache)
        if size >= cache.n:
            return Coreset(everything(cache).indices, base_weights(cache))
        check_sinks(self.sinks, size)
        given = calm(cache, torch.float64)[0]
        asked = None if queries is None else tensor("queries", queries)
        if self.needs_queries:
            asked = fitting(asked, given, type(self).__name__)
        places = None if positions is None else whole_numbers("positions", positions)
        request = Request(given, size, rho, generators, asked, places, shared)
        if self.needs_positions:
            _ = request.rank  # refuses positions that do not fit
        heads = f"{type(self).__name__} on {cache.heads.numel()} heads of {cache.n} tokens"
        with one_line_of_memory(heads, cache.keys.device):
            coreset = self._of_live(request)
        return self._checked(coreset, cache, size)

    def _of_live(self, request: Request) -> object:
        """Picks the coreset among tokens that are not masked (masked.py): head by head where there are others."""
        cache, masked = request.cache, masked_tokens(request.cache, request.rho)
        if masked is None:
            return self.choose(request)
        assert isinstance(cache, WeightedCache), "no token of a plain cache is masked"

        def choose(head: int, live: Tensor) -> Coreset:
            part = _weighted_part(cache, head, live)
            queries = request.asked.flatten(0, -4)[head] if self.needs_queries else None
            places = None if request.positions is None else request.rank.reshape(-1, cache.n)[head, live]
            generator = request.generator if isinstance(request.generator, torch.Generator) else request.generator[head]
            return self(part, request.size, request.rho, generator, queries, places)

        return without_masked(cache, masked, request.size, choose)

    def _checked(self, coreset: object, cache: Cache, size: int) -> Coreset:
        """Returns the coreset, unless it breaks what the type promises."""
        name, wanted = type(self).__name__, (*cache.heads, size)
        if not isinstance(coreset, Coreset):
            raise ValueError(f"{name}.choose must return a Coreset, got {type(coreset).__name__}")
        if tuple(coreset.indices.shape) != wanted:
            raise ValueError(f"{name} kept {tuple(coreset.indices.shape)} tokens [*heads, size], not {wanted} as asked")
        cache.check_indices(coreset.indices)
        if self.model == "unweighted" and coreset.log_weights is not None and not isinstance(cache, WeightedCache):
            raise ValueError(f'{name} has model "unweighted" but returned log-weights; its model is "free"')
        if coreset.log_weights is None:
            return coreset
        base = base_weights(cache)
        dtype = least_float32(cache.keys.dtype, *([] if base is None else [base.dtype]))
        return Coreset(coreset.indices, coreset.log_weights.to(dtype))


def _weighted_part(cache: WeightedCache, head: int, tokens: Int[Tensor, "l"]) -> WeightedCache:
    """Returns some tokens of one head, leading axes flattened."""
    one = cache.flat()[head]
    return WeightedCache(one.keys[tokens], one.values[tokens], one.log_weights[tokens])


def check_is_construction(construct: object) -> None:
    """Raises ValueError unless it is a Construction."""
    if not isinstance(construct, Construction):
        raise ValueError(f"{construct!r} is no Construction; inherit from attention_coresets.Construction")


def everything(cache: Cache) -> Coreset:
    """Returns the coreset that keeps every token, unweighted."""
    return Coreset(torch.arange(cache.n, device=cache.keys.device).expand(*cache.heads, cache.n).contiguous())


def kept_tokens(kept: Bool[Tensor, "H n"], size: int) -> Int[Tensor, "H size"]:
    """Returns the tokens of each head where `kept` is true, `size` of them, in order."""
    return kept.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[:, :size]


def check_size(size: int) -> int:
    """Returns the size as an int; ValueError unless it is a whole number of at least one token."""
    size = whole("size", size)
    if size < 1:
        raise ValueError(f"size must be at least 1 token, got {size}")
    return size


def check_generators(generator: Generators, cache: Cache) -> None:
    """Raises ValueError unless there is one generator for all heads or one a head; nothing is drawn from them."""
    draw(generator, cache.heads.numel(), 0)


def check_plain(cache: Cache) -> None:
    """Raises ValueError for a WeightedCache: for whoever counts every token once."""
    if isinstance(cache, WeightedCache):
        raise ValueError(
            "tokens would count once each, whatever the cache's log-weights; use a construction that balances, such as "
            "gram_schmidt_walk, or a plain Cache(cache.keys, cache.values)"
        )


def check_sinks(sinks: int, size: int) -> None:
    """Raises ValueError unless the sinks leave room for another token."""
    if sinks and size <= sinks:
        raise ValueError(f"size must exceed the {sinks} sinks that are always kept, got {size}")


def fitting(queries: Tensor | None, cache: Cache, name: str) -> Float[Tensor, "*heads group b d"]:
    """Returns the queries in the cache's dtype and on its device; ValueError where they are missing or do not fit."""
    if queries is None:
        raise ValueError(f"{name} chooses tokens by what queries see; pass queries [*heads, group, b, d]")
    if queries.dim() < 3 or queries.shape[:-3] != cache.heads or queries.shape[-1] != cache.d or 0 in queries.shape:
        wanted = (*cache.heads, "group", "b", cache.d)
        raise ValueError(f"queries {tuple(queries.shape)} must have shape {wanted} for this cache")
    check_finite(queries=queries)
    return queries.detach().to(cache.keys)


def place_in_text(positions: Tensor | None, cache: Cache) -> Int[Tensor, "*heads n"]:
    """Returns each token's place in the text among those of its cache, 0 the first.

    Without positions that is the tokens' own order. Raises ValueError unless there is one position for each token, no
    two alike.
    """
    order = torch.arange(cache.n, device=cache.keys.device).expand(*cache.heads, -1)
    if positions is None:
        return order
    if positions.shape != order.shape:
        raise ValueError(f"positions {tuple(positions.shape)} must have shape {tuple(order.shape)} for this cache")
    ordered, by_position = positions.to(order.device).sort(dim=-1)
    if not bool((ordered.diff(dim=-1) > 0).all()):
        raise ValueError("positions must be distinct in each head")
    return torch.empty_like(by_position).scatter_(-1, by_position, order)
