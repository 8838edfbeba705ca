"""What people do with a model while it runs on coresets: for each use, a check that it is right or refused in words.

A check passes if the model on coresets gives the tokens of another computation (serving_models.py), and, where all
tokens are kept, those of the model alone. A use that is refused raises ValueError, and its check says with what words.
`tests/test_serving_uses.py` runs them; `python scripts/serving_page.py` writes docs/serving.md from them.
"""

import asyncio
import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from transformers import DynamicCache, StaticCache

from attention_coresets.models.serving import CoresetLayer, compressed
from serving_models import (
    EXCHANGE,
    FAMILIES,
    GEMMA,
    GREEDY,
    NEW,
    RECENT,
    SHAPE,
    SIZE,
    SNAPKV,
    UNIFORM,
    Around,
    N,
    answer,
    expected,
    make,
    padded,
    text,
)


@dataclass(frozen=True)
class Use:
    """One use: its heading on the page, its words, its check, and what the refusal must say, if it is refused."""

    heading: str
    words: str
    check: Callable[[], None]
    refusal: str | None
    slow: bool

    def row(self) -> tuple[str, str]:
        """Runs the check; returns the use and what became of it, as the page has them."""
        return self.words, self._outcome()

    def _outcome(self) -> str:
        if self.refusal is None:
            self.check()
            return "works"
        with pytest.raises(ValueError, match=self.refusal) as refused:
            self.check()
        return f"refused: {refused.value}"


USES: list[Use] = []


def use(heading: str, words: str, refused: str | None = None, slow: bool = False) -> Callable:
    def add(check: Callable[[], None]) -> Callable[[], None]:
        USES.append(Use(heading, words, check, refused, slow))
        return check

    return add


def on_coresets(
    model, ids: torch.Tensor, construct=SNAPKV, size: float = SIZE, keep_recent=RECENT, **options
) -> torch.Tensor:
    with compressed(model, construct, size=size, keep_recent=keep_recent):
        return answer(model, ids, **options)


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert torch.equal(found, wanted), f"{found.tolist()} is not {wanted.tolist()}"


def agrees(model, ids: torch.Tensor, construct=SNAPKV, **options) -> None:
    """Generation is the model's own where all is kept, and that of one forward after the coreset where not."""
    same(on_coresets(model, ids, construct, size=ids.shape[1], **options), answer(model, ids, **options))
    wanted = expected(model, ids, construct)
    same(on_coresets(model, ids, construct, **options), wanted)


def stored(cache) -> list[int]:
    """Tokens stored in each sample and head of the layers with coresets."""
    layers = [layer for layer in cache.layers if isinstance(layer, CoresetLayer)]
    assert layers
    return [layer.stored(sample) for layer in layers for sample in range(layer.samples)]


# Batches

ROWS = [text(1, 40), text(1, 29, 1), text(1, 33, 2)]


@use("Batches", "several prompts of one length")
def _() -> None:
    for construct in (SNAPKV, EXCHANGE, UNIFORM):
        agrees(make(), text(2), construct)


@use("Batches", "prompts of different lengths, padded on the left")
def _() -> None:
    model, (ids, mask) = make(), padded(ROWS)
    same(on_coresets(model, ids, size=N, attention_mask=mask), answer(model, ids, attention_mask=mask))
    for construct in (SNAPKV, EXCHANGE, UNIFORM):
        alone = torch.cat([expected(model, row, construct) for row in ROWS])
        same(on_coresets(model, ids, construct, attention_mask=mask), alone)


@use("Batches", "the same with a share as the size, so that samples keep different numbers of tokens")
def _() -> None:
    model, (ids, mask) = make(), padded(ROWS)
    with compressed(model, SNAPKV, size=0.3, keep_recent=RECENT):
        out = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, **GREEDY)
    same(out.sequences[:, N:], torch.cat([expected(model, row, size=0.3) for row in ROWS]))
    assert stored(out.past_key_values)[:3] == [round(0.3 * row.shape[1]) + NEW - 1 for row in ROWS]


@use("Batches", "padding of several samples on the left, a later turn of different lengths")
def _() -> None:
    model, turn = make(), [text(1, 9, 3), text(1, 5, 4), text(1, 7, 5)]
    ids, mask = padded(ROWS)
    more, shown = padded(turn)
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT, hold=False):
        alone = []
        for row, following in zip(ROWS, turn, strict=True):
            first = model.generate(row, return_dict_in_generate=True, **GREEDY)
            alone.append(
                answer(model, torch.cat([first.sequences, following], 1), past_key_values=first.past_key_values)
            )
        first = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, **GREEDY)
        both = torch.cat([mask, torch.ones(3, NEW, dtype=torch.long), shown], dim=1)
        whole = torch.cat([first.sequences, more], dim=1)
        same(answer(model, whole, attention_mask=both, past_key_values=first.past_key_values), torch.cat(alone))


