"""A soak of models on coresets: threads, turns and random lengths, every answer compared with the row's own single run.

    python benchmarks/soak.py --minutes 30      # in the background; --seed for other conversations

Threads draw conversations: one to three prompts of random lengths, padded on the left, up to four turns, one of three
constructions, some prompts in chunks, in a context that all threads share or in one of their own. Each row is then
asked again alone, of a copy of the model that runs nothing else at the time. All is in float64, so that no answer hangs
on the order of a sum. Writes benchmarks/results/serving/soak.json and the paragraph of docs/serving.md.
"""

import argparse
import json
import random
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    sys.path.append(str(ROOT / "tests"))

from attention_coresets.analysis.parts.markdown import contents, fill, number  # noqa: E402  (needs the path)
from attention_coresets.models.serving import compressed  # noqa: E402
from attention_coresets.study.disk import write_atomically  # noqa: E402
from benchmarks import machine  # noqa: E402

_OF_TESTS = import_module("serving_models")  # tiny models, as the tests have them
make, padded, text = _OF_TESTS.make, _OF_TESTS.padded, _OF_TESTS.text
EXCHANGE, SNAPKV, UNIFORM = _OF_TESTS.EXCHANGE, _OF_TESTS.SNAPKV, _OF_TESTS.UNIFORM
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "serving" / "soak.json", ROOT / "docs" / "serving.md"
FAMILIES = ("Llama", "Qwen3", "GPTNeoX")  # one that all threads share a context of, two with contexts of their own
CONSTRUCTS = {"snapkv": SNAPKV, "query_exchange": EXCHANGE, "uniform": UNIFORM}
SHARED = {"construct": EXCHANGE, "size": 24, "keep_recent": 4}
LONGEST, TURNS, NEW = 120, 4, 16
GROWTH = 0.05  # of memory from the second sixth of the time to the last, at most: said before it was measured


@dataclass
class Model:
    """A model that serves, and its copy for single runs."""

    serving: Any
    alone: Any
    shared: bool
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Talk:
    """A conversation: for each turn what each row is asked, and how many tokens are to be answered."""

    turns: list[list[torch.Tensor]]
    new: list[int]
    options: dict[str, Any]
    chunk: int | None

    def answers(self, model: Any, own: bool) -> list[torch.Tensor]:
        """The answers of each turn ``[rows, new]``, in a context of their own or in the one around."""
        found = []
        with compressed(model, **self.options) if own else nullcontext():
            out: Any = None
            seen = torch.zeros(0)
            for turn, (rows, new) in enumerate(zip(self.turns, self.new, strict=True)):
                ids, mask = padded(rows)
                if out is not None:
                    ids = torch.cat([out.sequences, ids], dim=1)
                    mask = torch.cat([seen, torch.ones(len(rows), self.new[turn - 1], dtype=torch.long), mask], dim=1)
                more = {"prefill_chunk_size": self.chunk} if self.chunk and out is None else {}
                out = model.generate(
                    ids,
                    attention_mask=mask,
                    past_key_values=None if out is None else out.past_key_values,
                    max_new_tokens=new,
                    do_sample=False,
                    return_dict_in_generate=True,
                    **more,
                )
                seen = mask
                found.append(out.sequences[:, ids.shape[1] :])
        return found

    def row(self, number: int) -> "Talk":
        return Talk([[rows[number]] for rows in self.turns], self.new, self.options, None)


def drawn(seed: int, shared: bool) -> Talk:
    """The conversation of a seed."""
    rng = random.Random(seed)
    rows, turns = rng.randint(1, 3), rng.randint(1, TURNS)
    longest = [LONGEST, *[24] * (turns - 1)]
    asked = [[text(1, rng.randint(1, most), rng.randrange(2**31)) for _ in range(rows)] for most in longest]
    options: dict[str, Any] = SHARED
    if not shared:
        size = rng.choice([8, 16, 32, 0.25, 0.5])
        options = {
            "construct": CONSTRUCTS[rng.choice(list(CONSTRUCTS))],
            "size": size,
            "keep_recent": rng.choice([0, 4]),
        }
        options |= {"hold": rng.random() < 0.7, "seed": rng.randrange(1000)}
    return Talk(asked, [rng.randint(1, NEW) for _ in range(turns)], options, rng.choice([None, None, 7, 64]))


