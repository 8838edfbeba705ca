"""A double oracle: coresets answer a cache, and the cache moves against all answers so far."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attention_coresets.attention import Cache
from attention_coresets.checks import positive
from attention_coresets.hardness.answers import Answers
from attention_coresets.hardness.moves import on_sphere, raised
from attention_coresets.hardness.pool import Pool
from attention_coresets.hardness.rate import Rate, Spread, weighting
from attention_coresets.inputs import one_generator

_JITTER = 0.02  # added to the start: tokens that are equal would move alike
_LONGEST, _SHORTEST = 0.1, 0.005  # moves, at the begin and end of a cycle
_CLIMB = 4  # steps of the pool's queries each round


@dataclass(frozen=True)
class Effort:
    """How long a search goes on, counted so that its result is that of its seed and no clock.

    rounds: of answers and moves.
    cycles: times that the length of moves falls from 0.1 to 0.005. Each cycle begins at the best cache so far.
    moves: gradient steps between two rounds of answers.
    """

    rounds: int = 150
    cycles: int = 3
    moves: int = 6

    def __post_init__(self) -> None:
        positive(rounds=self.rounds, cycles=self.cycles, moves=self.moves)
        if self.rounds % self.cycles:
            raise ValueError(f"rounds must be a multiple of cycles = {self.cycles}, got {self.rounds}")


def search_hard_cache(start: Cache, answers: Answers, rate: Rate, effort: Effort, generator: torch.Generator) -> Cache:
    """Moves unit keys and unit values so that the coresets that answer them err as much as they can.

    A round asks for answers, adds them to a pool, and takes `moves` gradient steps on the pool's soft least error over
    the rate (`moves.log_constant`). The best cache of all rounds is returned, head by head; heads are searched side by
    side and do not influence one another. Nothing is proven of it: ask `best_of_all`.

    Parameters
    ----------
    start : Cache
        float64 keys and values ``[H, n, d]``; they are brought to length 1, with a little noise.
    answers : Answers
    rate : Rate
    effort : Effort
    generator : torch.Generator
        Draws the noise.

    Returns
    -------
    Cache

    Cost: rounds times that of the answers, and of moves times 6 P b n (d + dv) flops for a pool of P coresets with b
    queries each.
    """
    generator = one_generator(generator)
    noise = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in (start.keys, start.values)]
    now = Cache(*(on_sphere(x + _JITTER * z) for x, z in zip((start.keys, start.values), noise, strict=True)))
    best, record = now, torch.full((len(now.keys),), -torch.inf, dtype=torch.float64)
    period, pool = effort.rounds // effort.cycles, None
    for turn in range(effort.rounds):
        if turn % period == 0:
            now = best
        weights = weighting(now.keys, rate)
        answered = answers.answer(now, weights.log_weights)
        reached = answered.error.log() - weights.exponent
        best, record = _better(best, record, now, reached)
        pool = answered.pool if pool is None else pool.joined(answered.pool, answers.memory)
        pool = pool.climbed(now, weights.log_weights, rate.rho, _CLIMB)
        now = _moves(now, pool, rate, effort.moves, _length(turn % period, period), answers.softness)
    return best


def _better(best: Cache, record: Tensor, now: Cache, reached: Tensor) -> tuple[Cache, Float[Tensor, "H"]]:
    wins = reached > record
    keys, values = (
        torch.where(wins[:, None, None], x, y) for x, y in ((now.keys, best.keys), (now.values, best.values))
    )
    return Cache(keys, values), torch.maximum(record, reached)


def _moves(now: Cache, pool: Pool, rate: Rate, moves: int, length: float, softness: float) -> Cache:
    spread = Spread.of(now.keys, rate.rho)
    for _ in range(moves):
        now, spread = raised(now, pool, rate, spread, length, softness)
    return now


def _length(turn: int, period: int) -> float:
    return _LONGEST * (_SHORTEST / _LONGEST) ** (turn / max(1, period - 1))