@use("Batches", "the same after an answer of one token, with which the first prompt goes on")
def _() -> None:
    model, turn = make(), [text(1, 9, 3), text(1, 5, 4), text(1, 7, 5)]
    ids, mask = padded(ROWS)
    more, shown = padded(turn)
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        first = model.generate(ids, attention_mask=mask, max_new_tokens=1, return_dict_in_generate=True)
        both = torch.cat([mask, torch.ones(3, 1, dtype=torch.long), shown], dim=1)
        whole = torch.cat([first.sequences, more], dim=1)
        found = answer(model, whole, attention_mask=both, past_key_values=first.past_key_values)
    parts = zip(ROWS, first.sequences[:, -1:].split(1), turn, strict=True)
    same(found, torch.cat([expected(model, torch.cat(row, dim=1)) for row in parts]))


def _two_turns(rows: list[torch.Tensor], turn: torch.Tensor, new: int, shown: bool = False, **options):
    """Tokens of a second turn after answers that the second row, alone or not, ends at its third token."""
    model, (ids, mask) = make(), padded(rows)
    eos = int(on_coresets(model, ROWS[1], max_new_tokens=3)[0, -1])
    ends = {"eos_token_id": eos, "pad_token_id": 0, "return_dict_in_generate": True, "max_new_tokens": new}
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT, **options):
        first = model.generate(ids, attention_mask=mask, do_sample=False, **ends)
        found = first.sequences[:, ids.shape[1] :]
        before = (found == eos).long().cumsum(1) - (found == eos).long()
        both = torch.cat([mask, 1 - before.clamp_max(1), torch.ones_like(turn)], dim=1)
        whole = torch.cat([first.sequences, turn], dim=1)
        past = first.past_key_values
        return answer(model, whole, attention_mask=torch.ones_like(both) if shown else both, past_key_values=past)


@use("Batches", "a later turn after answers of different lengths, their ends hidden by the mask (`hold=False`)")
def _() -> None:
    turn = text(2, 6, 9)
    alone = [_two_turns([row], turn[b : b + 1], 20, hold=False) for b, row in enumerate(ROWS[:2])]
    same(_two_turns(ROWS[:2], turn, 20, hold=False), torch.cat(alone))


@use("Batches", "the same where these ends were compressed already", refused="hides compressed tokens of sample 1")
def _() -> None:
    _two_turns(ROWS[:2], text(2, 6, 9), 60)


@use("Batches", "a later turn of padded prompts without their mask", refused="or shows its padding")
def _() -> None:
    _two_turns(ROWS[:2], text(2, 6, 9), 5, shown=True)


@use("Batches", "padding on the right of a later turn", refused="ends in zeros.*pad on the left")
def _() -> None:
    model, (ids, mask) = make(), padded(ROWS)
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        first = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, **GREEDY)
        both = torch.cat([mask, torch.ones(3, NEW + 9, dtype=torch.long)], dim=1)
        both[1, -1] = 0
        answer(
            model,
            torch.cat([first.sequences, text(3, 9)], 1),
            attention_mask=both,
            past_key_values=first.past_key_values,
        )


@use("Batches", "padding on the right", refused="ends in zeros.*pad on the left")
def _() -> None:
    on_coresets(make(), text(2), attention_mask=torch.ones(2, N).long().index_fill(1, torch.tensor([N - 1]), 0))


@use("Batches", 'prompts of fewer tokens than the size, or than the recent ones (`short="keep"`, the default)')
def _() -> None:
    model = make()
    for tokens, size, recent in ((10, 64, 32), (10, 0.25, 8), (SIZE, SIZE, RECENT), (1, 0.25, 0)):
        same(on_coresets(model, text(1, tokens), EXCHANGE, size, recent), answer(model, text(1, tokens)))


@use("Batches", "the same beside long prompts of the batch")
def _() -> None:
    model, rows = make(), [text(1, 40), text(1, 7, 1), text(1, 1, 2)]
    ids, mask = padded(rows)
    alone = torch.cat([expected(model, rows[0], EXCHANGE), *(answer(model, row) for row in rows[1:])])
    same(on_coresets(model, ids, EXCHANGE, attention_mask=mask), alone)


