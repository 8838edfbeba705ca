"""Questions on a long text, put once its cache is a coreset: planted facts, lists, quotations, the text once more.

SmolLM2-135M-Instruct answers these phrasings of facts of different kinds from its full cache at 1000 to 2000 tokens of
prose. Facts of one kind (the secret numbers of several cities) it confuses, and of most values and quotations it gets a
part of the tokens alone: there the share of the answer's tokens that are right, and their loss, tell more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from attention_coresets.models.serving.caches import ModelCache
from attention_coresets.models.serving.evaluation import continuation
from attention_coresets.models.topics import CITIES, FEW, PROBES, TOPICS, WORDS

_BEFORE, _ANSWER = 12, 10  # tokens of a quotation that are given, and that are asked for


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


class Pair(Needle):
    """A line of a list of keys and values."""

    @property
    def fact(self) -> str:
        return f"\nKey {self.topic}: {self.value}\n"

    @property
    def question(self) -> str:
        return f"\n\nQuestion: What is the value of key {self.topic}?\n\nAnswer: Key {self.topic}:"


@dataclass(frozen=True)
class Quote:
    """A place of the text, to be quoted on from."""

    given: str
    answer: str

    @property
    def question(self) -> str:
        return f'\n\nQuote from the text above: "...{self.given}'


@dataclass(frozen=True, eq=False)
class Passage:
    """A piece of the text, to be said again right after it, as a replay does (whole/replay.py): its loss is nearly
    in-sample wherever queries of that replay chose what is kept.

    ids: at least 2 tokens. The first is given, the others are the answer.
    """

    ids: Int[Tensor, "t"]


Asked = Needle | Quote | Passage


@dataclass(frozen=True)
class Answer:
    """How the model answers, teacher-forced.

    loss: mean over the answer's tokens, in nats. right: share of them that were the most probable ones; found: all.
    """

    loss: float
    right: float

    @property
    def found(self) -> bool:
        return self.right == 1


def draw(seed: int, topics: Sequence[str] = TOPICS[:FEW]) -> list[Needle]:
    """Makes a needle for each topic, its five-digit number drawn, in the middle of its equal part of the text."""
    numbers = torch.randint(10**4, 10**5, (len(topics),), generator=torch.Generator().manual_seed(seed)).tolist()
    depths = [(i + 0.5) / len(topics) for i in range(len(topics))]
    return [Needle(topic, str(v), depth) for topic, v, depth in zip(topics, numbers, depths, strict=True)]


def drawn(probe: str, seed: int, count: int) -> list[Needle]:
    """Makes what a probe of PROBES plants: `count` needles, none for quotations.

    Raises ValueError for another probe, or more needles than it has names for.
    """
    if probe in ("facts", "repetition"):
        return draw(seed, TOPICS[:count])
    if probe == "one_kind":
        return draw(seed, [f"secret number of {city}" for city in CITIES[:count]])
    if probe == "pairs":
        order = torch.randperm(len(WORDS), generator=torch.Generator().manual_seed(seed)).tolist()
        keys = [f"{WORDS[i]}-{WORDS[j]}" for i, j in zip(order[::2], order[1::2], strict=True)]
        return [Pair(needle.topic, needle.value, 0.5) for needle in draw(seed, keys[:count])]
    if probe == "quotes":
        return []
    raise ValueError(f"probe = {probe!r} is none of {', '.join(PROBES)}")


def quotes(tokenizer, text: Int[Tensor, "n"], count: int) -> list[Quote]:
    """Takes `count` places of the text, each in the middle of its equal part; ValueError for a text too short."""
    if len(text) < count * (_BEFORE + _ANSWER):
        raise ValueError(f"{count} quotations need {count * (_BEFORE + _ANSWER)} tokens of text, got {len(text)}")
    places = [round((i + 0.5) / count * len(text)) for i in range(count)]
    given = [(text[p - _BEFORE : p], text[p : p + _ANSWER]) for p in places]
    return [Quote(*(tokenizer.decode(part) for part in parts)) for parts in given]


def passages(text: Int[Tensor, "n"], chunk: int) -> list[Passage]:
    """Cuts the text into the pieces that a replay repeats one by one; a last token that is left alone is no piece."""
    return [Passage(piece) for piece in text.split(chunk) if len(piece) > 1]


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


def ask(model, tokenizer, cache: ModelCache, asked: Asked) -> Answer:
    """Puts the question after the cache's tokens and reads off the answer, teacher-forced; the cache stays as it is."""
    if isinstance(asked, Passage):
        question, answer = asked.ids.cpu().tensor_split([1])
    else:
        question, answer = encode(tokenizer, asked.question), encode(tokenizer, asked.answer)
    ids = torch.cat([question, answer])[None].to(model.device)
    rows = continuation(model, cache, ids)[0, len(question) - 1 : -1].cpu()  # predictions of the answer's tokens
    loss = -rows.gather(-1, answer[:, None]).mean()
    return Answer(float(loss), float((rows.argmax(dim=-1) == answer).double().mean()))


def encode(tokenizer, text: str) -> Int[Tensor, "t"]:
    """Returns the text's tokens alone, without those that a tokenizer puts at the ends."""
    return tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False).input_ids[0]
