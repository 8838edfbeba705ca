"""Numbers that a page states by hand: each is to be generated from results, or listed with what kind of number it is.

The rule. Outside generated blocks no number may stand on a page, in prose, headings, tables or comments of code,
unless docs/typed_numbers.txt lists it. A number is a numeral, a number word from two to million, a fraction in words,
or a word that counts without saying how many ("most", "all but", "nearly every", "per cent"). What needs no listing:

* code, unless a number is all that is between its backticks, and targets of links;
* "at most"; years after a name and arXiv numbers, which cite; numerals glued to a word, as in SmolLM2 and O(1);
* a setting, n, d or m beside its value: "n = 2048", "d ≤ 4";
* on the pages in `MATHEMATICS`, 0, 1, names of equations, and a numeral beside an operator or a symbol of one letter.

The list has a heading [page] for each page and under it lines "words of the page | kind", the kind one of `KINDS`,
none of which is a measurement. The words excuse the numbers in them wherever the page has them, so they have to say of
what the number is. A line that excuses nothing any more is an error too.

What this cannot see: measurements without a number ("better", "every", "none", "both", "one of these"), written as a
setting ("m = 37 suffice"), in code, in formulas on the pages of mathematics, in figures or in docstrings; and words
listed as a definition that are none, which is for whoever reads the change to the list.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attention_coresets.analysis.parts.markdown import blanked, without_blocks

LIST = "docs/typed_numbers.txt"
KINDS = ("definition", "mathematics", "setting", "target", "reference")
MATHEMATICS = ("docs/theory.md", "docs/lower_bound.md", "docs/certificates.md", "docs/minimax.md")
REMEDY = f"make it a block that a topic computes from results, or, if it is no measurement, list it in {LIST}"

_WORD = re.compile(
    r"(?<![^\W_])(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|tens|dozens?|hundreds?|thousands?|millions?|half|halves|thirds?"
    r"|quarters?|(?:fif|six|seven|eigh|nin|ten|twelf|sixteen)ths?|twice|thrice|doubl\w+|tripl\w+|(?<!at\s)most|all\s+but"
    r"|(?:nearly|almost)\s+(?:all|every|none)|per\s*cent|(?:several|many|a\s+few)\s+times)"
    r"(?![^\W_]|-(?!fold|\w+ths?\b|thirds?|quarters?|one|two|three|four|five|six|seven|eight|nine|to)\w)",
    re.IGNORECASE,
)
_NUMERAL = re.compile(
    r"(?<![\w.^/·√])(?:[0-9](?:[0-9.,/–-]*[0-9])?(?:e[−-]?[0-9]+)?[⁰¹²³⁴-⁹⁻]*|[½⅓⅔¼¾⅛])"
    r"(?:×|x|-fold|st|nd|rd|th|[mnµ]?s|min|h|[kMG]i?B|[kM])?(?![\w^/·√])"
)
_GLUED = re.compile(r"""[^\W_]\^?[(\[{*_"“‘'~+−–-]+$""")  # what ends before a numeral of a formula or a name
_EXCUSED = re.compile(
    r"[A-ZÄÖÜ]\w+,?\s+(?:19[5-9]\d|20[0-3]\d)\b|\b\d{4}\.\d{5}\b(?:,\s+20[0-3]\d)?"  # citations
    r"|(?<!\w)[ndm]\s?[=≤≥<>]\s?[0-9][0-9.]*"  # settings
)
_PLAIN = re.compile(r"\([0-9]\)|\b[01]\b")  # of mathematics: names of equations, and the numbers 0 and 1
_FORMULA = re.compile(r"[(|]*[^\W\d_aAIs][)|.,;:*]*|.*[=≤≥<>^√+−·×/→∈²³].*")
_CODE = re.compile(r"(?s:^```.*?^```)|(?:(?<=\n\n)|\A)(?: {4}.*\n?|\n(?= {4}))+", re.MULTILINE)
_BEFORE_COMMENT = re.compile(r"^.*?(?=(?:^|\s)# |$)", re.MULTILINE)
_INLINE, _LINK = re.compile(r"`([^`]*)`"), re.compile(r"\]\([^)]*\)|https?://\S+")


@dataclass(frozen=True)
class Listed:
    """A line of the list: the words of the page that it excuses, and where it stands."""

    page: str
    words: str
    line: int

    def places(self, text: str) -> list[tuple[int, int]]:
        """Where the page has the words, however its lines are broken."""
        words = r"\s+".join(re.escape(word) for word in self.words.split())
        return [found.span() for found in re.finditer(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE)]


def complaints(pages: Mapping[str, str], text: str) -> list[str]:
    """What is wrong with the pages, name → text, by the text of the list: a line each, with place, words and remedy."""
    entries, found = _read(text)
    found += [f"{_place(entry)} there is no such page as {entry.page}" for entry in entries if entry.page not in pages]
    for name, page in pages.items():
        found += _of_page(name, page, [entry for entry in entries if entry.page == name])
    return found


def typed(name: str, page: str) -> list[tuple[int, int]]:
    """Where on a page the numbers start and end that have to be listed."""
    prose = _prose(page)
    mathematics = name in MATHEMATICS
    rules = (_EXCUSED, _PLAIN) if mathematics else (_EXCUSED,)
    excused = [found.span() for rule in rules for found in rule.finditer(prose)]
    numerals = [
        found.span()
        for found in _NUMERAL.finditer(prose)
        if not _GLUED.search(prose, max(0, found.start() - 9), found.start())
        and not (mathematics and _in_formula(prose, *found.span()))
    ]
    words = [found.span() for found in _WORD.finditer(prose)]
    return sorted(span for span in (*words, *numerals) if not _within(span, excused))


def _prose(page: str) -> str:
    """The page with blocks, code and targets of links blanked out, but for comments of code and numbers set as code."""
    text = _CODE.sub(lambda code: _BEFORE_COMMENT.sub(lambda line: blanked(line[0]), code[0]), without_blocks(page))
    text = _INLINE.sub(lambda code: f" {code[1]} " if _NUMERAL.fullmatch(code[1]) else blanked(code[0]), text)
    return _LINK.sub(lambda link: blanked(link[0]), text)


def _in_formula(prose: str, start: int, end: int) -> bool:
    """Whether the word before or after is an operator, a symbol of one letter, or holds an operator."""
    beside = [*prose[:start].split()[-1:], *prose[end:].split()[:1]]
    return any(_FORMULA.fullmatch(word) for word in beside)


def _within(span: tuple[int, int], places: Iterable[tuple[int, int]]) -> bool:
    return any(start <= span[0] and span[1] <= end for start, end in places)


def _of_page(name: str, page: str, entries: list[Listed]) -> list[str]:
    numbers = typed(name, page)
    places = {entry: entry.places(page) for entry in entries}
    lines: dict[int, list[tuple[int, int]]] = {}
    for span in numbers:
        if not any(_within(span, found) for found in places.values()):
            lines.setdefault(page.count("\n", 0, span[0]) + 1, []).append(span)
    idle = [entry for entry, found in places.items() if not any(_within(span, found) for span in numbers)]
    return [_typed_by_hand(name, page, line, spans) for line, spans in lines.items()] + [
        f'{_place(entry)} "{entry.words}" excuses no number of {name} any more: delete the line' for entry in idle
    ]


def _typed_by_hand(name: str, page: str, line: int, spans: list[tuple[int, int]]) -> str:
    words = ", ".join(f'"{" ".join(page[start:end].split())}"' for start, end in spans)
    around = " ".join(page[max(0, spans[0][0] - 40) : spans[-1][1] + 30].split())
    return f"{name}:{line}: {words} typed by hand (…{around}…): {REMEDY}"


def _read(text: str) -> tuple[list[Listed], list[str]]:
    """The lines of the list, and what is wrong with it. Lines that begin with # and empty ones are for readers."""
    page, entries, wrong = "", [], []
    for k, line in enumerate(text.splitlines(), start=1):
        words, _, kind = (part.strip() for part in line.rpartition("|"))
        if line.startswith("[") and line.rstrip().endswith("]"):
            page = line.strip()[1:-1]
        elif line.strip() and not line.startswith("#"):
            entries.append(Listed(page, words, k))
            if kind not in KINDS:
                wrong.append(f'{_place(entries[-1])} "{kind}" is no kind of number; known: {", ".join(KINDS)}')
            if not re.search(r"[^\W\d_]", _NUMERAL.sub("", _WORD.sub("", words))):
                wrong.append(f'{_place(entries[-1])} "{words}" does not say of what the number is: add words beside it')
    return entries, wrong


def _place(entry: Listed) -> str:
    return f"{LIST}:{entry.line}:"