@use("Batches", 'such prompts where they are not wanted (`short="refuse"`)', refused="size = 64 is above the 10 tokens")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=64, short="refuse"):
        answer(model, text(1, 10))


@use("Batches", "prompts of one token")
def _() -> None:
    model = make()
    same(on_coresets(model, text(2, 1)), answer(model, text(2, 1)))


@use("Batches", "prompts given as embeddings")
def _() -> None:
    model = make()
    embedded = model.get_input_embeddings()(text(2))
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        same(model.generate(inputs_embeds=embedded, **GREEDY), expected(model, text(2)))


# Prompts and turns


@use("Prompts and turns", "a prompt in chunks (`prefill_chunk_size`): compressed once, at its end")
def _() -> None:
    model = make()
    with compressed(model, EXCHANGE, size=SIZE, keep_recent=RECENT) as handle:
        out = model.generate(text(), prefill_chunk_size=13, return_dict_in_generate=True, **GREEDY)
    same(out.sequences[:, N:], expected(model, text(), EXCHANGE))
    assert set(stored(out.past_key_values)) == {SIZE + NEW - 1}
    assert (handle.context, handle.size, handle.prompts) == (N, SIZE, 1)


@use("Prompts and turns", "chunks given by hand, of padded samples too")
def _() -> None:
    model, (ids, mask) = make(), padded(ROWS)
    places = (mask.cumsum(-1) - 1).clamp_min(0)
    with compressed(model, EXCHANGE, size=SIZE, keep_recent=RECENT), torch.no_grad():
        out: Any = None
        found = []
        for first in range(0, N, 15):
            part = slice(first, first + 15)
            past = None if out is None else out.past_key_values
            out = model(
                ids[:, part], attention_mask=mask[:, : part.stop], position_ids=places[:, part], past_key_values=past
            )
        for step in range(NEW):
            found.append(out.logits[:, -1:].argmax(-1))
            seen = torch.nn.functional.pad(mask, (0, step + 1), value=1)
            where = mask.sum(1, keepdim=True) + step
            out = model(found[-1], attention_mask=seen, position_ids=where, past_key_values=out.past_key_values)
    same(torch.cat(found, dim=1), torch.cat([expected(model, row, EXCHANGE) for row in ROWS]))


@use("Prompts and turns", "later turns: held to the budget")
def _() -> None:
    for construct in (SNAPKV, EXCHANGE, UNIFORM):
        model, counts = make(), []
        with compressed(model, construct, size=SIZE, keep_recent=RECENT):
            out = model.generate(text(), return_dict_in_generate=True, **GREEDY)
            for turn in range(4):
                ids = torch.cat([out.sequences, text(1, 50, turn)], dim=1)
                past = out.past_key_values
                out = model.generate(ids, past_key_values=past, return_dict_in_generate=True, **GREEDY)
                counts += stored(out.past_key_values)
        assert max(counts) <= SIZE + 32
        assert out.past_key_values.get_seq_length() == out.sequences.shape[1] - 1


@use("Prompts and turns", "long answers: held to the budget")
def _() -> None:
    for construct in (SNAPKV, EXCHANGE, UNIFORM):
        model = make()
        with compressed(model, construct, size=SIZE, keep_recent=RECENT):
            out = model.generate(text(2), max_new_tokens=60, do_sample=False, return_dict_in_generate=True)
        assert max(stored(out.past_key_values)) <= SIZE + 32


@use("Prompts and turns", "long answers of padded samples under a held budget, each as alone")
def _() -> None:
    model = make()
    for rows in (ROWS, [text(1, 9), text(1, 38, 1), text(1, 31, 2)]):  # the first too short to be compressed at once
        ids, mask = padded(rows)
        alone = [on_coresets(model, row, EXCHANGE, max_new_tokens=42) for row in rows]
        same(on_coresets(model, ids, EXCHANGE, attention_mask=mask, max_new_tokens=42), torch.cat(alone))


@use("Prompts and turns", "later turns that are kept whole (`hold=False`)")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT, hold=False):
        out = model.generate(text(), return_dict_in_generate=True, **GREEDY)
        ids = torch.cat([out.sequences, text(1, 50, 1)], dim=1)
        out = model.generate(ids, past_key_values=out.past_key_values, return_dict_in_generate=True, **GREEDY)
    assert set(stored(out.past_key_values)) == {SIZE + 2 * NEW + 50 - 1}


