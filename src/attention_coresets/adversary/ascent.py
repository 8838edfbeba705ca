"""Finds the worst query by projected gradient ascent on the distance between the two attentions."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from attention_coresets.adversary.gradient import error_and_gradient, rooms
from attention_coresets.adversary.graphs import repeated
from attention_coresets.adversary.portions import share, spread
from attention_coresets.adversary.sides import Sides, centred, two_sides
from attention_coresets.adversary.starts import starts
from attention_coresets.adversary.steps import Climbs, begin, judged, project, trial
from attention_coresets.attention import Cache, Coreset, numbers
from attention_coresets.checks import whole
from attention_coresets.inputs import Array, integer, one_generator, tensor
from attention_coresets.theory import check_rho

_MAX_LOGITS = 2**25  # queries x tokens x heads climbing together
_SIGHT = 1e-5  # of the largest value: a smaller error drowns in what float32 rounds, some 1e-7 of it
_SAME = 0.99  # a restart that ends at this share of the best error has reached it
# of a race: the share of the climbs that goes on, and of the steps it takes; one climb in so many goes on in float64
_RACE, _RACE_FINAL = ((1.0, 0.1), (0.25, 0.15), (0.0625, 0.4)), 96
_HILL = 0.1  # of rho: climbs closer than this are taken to be on one hill
RACE_AGREES = 2  # fewer climbs at the best error than this, and it is sought again


class Effort(NamedTuple):
    """How many climbs, of how many steps in float32, and steps of the best in float64; see `ascend`."""

    restarts: int
    steps: int
    polish: int
    racing: bool = False

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """Returns how many climbs go on in each round in float32, and for how many steps."""
        shares = _RACE if self.racing else ((1.0, 1.0),)
        return [(max(1, round(a * self.restarts)), max(1, round(b * self.steps))) for a, b in shares]

    @property
    def plain(self) -> "Effort":
        """Returns the search that has as much to do without a race: a third of its climbs."""
        return Effort(max(1, self.restarts // 3), self.steps, self.polish) if self.racing else self

    @property
    def finalists(self) -> int:
        """Returns how many climbs go on in float64."""
        return max(1, self.restarts // (_RACE_FINAL if self.racing else 8))


class Ascent(NamedTuple):
    """What the ascent found: error ``[*heads]``, float64, at query ``[*heads, d]``.

    reached ``[*heads]`` counts the climbs that ended within 1 % of that error.
    """

    error: Float[Tensor, "*heads"]
    query: Float[Tensor, "*heads d"]
    reached: Int[Tensor, "*heads"]


class Found(NamedTuple):
    """The same of a flat batch of heads: error ``[H]``, query ``[H, d]`` and reached ``[H]``."""

    error: Tensor
    query: Tensor
    reached: Tensor

    def replaced(self, heads: Tensor, other: "Found") -> "Found":
        """Returns this with what another search found of some heads."""
        return Found(*(x.index_copy(0, heads, y) for x, y in zip(self, other, strict=True)))

    def raised(self, heads: Tensor, other: "Found") -> "Found":
        """Returns this with what another search found of some heads, where that is larger."""
        larger = (other.error > self.error[heads]).nonzero().squeeze(-1)
        return self.replaced(heads[larger], Found(*(x[larger] for x in other)))


def ascend(
    cache: Cache,
    coreset: Coreset,
    rho: float,
    *,
    restarts: int = 64,
    steps: int = 60,
    polish: int = 80,
    generator: torch.Generator | int | None = None,
    racing: bool = False,
) -> Ascent:
    """Maximises |Attn(q) - Attn_coreset(q)| over the ball |q| <= rho, every head at once.

    `restarts` climbs (starts.py chooses where) take `steps` steps in float32. The best eighth of them take `polish`
    more in float64. Heads whose error is below 1e-5 of their largest value, which float32 hardly sees, are searched
    again in float64 alone. A step goes along a conjugate direction (Polak-Ribiere) of the gradients, and back into the
    ball. It grows after a gain and shrinks after a loss, and a loss is not taken (steps.py). `generator` or the seed
    given draws the random starts (default: seed 0).

    With `racing` all climbs take a tenth of `steps`, the best quarter of them three twentieths more, the best sixteenth
    two fifths of `steps` more, and one in 96 goes on in float64 (docs/benchmarks.md: 256 climbs of 80 steps beside 128
    without). Of climbs on one hill, closer than rho / 10, all but the best come last. A head where fewer than two
    climbs end within 1 % of the best is searched again, by a third of the climbs and without; the larger error counts.
    Those that stopped count among `reached` with what they had.

    Cost: (n + m)(d + dv) flops a head times 4 steps restarts to climb and 2 (2700 + min(n, 4096)) to choose the starts;
    then 4 polish restarts / 8 of them in float64. With `racing` a sixth and an eighth of that.

    Raises ValueError for rho or counts that are not positive.
    """
    rho = check_rho(rho)
    cache.check_indices(coreset.indices)
    effort = Effort(*check_counts(restarts, steps, polish), racing)
    # one seed for every chunk of heads: starts do not depend on the batch
    seed = integer(one_generator(generator))
    flat, core = numbers(cache).flat(), coreset.flat()
    parts = [(flat[a], core[a], rho, effort, seed) for a in _slices(flat, restarts)]
    found = share(_climb_heads, parts, cache.keys.device) if len(parts) > 1 else [_climb_heads(*parts[0])]
    error, query, reached = (torch.cat(part) for part in zip(*found, strict=True))
    return Ascent(error.reshape(cache.heads), query.reshape(*cache.heads, cache.d), reached.reshape(cache.heads))


def check_counts(restarts: int, steps: int, polish: int) -> tuple[int, int, int]:
    """Returns the counts of a search as ints; ValueError unless all are at least 1."""
    counts = whole("restarts", restarts), whole("steps", steps), whole("polish", polish)
    if min(counts) < 1:
        raise ValueError(f"restarts, steps and polish must be at least 1, got {', '.join(map(str, counts))}")
    return counts


def climb(
    cache: Cache, coreset: Coreset, rho: float, queries: Float[Array, "*heads b d"], steps: int
) -> tuple[Float[Tensor, "*heads b d"], Float[Tensor, "*heads b"]]:
    """Takes `steps` steps up the error from each of `queries`, and returns the queries reached and the errors there.

    Queries are first brought into the ball |q| <= rho. Steps are those of `ascend`, in the dtype of the cache: a warm
    start for whoever changes the coreset a little and asks again. No error is below that of the query it came from.
    With steps = 0 the queries are only evaluated.

    Cost: 4 (steps + 1) b (n + m)(d + dv) flops a head.

    Raises ValueError for a rho that is not positive, negative steps, or queries that do not fit the cache.
    """
    rho = check_rho(rho)
    cache.check_indices(coreset.indices)
    steps, queries = whole("steps", steps), tensor("queries", queries).detach()
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    if queries.shape[:-2] != cache.heads or queries.shape[-1] != cache.d:
        raise ValueError(
            f"queries {tuple(queries.shape)} must have shape {(*cache.heads, 'b', cache.d)} for this cache"
        )
    flat, core = numbers(cache).flat(), coreset.flat()
    first = queries.to(flat.keys).reshape(len(flat.keys), -1, cache.d)
    parts = [
        (project(first[a], rho), two_sides(flat[a], core[a], rho), rho, steps) for a in _slices(flat, len(first[0]))
    ]
    found = share(_climb, parts, first.device) if len(parts) > 1 else [_climb(*parts[0])]
    query, error = (torch.cat(part) for part in zip(*found, strict=True))
    return query.reshape(queries.shape), error.reshape(queries.shape[:-1])


def _slices(cache: Cache, queries: int) -> list[slice]:
    """Cuts the heads into those taken together: one slice a thread on the CPU, none that takes too much memory."""
    heads, threads = len(cache.keys), torch.get_num_threads() if cache.keys.device.type == "cpu" else 1
    chunk = max(1, min(-(-heads // threads), _MAX_LOGITS // (queries * cache.n)))
    return [slice(a, a + chunk) for a in range(0, heads, chunk)]


@torch.no_grad()
def _climb_heads(cache: Cache, coreset: Coreset, rho: float, effort: Effort, seed: int) -> Found:
    """Searches a flat batch of heads, some of them twice."""
    shifted = centred(cache)  # in its own dtype, before float32 rounds

    def search(heads: Tensor, effort: Effort, dtype: torch.dtype) -> Found:
        return _searched(shifted[heads], coreset[heads], rho, effort, seed, dtype)

    found = _searched(shifted, coreset, rho, effort, seed, torch.float32)
    blind = found.error < _SIGHT * shifted.values.norm(dim=-1).amax(-1)
    if bool(blind.any()):
        heads = blind.nonzero().squeeze(-1)
        found = found.replaced(heads, search(heads, effort.plain, torch.float64))
    if effort.racing:
        heads = (~blind & (found.reached < RACE_AGREES)).nonzero().squeeze(-1)
        if len(heads):
            found = found.raised(heads, search(heads, effort.plain, torch.float32))
    return found


def _searched(shifted: Cache, coreset: Coreset, rho: float, effort: Effort, seed: int, dtype: torch.dtype) -> Found:
    """Searches all heads once, the steps taken in `dtype`."""
    fast = shifted.to(dtype)
    query = starts(fast, coreset, rho, effort.restarts, torch.Generator().manual_seed(seed))
    sides, error = two_sides(fast, coreset, rho), query.new_zeros(query.shape[:-1])
    ends, climbs = error.to(torch.float64), torch.arange(query.shape[-2], device=query.device).expand(error.shape)

    def best(count: int) -> tuple[Tensor, Tensor]:
        behind = 2 * error.amax(-1, keepdim=True) * _behind(query, error, rho) if effort.racing else 0.0
        chosen = (error - behind).topk(count, dim=-1).indices
        return query.gather(-2, chosen.unsqueeze(-1).expand(-1, -1, shifted.d)), climbs.gather(-1, chosen)

    for count, steps in effort.rounds:
        if count < query.shape[-2]:
            query, climbs = best(count)
        query, error = _climb(query, sides, rho, steps)
        ends = ends.scatter(-1, climbs, error.to(torch.float64))
    # float32 tells which hills are high, not how high: only the best are climbed to the end, in float64
    query, climbs = best(effort.finalists)
    query = project(query.to(torch.float64), rho)  # float32 may end a rounding outside the ball
    polished, final = _climb(query, two_sides(shifted.to(torch.float64), coreset, rho), rho, effort.polish)
    top = final.max(dim=-1)
    # a climb that was not polished counts with its error before
    ends = ends.scatter(-1, climbs, final)
    reached = (ends >= _SAME * top.values.unsqueeze(-1)).sum(-1)
    return Found(top.values, polished[torch.arange(len(polished), device=polished.device), top.indices], reached)


def _behind(query: Tensor, error: Tensor, rho: float) -> Tensor:
    """Tells which climbs ``[H, b]`` are on the hill of a better one: of equal ones, the first is ahead."""
    order = torch.arange(error.shape[-1], device=error.device)
    mine, other = error.unsqueeze(-1), error.unsqueeze(-2)
    better = (other > mine) | ((other == mine) & (order < order.unsqueeze(-1)))
    return (better & (torch.cdist(query, query) < _HILL * rho)).any(-1)


@torch.no_grad()
def _climb(query: Tensor, sides: Sides, rho: float, steps: int) -> tuple[Tensor, ...]:
    """Returns the best query ``[H, b, d]`` and error ``[H, b]`` of each climb."""
    return spread(lambda q, its_sides: _climb_portion(q, its_sides, rho, steps), query, sides)


@torch.no_grad()
def _climb_portion(query: Tensor, sides: Sides, rho: float, steps: int) -> tuple[Tensor, Tensor]:
    room = rooms(query, sides, 2)
    now = begin(query, *error_and_gradient(query, sides, room), rho)

    def step(now: Climbs) -> Climbs:
        tried = trial(now, rho)
        return judged(now, tried, *error_and_gradient(tried, sides, room), rho)

    now = repeated(step, now, steps)
    return now.query, now.error
