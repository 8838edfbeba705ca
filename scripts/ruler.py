"""RULER's questions on compressed prompts: python scripts/ruler.py ROWS.parquet --model NAME --share 0.25 0.125

ROWS.parquet has a row a question, as the dataset simonjegou/ruler on the Hugging Face hub (a folder for each
length): `context`, `question`, `answer_prefix`, `answer` (a list of strings), `task`, `max_new_tokens`. A context is
compressed once by `compress_prompt`, before any question is seen; then each question is answered greedily, on the full
cache too. NAME is a model of a package, a folder, or a hub's owner/name.

The score is RULER's: the share of the expected strings that are in the answer, whatever their case, or for tasks qa_*
whether one of them is. OUT.jsonl has a line for each question and share. Questions that are there are not asked again.
Real rows were not run: they want a GPU and a hub. tests/test_ruler.py runs a few of our own.
"""

import ready  # noqa: F401, I001  (first: it says what is not set up)

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from attention_coresets.models.language_models import load_model
from attention_coresets.models.serving.caches import branch
from attention_coresets.serving import compress_prompt

COLUMNS = ("context", "question", "answer_prefix", "answer", "task", "max_new_tokens")
FULL = 1.0  # share of the whole cache, always asked
_CUT = "<the question goes here>"


def main() -> int:
    asked = _options()
    try:
        rows = read(asked.rows, asked.limit)
        model, tokenizer, origin = load_model(asked.model)
        print(f"{asked.model} ({origin}), {len(rows)} questions of {rows['context'].nunique()} contexts")
        run(model.to(asked.device), tokenizer, rows, sorted({FULL, *asked.share}, reverse=True), asked.out)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(scores(pd.read_json(asked.out, lines=True)).round(3).to_string())
    print(asked.out)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--share", type=float, nargs="+", default=[0.25, 0.125], help="of the whole cache, in (0, 1]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit", type=int, help="the first contexts of each task alone")
    parser.add_argument("--out", type=Path, default=Path("ruler.jsonl"))
    return parser.parse_args()


def read(path: Path, limit: int | None = None) -> pd.DataFrame:
    """Reads the questions, all of those about the first `limit` contexts of each task."""
    rows = pd.read_parquet(path)
    if absent := [name for name in COLUMNS if name not in rows]:
        raise ValueError(f"{path} has no column {', '.join(absent)}; it needs {', '.join(COLUMNS)}")
    rows = rows[list(COLUMNS)].rename_axis("row").reset_index()
    order = rows.drop_duplicates(["task", "context"]).groupby("task").cumcount()  # of each context, at its first row
    first = rows["context"].isin(rows["context"].loc[order.index[order < (len(rows) if limit is None else limit)]])
    return rows.loc[first]


def run(model: Any, tokenizer: Any, rows: pd.DataFrame, shares: list[float], out: Path) -> None:
    """Answers every question at every share, and adds each context's answers to the file at once."""
    there = pd.read_json(out, lines=True)[["row", "share"]] if out.exists() else pd.DataFrame()
    done = set(there.itertuples(index=False, name=None))
    for context, questions in tqdm(rows.groupby("context", sort=False), desc="contexts"):
        found = []
        for share in shares:
            left = questions.loc[[(row, share) not in done for row in questions["row"]]]
            if len(left):
                found += answered(model, tokenizer, str(context), left, share)
        if found:
            pd.DataFrame(found).to_json(out, orient="records", lines=True, mode="a")


def answered(model: Any, tokenizer: Any, context: str, questions: pd.DataFrame, share: float) -> Iterator[dict]:
    """One row a question, in order: the context's cache is compressed once, and every question continues it."""
    before, after = _around(tokenizer, context)
    prompt = _ids(tokenizer, before, True).to(model.device)
    cache = _whole(model, prompt) if share == FULL else compress_prompt(model, prompt, share=share)
    for row in questions.to_dict("records"):
        said = _ids(tokenizer, f"{row['question']}{after}{row['answer_prefix']}", False).to(model.device)
        whole = torch.cat([prompt, said], dim=1)
        told = model.generate(
            whole,
            past_key_values=branch(cache),
            attention_mask=torch.ones_like(whole),
            max_new_tokens=row["max_new_tokens"],
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        answer = tokenizer.decode(told[0, whole.shape[1] :], skip_special_tokens=True)
        score = matched(row["task"], answer, list(row["answer"]))
        yield {"row": row["row"], "share": share, "task": row["task"], "score": score, "said": answer}


@torch.no_grad()
def _whole(model: Any, prompt: Tensor) -> Any:
    return model(prompt, use_cache=True, logits_to_keep=1).past_key_values


def matched(task: str, answer: str, wanted: list[str]) -> float:
    """RULER's score of one answer."""
    there = [one.lower() in answer.lower() for one in wanted]
    return float(any(there)) if task.startswith("qa") else sum(there) / len(there)


def scores(found: pd.DataFrame) -> pd.DataFrame:
    """Mean score of each task at each share, the full cache first, and the mean over tasks."""
    table = found.pivot_table("score", "task", "share").sort_index(axis=1, ascending=False)
    return pd.concat([table, table.mean().to_frame("all tasks").T])


def _around(tokenizer: Any, context: str) -> tuple[str, str]:
    """What the model reads before the question, and after it: with the chat template, where there is one."""
    if getattr(tokenizer, "chat_template", None) is None:
        return context, ""
    turn = [{"role": "user", "content": context + _CUT}]
    before, _, after = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True).rpartition(_CUT)
    return before, after


def _ids(tokenizer: Any, text: str, first: bool) -> Tensor:
    special = first and getattr(tokenizer, "chat_template", None) is None
    return tokenizer(text, return_tensors="pt", add_special_tokens=special).input_ids


if __name__ == "__main__":
    raise SystemExit(main())