@use("Prompts and turns", "a cache that a later context continues, under its budget")
def _() -> None:
    model, counts = make(), []
    with compressed(model, EXCHANGE, size=SIZE, keep_recent=RECENT):
        out = model.generate(text(), return_dict_in_generate=True, **GREEDY)
    for turn in range(3):
        ids = torch.cat([out.sequences, text(1, 50, turn)], dim=1)
        with compressed(model, EXCHANGE, size=SIZE, keep_recent=RECENT):
            past = out.past_key_values
            out = model.generate(ids, past_key_values=past, return_dict_in_generate=True, **GREEDY)
        counts += stored(out.past_key_values)
    assert max(counts) <= SIZE + 32


@use("Prompts and turns", "a prompt's cache copied (`copy.deepcopy`) and continued in several ways")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT), torch.no_grad():
        first = model(text(), use_cache=True).past_key_values
        for seed, cache in enumerate([*(copy.deepcopy(first) for _ in range(2)), first]):
            whole = torch.cat([text(), text(1, 9, seed)], dim=1)
            same(answer(model, whole, past_key_values=cache), expected(model, whole))


@use("Prompts and turns", "a cache that was pickled")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT), torch.no_grad():
        first = model(text(), use_cache=True)
    cache, token = pickle.loads(pickle.dumps(first.past_key_values)), first.logits[:, -1:].argmax(-1)
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        found = model.generate(
            torch.cat([text(), token], 1), past_key_values=cache, **(GREEDY | {"max_new_tokens": NEW - 1})
        )
    same(found[:, N:], expected(model, text()))


@use(
    "Prompts and turns", "a cache with coresets outside of any context", refused="run the model inside `with compressed"
)
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE), torch.no_grad():
        cache = model(text(), use_cache=True).past_key_values
    model(text(1, 2), past_key_values=cache)


@use(
    "Prompts and turns", "a cache that was filled outside", refused="already holds 40 tokens whose queries nobody kept"
)
def _() -> None:
    model = make()
    cache = model(text(), use_cache=True).past_key_values
    with compressed(model, SNAPKV, size=SIZE):
        model(text(1, 2), past_key_values=cache)


# Decoding


@use("Decoding", "greedy")
def _() -> None:
    agrees(make(), text())


@use("Decoding", "sampling")
def _() -> None:
    model, drawn = make(), []
    for serve in (
        lambda: answer(model, text(2), do_sample=True),
        lambda: on_coresets(model, text(2), size=N, do_sample=True),
    ):
        torch.manual_seed(5)
        drawn.append(serve())
    same(*drawn)
    alone = []
    for ids in (text(1), text(1, seed=1)):
        torch.manual_seed(5)
        alone.append(on_coresets(model, ids, do_sample=True, top_k=1))
        same(alone[-1], expected(model, ids))


@use("Decoding", "beams")
def _() -> None:
    model, options = make(), {"num_beams": 3, "length_penalty": 0.0}
    same(on_coresets(model, text(2), size=N, **options), answer(model, text(2), **options))
    both = on_coresets(model, torch.cat([text(), text(seed=1)]), EXCHANGE, **options)
    same(both, torch.cat([on_coresets(model, ids, EXCHANGE, **options) for ids in (text(), text(seed=1))]))


@use("Decoding", "several sequences of a prompt")
def _() -> None:
    model, options = make(), {"num_return_sequences": 3, "do_sample": True, "top_k": 1}
    same(on_coresets(model, text(), **options), expected(model, text()).expand(3, -1))


@use("Decoding", "assisted by a smaller model, candidates taken back")
def _() -> None:
    model, assistant = make(), make(num_hidden_layers=1)
    for construct in (SNAPKV, EXCHANGE):
        agrees(model, text(), construct, assistant_model=assistant)


@use("Decoding", "assisted by a model that runs on coresets too")
def _() -> None:
    model, assistant = make(), make(num_hidden_layers=1)
    with compressed(assistant, SNAPKV, size=SIZE, keep_recent=RECENT):
        same(on_coresets(model, text(), assistant_model=assistant), expected(model, text()))


@use("Decoding", "the same beside layers with a sliding window")
def _() -> None:
    agrees(make("Gemma3"), text(), assistant_model=make(num_hidden_layers=1))


@use("Decoding", "prompt lookup, candidates taken back")
def _() -> None:
    model, ids = make(), text(1, 10).repeat(1, 4)
    for construct in (SNAPKV, EXCHANGE):
        agrees(model, ids, construct, prompt_lookup_num_tokens=3)


