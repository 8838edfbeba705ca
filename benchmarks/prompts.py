"""A prompt compressed, and tokens decoded after it on the whole cache and on what is kept, in one thread.

The steps of `compress_prompt` one by one: the prompt is read, repeated, summed up, and each share chosen and weighed.
Decoding is rounds of some tokens of the text, one at a time, each on a branch of the prompt's cache. Smoke has a tiny
random model.
"""

from statistics import median
from typing import Any

import torch

from attention_coresets.models.capture import Source, segment
from attention_coresets.models.language_models import TINY, load_model
from attention_coresets.models.serving.attention import INTERFACE, decoder_of
from attention_coresets.models.serving.caches import branch, cache_bytes
from attention_coresets.models.serving.keeping import keep
from attention_coresets.models.serving.prefill import Prefilled, prefill
from attention_coresets.models.whole.measured import Measured
from attention_coresets.models.whole.replay import read
from attention_coresets.models.whole.replay_fit import ReplayFit
from benchmarks.records import OURS, Part, Target, ratio, single, timed_row
from benchmarks.timing import Task, in_threads, interleaved, once

MODELS = {"smoke": TINY, "quick": "smollm2-135m", "full": "smollm2-135m"}
LENGTHS = {"smoke": 64, "quick": 1024, "full": 2048}
SHARES, TOKENS, CALIBRATION = (4, 8), 16, 32  # one over the share of the cache; decoded in a round
AT_LEAST_AS_FAST, NOMINAL = Target(1.0), Target(1.05)


def measure(tier: str, device: str) -> Part:
    """Rows of the steps, seconds a decoded token beside those of the whole cache, and bytes beside the nominal ones."""
    with in_threads(1), torch.no_grad():
        return _measured(MODELS[tier], LENGTHS[tier], device)


def _measured(name: str, n: int, device: str) -> Part:
    loaded: Any = load_model(name)
    model, tokenizer = loaded[0].to(device), loaded[1]
    ids = segment(Source(name, "britannica", n, TOKENS, CALIBRATION), model, tokenizer)[0].to(device)
    prompt, later = ids[:, :n], ids[:, n:]
    part = Part(notes=["one thread; seconds are the clock's"])

    spent: dict[str, float] = {}

    def step(words: str, run: Any) -> Any:
        spent[words], found = once(Task(lambda _: run()))
        part.rows.append(timed_row(f"{name}: {words}", OURS, [spent[words]], n))
        return found

    whole: Prefilled = step("read the prompt", lambda: prefill(model, prompt, CALIBRATION))
    found = step("repeat it", lambda: Measured(read(whole, prompt)))
    step("sums of its queries", lambda: found.sums("own"))
    caches, construct = {"the whole cache": whole.cache}, ReplayFit()
    for k in SHARES:
        budget = found.reading.heads * n // k
        chosen = step(f"choose and weigh 1/{k}", lambda budget=budget: construct.choose(found, budget))
        caches[f"1/{k} of it"] = keep(whole, {layer: [heads] for layer, heads in chosen.items()})
    first = spent["repeat it"] + spent["sums of its queries"]
    compressing = {k: first + spent[f"choose and weigh 1/{k}"] for k in SHARES}
    _decoding(part, model, later, caches, f"{name}, n = {n}", compressing)
    return part


def won_back(compressing: float, whole: float, kept: float) -> float | None:
    """How many tokens save the seconds that compressing took, given those of a token on either cache; None if no
    number does."""
    return compressing / (whole - kept) if kept < whole else None


def _decoding(
    part: Part, model: Any, later: torch.Tensor, caches: dict[str, Any], words: str, compressing: dict[int, float]
) -> None:
    """Adds rows and ratios of tokens decoded on each cache, side by side, and how many win back the compression."""

    def decode(cache: Any) -> None:
        for token in later.split(1, dim=1):
            model(token, past_key_values=cache, use_cache=True)

    decoder_of(model).set_attn_implementation(INTERFACE)  # transformers' sdpa for the whole cache
    full, *kept = caches
    tasks = {name: Task(decode, lambda cache=cache: branch(cache)) for name, cache in caches.items()}
    for task in tasks.values():
        once(task)
    seconds = interleaved(tasks, budget=20, least=9).seconds
    for name in caches:
        each = [x / later.shape[1] for x in seconds[name]]
        part.rows.append(timed_row(f"{words}: a token on {name}", OURS, each, caches[full].get_seq_length()))
    for k, name in zip(SHARES, kept, strict=True):
        part.ratios.append(
            ratio(f"seconds a token on {name} / {full}, {words}", seconds[name], seconds[full], target=AT_LEAST_AS_FAST)
        )
        tokens = won_back(compressing[k], *(median(seconds[one]) / later.shape[1] for one in (full, name)))
        if tokens is not None:
            part.ratios.append(single(f"decoded tokens that win back the time of making {name}, {words}", tokens))
        else:
            part.notes.append(f"a token on {name} takes no less time than on {full}: compressing wins no time back")
        share = k * cache_bytes(caches[name]) / cache_bytes(caches[full])
        part.ratios.append(single(f"bytes of {name} / nominal, {words}", share, NOMINAL))
