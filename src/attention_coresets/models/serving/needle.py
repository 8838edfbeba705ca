"""The needle test: facts planted in a long text, asked for once the text's cache is a coreset.

SmolLM2-135M-Instruct answers these phrasings and topics from its full cache at 1000 to 2000 tokens of prose. Of several
facts of one kind (the secret numbers of four cities) it confuses the first with the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from attention_coresets.models.serving.caches import ModelCache
from attention_coresets.models.serving.evaluation import continuation
from attention_coresets.models.topics import FEW, TOPICS


@dataclass(frozen=True)
class Needle:
    """A fact to find again: the `topic` is `value`, planted after the share `depth` of the text.

    Raises ValueError for a depth outside 0 to 1.
    """

    topic: str
    value: str
    depth: float

    def __post_init__(self) -> None:
        if not 0 <= self.depth <= 1:
            raise ValueError(f"depth must lie between 0 and 1, got {self.depth}")

    @property
    def fact(self) -> str:
        return f"\n\nThe {self.topic} is {self.value}.\n\n"

    @property
    def question(self) -> str:
        return f"\n\nQuestion: What is the {self.topic}?\n\nAnswer: The {self.topic} is"

    @property
    def answer(self) -> str:
        return f" {self.value}"


@dataclass(frozen=True)
class Answer:
    """How the model answers: mean loss of the answer's tokens in nats, and whether each was the most probable one."""

    loss: float
    found: bool


def draw(seed: int, topics: Sequence[str] = TOPICS[:FEW]) -> list[Needle]:
    """Makes a needle for each topic, its five-digit number drawn, in the middle of its equal part of the text."""
    numbers = torch.randint(10**4, 10**5, (len(topics),), generator=torch.Generator().manual_seed(seed)).tolist()
    depths = [(i + 0.5) / len(topics) for i in range(len(topics))]
    return [Needle(topic, str(v), depth) for topic, v, depth in zip(topics, numbers, depths, strict=True)]


def plant(tokenizer, text: Int[Tensor, "t"], needles: Sequence[Needle], length: int) -> tuple[Int[Tensor, "n"], int]:
    """Plants the facts in the text's first tokens, `length` tokens in all.

    Parameters
    ----------
    tokenizer
    text : Int[Tensor, "t"]
    needles : Sequence[Needle]
        Their depths are shares of the text's own tokens.
    length : int

    Returns
    -------
    Int[Tensor, "n"], int
        The tokens, and how many of them are the text's own.

    Raises
    ------
    ValueError
        Where facts or text do not fit.
    """
    facts = [(needle, encode(tokenizer, needle.fact)) for needle in sorted(needles, key=lambda needle: needle.depth)]
    own = length - sum(len(fact) for _, fact in facts)
    if own < 1 or own > len(text):
        raise ValueError(f"{length} tokens with {len(facts)} facts need 1 to {len(text)} tokens of the text, got {own}")
    pieces, last = [], 0
    for needle, fact in facts:
        here = round(needle.depth * own)
        pieces += [text[last:here], fact]
        last = here
    return torch.cat([*pieces, text[last:own]]), own


def ask(model, tokenizer, cache: ModelCache, needle: Needle) -> Answer:
    """Puts the question after the cache's tokens and reads off the answer, teacher-forced; the cache stays as it is."""
    question, answer = encode(tokenizer, needle.question), encode(tokenizer, needle.answer)
    ids = torch.cat([question, answer])[None].to(model.device)
    rows = continuation(model, cache, ids)[0, len(question) - 1 : -1].cpu()  # predictions of the answer's tokens
    loss = -rows.gather(-1, answer[:, None]).mean()
    return Answer(float(loss), bool((rows.argmax(dim=-1) == answer).all()))


def encode(tokenizer, text: str) -> Int[Tensor, "t"]:
    """Returns the text's tokens alone, without those that a tokenizer puts at the ends."""
    return tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False).input_ids[0]