# Ways to run


@use("Ways to run", "threads in one context")
def _() -> None:
    model, prompts = make(), [text(1, 30 + s, s) for s in range(6)]
    wanted = [expected(model, ids, EXCHANGE) for ids in prompts]
    with compressed(model, EXCHANGE, size=SIZE, keep_recent=RECENT), ThreadPoolExecutor(6) as pool:
        for _ in range(2):
            for found, want in zip(pool.map(lambda ids: answer(model, ids), prompts), wanted, strict=True):
                same(found, want)


@use("Ways to run", "threads in contexts of their own, of different sizes")
def _() -> None:
    model, prompts = make(), [text(1, N, s) for s in range(6)]
    wanted = [expected(model, ids, size=SIZE + s) for s, ids in enumerate(prompts)]
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda s: on_coresets(model, prompts[s], size=SIZE + s), range(6))
    for one, want in zip(found, wanted, strict=True):
        same(one, want)


@use(
    "Ways to run",
    "a thread in none of the contexts that several others opened",
    refused="enter `with compressed.*in the thread",
)
def _() -> None:
    model = make()

    async def opened(size: int) -> None:
        with compressed(model, SNAPKV, size=size):
            await asyncio.sleep(0.2)

    async def all_three() -> None:
        tasks = [asyncio.create_task(opened(size)) for size in (8, 9)]
        await asyncio.sleep(0.05)
        try:
            answer(model, text())
        finally:
            await asyncio.gather(*tasks)

    asyncio.run(all_three())


@use("Ways to run", "tasks of asyncio, each in a context of its own")
def _() -> None:
    model = make()

    async def one(size: int) -> torch.Tensor:
        with compressed(model, SNAPKV, size=size, keep_recent=RECENT):
            await asyncio.sleep(0.02 * (size % 3))
            return answer(model, text())

    async def both() -> list[torch.Tensor]:
        return await asyncio.gather(*(one(size) for size in (12, 16, 20)))

    for size, found in zip((12, 16, 20), asyncio.run(both()), strict=True):
        same(found, expected(model, text(), size=size))


@use("Ways to run", "contexts within each other: the inner one serves")
def _() -> None:
    model = make()
    within, around = expected(model, text(), EXCHANGE, 20), expected(model, text(), size=12)
    with compressed(model, SNAPKV, size=12, keep_recent=RECENT) as outer:
        with compressed(model, EXCHANGE, size=20, keep_recent=RECENT) as inner:
            same(answer(model, text()), within)
        same(answer(model, text()), around)
    assert (outer.prompts, inner.prompts) == (1, 1)


@use("Ways to run", "contexts left in another order than they were entered")
def _() -> None:
    model, before = make(), answer(make(), text())
    first, second = (compressed(model, SNAPKV, size=size, keep_recent=RECENT) for size in (12, 20))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    same(answer(model, text()), expected(model, text(), size=20))
    second.__exit__(None, None, None)
    same(answer(model, text()), before)
    assert model.config._attn_implementation == "sdpa"


@use("Ways to run", "a copy of the model made inside: on coresets inside, as usual after")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        twin = copy.deepcopy(model)
        same(answer(twin, text()), expected(model, text()))
    same(answer(twin, text()), answer(model, text()))
    with compressed(twin, SNAPKV, size=12, keep_recent=RECENT):
        same(answer(twin, text()), expected(model, text(), size=12))
        same(answer(model, text()), answer(make(), text()))


@use("Ways to run", "the model pickled inside: on coresets inside, as usual after")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        twin = pickle.loads(pickle.dumps(model))
        same(answer(twin, text()), expected(model, text()))
    same(answer(twin, text()), answer(model, text()))


@use("Ways to run", "two models with one configuration, one of them on coresets")
def _() -> None:
    model = make()
    other = transformers.LlamaForCausalLM(model.config).eval()
    other.load_state_dict({name: 0.9 * x for name, x in model.state_dict().items()})
    alone = answer(other, text())
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        same(answer(other, text()), alone)
        same(answer(model, text()), expected(model, text()))
        with compressed(other, SNAPKV, size=12, keep_recent=RECENT):
            same(answer(other, text()), expected(other, text(), size=12))
        same(answer(other, text()), alone)


@use("Ways to run", "a part of the model called by itself (`model.model`)")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT), torch.no_grad():
        cache = model.model(text(), use_cache=True).past_key_values
        token = model(text()).logits[:, -1:].argmax(-1)
        following = model(token, past_key_values=cache).logits[:, -1:].argmax(-1)
    same(torch.cat([token, following], 1), expected(model, text(), new=2))


