"""scripts/ruler.py on questions of our own, asked of the tiny random model."""

import importlib.util

import pandas as pd
import pytest
import torch

from attention_coresets.models import language_models
from command_line import script

ruler = script("ruler")
needs_models = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")


class Bytes:
    """A tokenizer: a token a byte."""

    eos_token_id = 0

    def __call__(self, text: str, return_tensors: str, add_special_tokens: bool) -> "Bytes":
        self.input_ids = torch.tensor([list(text.encode())])
        return self

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        return bytes(ids.tolist()).decode("latin-1")


@pytest.fixture
def questions(tmp_path):
    contexts = [chr(97 + i) * 100 + " the number is 7." + " x" * 60 for i in range(3)]
    rows = [
        {"context": context, "question": f"which {k}?", "answer_prefix": " It is", "answer": ["7", "8"], "task": task}
        for task, contexts in (("niah_single_1", contexts[:2]), ("qa_1", contexts[2:]))
        for context in contexts
        for k in (1, 2)
    ]
    path = tmp_path / "rows.parquet"
    pd.DataFrame(rows).assign(max_new_tokens=4).to_parquet(path)
    return path


def test_scores_are_rulers():
    assert ruler.matched("niah_multivalue", "It is SEVEN and 8.", ["seven", "8", "9", "ten"]) == 0.5
    assert ruler.matched("qa_1", "Paris, in France", ["london", "paris"]) == 1.0
    assert ruler.matched("qa_2", "nowhere", ["london", "paris"]) == 0.0


def test_tasks_count_alike_whatever_their_questions():
    lines = [("a", 1.0, 1.0), ("a", 1.0, 0.5), ("a", 1.0, 0.0), ("b", 1.0, 1.0), ("a", 0.5, 0.2), ("b", 0.5, 0.4)]
    found = ruler.scores(pd.DataFrame(lines, columns=["task", "share", "score"]))
    assert list(found.columns) == [1.0, 0.5]
    assert found.loc["all tasks"].tolist() == pytest.approx([0.75, 0.3])
    assert found.loc["a"].tolist() == pytest.approx([0.5, 0.2])


@needs_models
def test_every_question_is_asked_once_at_each_share_and_the_full_cache_answers_as_without_one(
    questions, tmp_path, monkeypatch, capsys
):
    model, _, origin = language_models.load_model(language_models.TINY)
    monkeypatch.setattr(ruler, "load_model", lambda name: (model, Bytes(), origin))
    out = tmp_path / "ruler.jsonl"
    words = ["ruler.py", str(questions), "--share", "0.5", "--out", str(out), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", [*words, "--limit", "1"])
    assert ruler.main() == 0
    assert len(pd.read_json(out, lines=True)) == 2 * 2 * 2  # tasks, questions, shares
    monkeypatch.setattr("sys.argv", words)
    assert ruler.main() == 0
    assert "all tasks" in capsys.readouterr().out
    found = pd.read_json(out, lines=True)
    assert not found.duplicated(["row", "share"]).any()
    assert set(found["row"]) == set(range(6))
    assert set(found["share"]) == {1.0, 0.5}
    rows = pd.read_parquet(questions)
    for line in found.loc[found["share"] == 1].itertuples():
        row = rows.loc[line.row]
        ids = torch.tensor([list(f"{row['context']}{row['question']}{row['answer_prefix']}".encode())])
        told = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        assert line.said.encode("latin-1") == bytes(told.tolist())
        assert line.score == ruler.matched(row["task"], line.said, row["answer"])


def test_a_file_without_answers_is_named(tmp_path, monkeypatch, capsys):
    path = tmp_path / "bad.parquet"
    pd.DataFrame({"context": ["x"]}).to_parquet(path)
    monkeypatch.setattr("sys.argv", ["ruler.py", str(path)])
    assert ruler.main() == 1
    assert "no column question, answer_prefix, answer, task, max_new_tokens" in capsys.readouterr().err


def test_a_model_with_a_chat_template_is_asked_in_a_turn():
    class Chat(Bytes):
        chat_template = "there is one"

        def apply_chat_template(self, turns: list, tokenize: bool, add_generation_prompt: bool) -> str:
            return f"<user>{turns[0]['content']}</user><model>"

    assert ruler._around(Chat(), "Text.") == ("<user>Text.", "</user><model>")
    assert ruler._around(Bytes(), "Text.") == ("Text.", "")