def main() -> int:
    options = _parser().parse_args()
    torch.set_num_threads(1)
    models = [Model(make(name).double(), make(name).double(), name == FAMILIES[0]) for name in FAMILIES]
    measured = soak(models, options.minutes, options.threads, options.seed)
    measured |= {"machine": machine.machine(), "how": machine.how()}
    print(json.dumps({key: value for key, value in measured.items() if key != "memory"}, indent=1))
    if options.keep:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(RESULTS, json.dumps(measured, indent=1) + "\n")
        page = PAGE.read_text(encoding="utf-8")
        write_atomically(PAGE, fill(page, contents(page) | blocks(measured)))
    return 1 if measured["wrong"] or growth(measured) > GROWTH else 0


def soak(models: list[Model], minutes: float, threads: int, seed: int) -> dict[str, Any]:
    """Conversations until the time is over: how many, how many answers, what was wrong, memory by the second."""
    end, counts, wrong, memory = time.monotonic() + 60 * minutes, {"talks": 0, "answers": 0, "tokens": 0}, [], []
    seeds, lock = iter(range(seed, 2**31)), threading.Lock()

    def work() -> None:
        while time.monotonic() < end:
            with lock:
                mine = next(seeds)
            model = models[mine % len(models)]
            talk = drawn(mine, model.shared)
            found = talk.answers(model.serving, own=not model.shared)
            for row in range(len(talk.turns[0])):
                with model.lock:
                    alone = talk.row(row).answers(model.alone, own=True)
                for turn, (one, expected) in enumerate(zip(found, alone, strict=True)):
                    with lock:
                        counts["answers"] += 1
                        counts["tokens"] += expected.numel()
                        if not torch.equal(one[row : row + 1], expected):
                            wrong.append({"seed": mine, "row": row, "turn": turn})
            with lock:
                counts["talks"] += 1

    def watch() -> None:
        start = time.monotonic()
        while time.monotonic() < end:
            memory.append([round(time.monotonic() - start, 1), resident()])
            time.sleep(min(5.0, 60 * minutes / 50))

    outer = [compressed(model.serving, **SHARED) for model in models if model.shared]
    with outer[0] if outer else nullcontext(), ThreadPoolExecutor(threads + 1) as pool:
        for job in [pool.submit(watch), *(pool.submit(work) for _ in range(threads))]:
            job.result()
    return {"minutes": minutes, "threads": threads, "seed": seed, **counts, "wrong": wrong, "memory": memory}


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def growth(measured: dict[str, Any]) -> float:
    """How much more memory the last sixth of the time has than the second, as a share; the first is for warming up."""
    values = [value for _, value in measured["memory"]]
    sixth = max(1, len(values) // 6)
    early, late = values[sixth : 2 * sixth], values[-sixth:]
    return (sum(late) / len(late)) / (sum(early) / len(early)) - 1


def blocks(measured: dict[str, Any]) -> dict[str, str]:
    """The paragraph of docs/serving.md."""
    how = measured["how"]
    late = measured["memory"][-1][1] / 2**20
    wrong = "none of them wrong" if not measured["wrong"] else f"**{len(measured['wrong'])} of them wrong**"
    text = (
        f"{measured['minutes']:g} minutes, {measured['threads']} threads: {measured['talks']} conversations, "
        f"{measured['answers']} answers of {measured['tokens']} tokens in all, {wrong}. "
        f"Memory {number(late)} MiB at the end, {100 * growth(measured):+.1f} % from the second sixth of the time to "
        f"the last. {measured['machine']['processor']}, torch {how['torch']}, {how['date']}, "
        f"revision {how['revision'][:12]}."
    )
    return {"serving_soak": text}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the first conversation; the others count on from it")
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True, help="write results and page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