@use("Ways to run", "a module around the model whose `forward` passes everything on, as PEFT has it")
def _() -> None:
    model = make()
    around, wanted, found = Around(model), expected(model, text()), []
    with compressed(around, SNAPKV, size=SIZE, keep_recent=RECENT) as handle, torch.no_grad():
        out = around(text())
        for _ in range(NEW):
            found.append(out.logits[:, -1:].argmax(-1))
            out = around(found[-1], None, None, out.past_key_values)
    same(torch.cat(found, dim=1), wanted)
    assert handle.prompts == 1


@use("Ways to run", '`attn_implementation="eager"`')
def _() -> None:
    agrees(make(attn_implementation="eager"), text())


@use(
    "Ways to run",
    "`use_cache=False`, of the call or the configuration",
    refused="use_cache = False.*pass use_cache=True",
)
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE):
        model.generate(text(), use_cache=False, **GREEDY)


@use(
    "Ways to run", "`model.config.use_cache = False`, as training leaves it", refused="use_cache = False.*model.config"
)
def _() -> None:
    model = make(use_cache=False)
    with compressed(model, SNAPKV, size=SIZE):
        model(input_ids=text())


@use("Ways to run", "`output_attentions=True`", refused="output_attentions = True.*without coresets")
def _() -> None:
    model = make(attn_implementation="eager")
    with compressed(model, SNAPKV, size=SIZE):
        model.generate(text(), output_attentions=True, return_dict_in_generate=True, **GREEDY)


@use("Ways to run", "`output_hidden_states=True`")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        out = model.generate(text(), output_hidden_states=True, return_dict_in_generate=True, **GREEDY)
    same(out.sequences[:, N:], expected(model, text()))


@use("Ways to run", "gradient checkpointing while training", refused=r"gradient checkpointing.*model\.eval")
def _() -> None:
    model = make().train()
    model.activation_checkpointing_enable()
    with compressed(model, SNAPKV, size=SIZE):
        model(text())


@use("Ways to run", "gradient checkpointing enabled, the model in `eval` mode")
def _() -> None:
    model = make()
    model.activation_checkpointing_enable()
    agrees(model, text())


@use("Ways to run", "dropout in attention while training", refused=r"drops attention at random.*model\.eval")
def _() -> None:
    model = make(attention_dropout=0.1).train()
    with compressed(model, SNAPKV, size=SIZE):
        model(text())


@use("Ways to run", "`torch.compile` of `model.forward`", slow=True)
def _() -> None:
    model = make(num_hidden_layers=1)
    wanted = [expected(model, text(), size=size, new=3) for size in (SIZE, 12)]
    model.forward = torch.compile(model.forward, backend="eager")
    before = answer(model, text(), max_new_tokens=3)  # compiled before any context is entered
    for size, want in zip((SIZE, 12), wanted, strict=True):
        same(on_coresets(model, text(), size=size, max_new_tokens=3), want)
    same(answer(model, text(), max_new_tokens=3), before)


@use("Ways to run", "`torch.compile(model)`", slow=True)
def _() -> None:
    model = make(num_hidden_layers=1)
    wanted = [expected(model, text(), size=size, new=3) for size in (SIZE, 12)]
    whole = torch.compile(model, backend="eager")
    whole(text())
    for size, want in zip((SIZE, 12), wanted, strict=True):
        with compressed(whole, SNAPKV, size=size, keep_recent=RECENT), torch.no_grad():
            out, found = whole(text(), use_cache=True), []
            for _ in range(3):
                found.append(out.logits[:, -1:].argmax(-1))
                out = whole(found[-1], past_key_values=out.past_key_values)
        same(torch.cat(found, dim=1), want)


@use("Ways to run", "`model.compile()`")
def _() -> None:
    model = make(num_hidden_layers=1)
    wanted = [expected(model, text(), size=size, new=3) for size in (SIZE, 12)]
    model.compile(backend="eager")
    before = answer(model, text(), max_new_tokens=3)
    for size, want in zip((SIZE, 12), wanted, strict=True):
        same(on_coresets(model, text(), size=size, max_new_tokens=3), want)
    same(answer(model, text(), max_new_tokens=3), before)


