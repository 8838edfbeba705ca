"""The rooms of the analysis: imports run one way, every topic is listed once, and no two things share a name."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from attention_coresets.analysis.parts.topic import KINDS
from attention_coresets.analysis.parts.wording import claimed
from attention_coresets.analysis.topics.contents import CLAIMS, TOPICS
from synthetic_results import synthetic_results

ANALYSIS = Path(__file__).resolve().parent.parent / "src" / "attention_coresets" / "analysis"
PACKAGE = "attention_coresets.analysis"
ROOMS = ("stats", "parts", "figures", "topics", "report")  # each imports from those before it
ACROSS = {  # topics that import another
    *{("language_model", "real_heads"), ("real_heads", "upper_bound")},
    *{("facts", "language_model"), ("facts", "real_heads"), ("head_sizes", "real_heads")},
    *{("answers", "facts"), ("answers", "language_model"), ("answers", "real_heads")},
}


def imported(file: Path) -> set[tuple[str, ...]]:
    """The modules of the package that a file imports, as parts of their names below the package."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return {tuple(name.removeprefix(f"{PACKAGE}.").split(".")) for name in names if name.startswith(f"{PACKAGE}.")}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room):
    files = list((ANALYSIS / room).rglob("*.py"))
    assert files
    for file in files:
        later = {name for name in imported(file) if name[0] not in ROOMS[: ROOMS.index(room) + 1]}
        assert not later, f"{file} imports {later}"


def test_topics_import_one_another_only_where_said():
    topics = {path.parent.name for path in ANALYSIS.glob("topics/*/topic.py")}
    pairs = {
        (own, name[1]) for own in topics for f in (ANALYSIS / "topics" / own).rglob("*.py") for name in imported(f)
    }
    assert {(own, other) for own, other in pairs if other in topics - {own}} == ACROSS


def test_every_folder_is_listed_and_names_differ():
    folders = [path for path in (ANALYSIS / "topics").iterdir() if (path / "__init__.py").exists()]
    assert len(folders) == len(TOPICS) == len(list(ANALYSIS.glob("topics/*/topic.py")))
    assert {topic.kind for topic in TOPICS} == set(KINDS)
    blocks = Counter(name for topic in TOPICS for name in (*topic.sentences, *topic.tables))
    figures = Counter(name for topic in TOPICS for name in topic.figures)
    assert {*blocks.values(), *figures.values()} == {1}


def test_a_sentence_cannot_quote_a_claim_that_there_is_not():
    with pytest.raises(KeyError, match="gama_uniform"):
        claimed(CLAIMS, synthetic_results(), "gama_uniform")