@use("Ways to run", "`torch.autocast` in bfloat16")
def _() -> None:
    model = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(on_coresets(model, text(), size=N), answer(model, text()))
        with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
            out = model.generate(text(), output_logits=True, return_dict_in_generate=True, **GREEDY)
    exact = expected_logits(model, out.sequences)
    torch.testing.assert_close(torch.stack(out.logits[1:], dim=1).log_softmax(-1), exact, atol=0.2, rtol=0)


@use("Ways to run", "a model in bfloat16 or float16")
def _() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        agrees(make().to(dtype), text(2))


@use("Ways to run", "`torch.inference_mode`")
def _() -> None:
    model = make()
    with torch.inference_mode():
        same(on_coresets(model, text(), size=N), answer(model, text()))
        found = on_coresets(model, text())
    same(found, expected(model, text()))


@use("Ways to run", "gradients on (no `no_grad`)")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        out, found = model(text(), use_cache=True), []
        for _ in range(NEW):
            found.append(out.logits[:, -1:].argmax(-1))
            out = model(found[-1], past_key_values=out.past_key_values)
    same(torch.cat(found, dim=1), expected(model, text()))


def expected_logits(model, sequences: torch.Tensor) -> torch.Tensor:
    """Log-probabilities after each token of the answer but the last, in float32 on the coreset of the prompt."""
    from attention_coresets.models.serving import compress, continuation, prefill

    held = compress(prefill(model, sequences[:, :N], 512), SNAPKV, SIZE, RECENT)
    return continuation(model, held, sequences[:, N:-1])


# Caches


@use("Caches", "a `DynamicCache` of the caller's, with or without the configuration: filled in place")
def _() -> None:
    for family in ("Llama", "Gemma3"):
        model = make(family)
        for cache in (DynamicCache(), DynamicCache(config=model.config)):
            same(on_coresets(model, text(), past_key_values=cache), expected(model, text()))
            assert set(stored(cache)) == {SIZE + NEW - 1}


@use("Caches", "a cache that is reset and used again")
def _() -> None:
    model, cache = make(), DynamicCache()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT):
        for seed in range(2):
            same(answer(model, text(seed=seed), past_key_values=cache), expected(model, text(seed=seed)))
            cache.reset()


@use(
    "Caches",
    "a static cache",
    refused="StaticCache cannot hold coresets; leave past_key_values and cache_imp",
)
def _() -> None:
    model = make()
    on_coresets(model, text(), past_key_values=StaticCache(config=model.config, max_cache_len=64))


@use("Caches", '`cache_implementation="static"`', refused="StaticCache cannot hold coresets")
def _() -> None:
    on_coresets(make(), text(), cache_implementation="static")


@use("Caches", "an offloaded cache", refused="an offloaded cache cannot hold coresets")
def _() -> None:
    model = make()
    cache = DynamicCache(config=model.config)
    cache.offloading = True  # made so, it wants a GPU
    on_coresets(model, text(), past_key_values=cache)


@use("Caches", "a quantised cache", refused="QuantizedCache cannot hold coresets")
def _() -> None:
    model = make()
    on_coresets(model, text(), past_key_values=transformers.QuantizedCache("fp8", model.config))


@use("Caches", "layers with a sliding window beside layers without: the first stay as they are")
def _() -> None:
    agrees(make("Gemma3"), text(2))


@use("Caches", "a model whose layers all slide a window", refused="every layer slides a window.*nothing to compress")
def _() -> None:
    on_coresets(make("Mistral", sliding_window=16), text())


@use("Caches", "layers without tokens (convolutions, linear attention) beside layers with full attention")
def _() -> None:
    agrees(make("Lfm2"), text(2))


# Masks


@use("Masks", "masks by layer type, as Gemma's wrappers make them")
def _() -> None:
    model = make("Gemma3")
    places = torch.arange(N)
    full = (places[:, None] >= places)[None, None]
    near = full & (places[:, None] - places < GEMMA["sliding_window"])
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT), torch.no_grad():
        masks = {"full_attention": full, "sliding_attention": near}
        out = model.model(text(), attention_mask=masks, use_cache=True)
        token = model.lm_head(out.last_hidden_state[:, -1:]).argmax(-1)
        following = model(token, past_key_values=out.past_key_values).logits[:, -1:].argmax(-1)
    same(torch.cat([token, following], 1), expected(model, text(), new=2))


@use("Masks", "a causal mask of four axes")
def _() -> None:
    model = make()
    with compressed(model, SNAPKV, size=SIZE, keep_recent=RECENT), torch.no_grad():
        mask = torch.ones(N, N, dtype=torch.bool).tril()[None, None]
        out = model(text(), attention_mask=mask, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
        following = model(token, past_key_values=out.past_key_values).logits[:, -1:].argmax(-1)
    same(torch.cat([token, following], 1), expected(model, text(), new=2))


@use("Masks", "a mask of four axes in which texts are packed", refused="more than causal with padding.*packed texts")
def _() -> None:
    model = make()
    apart = torch.arange(N) < N // 2
    mask = torch.ones(N, N, dtype=torch.bool).tril() & (apart[:, None] == apart)
    with compressed(model, SNAPKV, size=SIZE):
        model(text(), attention_mask=mask[None, None])


@use(
    "Masks", "an additive mask", refused=r"attention_mask reached layer 0 as torch.float32 .*\[batch, tokens\] of ones"
)
def _() -> None:
    model = make()
    mask = torch.full((N, N), -torch.inf).triu(1)
    with compressed(model, SNAPKV, size=SIZE):
        model(text(), attention_mask=mask[None, None])


# Models

NAMES = {"GPTNeoX": "GPT-NeoX", "Phi": "Phi (partial rotary embedding)", "Phi3": "Phi-3 (longrope)", "Glm": "GLM"}
NAMES |= {"Qwen2": "Qwen 2", "Qwen3": "Qwen 3", "Gemma2": "Gemma 2 (soft caps)", "Gemma3": "Gemma 3", "Lfm2": "LFM 2"}


NAMES |= {"Gemma3n": "Gemma 3n (layers that share keys)", "Gemma4": "Gemma 4 (layers that share keys)"}
UNMOVED = ("Gemma3n", "Gemma4")  # whose queries cannot be moved to later positions


def _family(family: str) -> Callable[[], None]:
    def check() -> None:
        model, (ids, mask) = make(family), padded(ROWS)
        construct = SNAPKV if family in UNMOVED else EXCHANGE
        agrees(model, text(2), construct)
        alone = torch.cat([expected(model, row, construct) for row in ROWS])
        same(on_coresets(model, ids, construct, attention_mask=mask), alone)

    return check


for _name in FAMILIES:
    use("Models", NAMES.get(_name, _name))(_family(_name))


@use("Models", "the wrapper of Gemma 3 for images, asked with text alone")
def _() -> None:
    config = transformers.Gemma3Config(
        text_config=SHAPE | GEMMA,
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        image_token_index=95,
    )
    _wrapper(transformers.Gemma3ForConditionalGeneration, config)


@use("Models", "the wrapper of Qwen 2.5-VL, asked with text alone")
def _() -> None:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = transformers.Qwen2_5_VLConfig(
        text_config=SHAPE | {"rope_parameters": rope},
        vision_config={"depth": 1, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 16},
    )
    _wrapper(transformers.Qwen2_5_VLForConditionalGeneration, config)


def _wrapper(kind, config) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config).eval()
    ids, mask = padded([row.clamp_max(90) for row in ROWS])
    agrees(model, ids[:1])
    agrees(model, ids[:1], EXCHANGE)
    alone = torch.cat([expected(model, row.clamp_max(90), EXCHANGE) for row in ROWS])
    same(on_coresets(model, ids, EXCHANGE, attention_mask=mask), alone)


@use("Models", "encoder-decoders", refused="not a decoder alone")
def _() -> None:
    config = transformers.T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    on_coresets(transformers.T5ForConditionalGeneration(config), text())


@use("Models", "models that compute attention themselves (Bloom)", refused="does not take another attention function")
def _() -> None:
    on_coresets(make("Bloom", n_head=4), text())


@use("Models", "latent attention (DeepSeek)", refused="changes keys or values after its cache has them")
def _() -> None:
    parts = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    experts = {
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "n_group": 1,
        "topk_group": 1,
    }
    on_coresets(make("DeepseekV3", **parts, **experts, num_key_value_heads=4, first_k_dense_replace=2), text())


@use("Models", "no rotary positions (OPT), with a construction that needs none")
def _() -> None:
    agrees(make("OPT", ffn_dim=48, word_embed_proj_dim=32), text(2))


@use("Models", "the same with a construction that moves queries to later positions", refused="has no rotary positions")
def _() -> None:
    on_coresets(make("OPT", ffn_dim=48, word_embed_proj_dim=32), text(), EXCHANGE)


@use("Models", "sink logits (GPT-OSS)", refused=r"attention other than a plain softmax \(s_aux\)")
def _() -> None:
    changes = {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2}
    on_coresets(make("GptOss", **changes), text())
