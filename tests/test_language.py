"""Language cells: what their rows hold, one reading of a text for all arms, and the needle test."""

import itertools
import math

import pytest
import torch

transformers = pytest.importorskip("transformers")

from attention_coresets.coresets import make_coreset  # noqa: E402
from attention_coresets.models.capture import Source, segment  # noqa: E402
from attention_coresets.models.language_models import load_model  # noqa: E402
from attention_coresets.models.serving import ask, compress, continuation, losses, plant, prefill  # noqa: E402
from attention_coresets.models.serving import needle as needles  # noqa: E402
from attention_coresets.models.topics import CITIES  # noqa: E402
from attention_coresets.models.whole.prompt import compress_prompt  # noqa: E402
from attention_coresets.models.whole.replay import read as replay  # noqa: E402
from attention_coresets.models.whole.replay_fit import ReplayFit  # noqa: E402
from attention_coresets.study import language  # noqa: E402
from attention_coresets.study.cell import run_cell  # noqa: E402
from attention_coresets.study.checks import check  # noqa: E402
from attention_coresets.study.curves import place_of, placed  # noqa: E402
from attention_coresets.study.disk import StudyError  # noqa: E402
from attention_coresets.study.identity import cell_hash, identity  # noqa: E402
from attention_coresets.study.table import COLUMNS, LABELS, to_frame  # noqa: E402

N, C = 48, 9


def configuration(**changes) -> dict:
    cache = {"name": "model", "model": "tiny-random", "n": N, "queries": C, "calibration": 16, "shuffle": False}
    base = {
        "cache": cache,
        "coreset": {"name": "snapkv", "window": 4},
        "rho": 4.0,
        "seed": 3,
        "heads": 1,
        "sizes": [12, N],
        "task": "language",
        "keep_recent": 0,
        "tier": "smoke",
        "adversary": {"restarts": 8, "steps": 10, "polish": 5, "certify": False, "gap": 1e-4},
        "compute": {"device": "cpu", "dtype": "float32", "threads": None},
        "tracking": {"name": "none"},
    }
    return base | changes


def test_rows_hold_what_the_serving_functions_measure() -> None:
    rows = run_cell(configuration())
    assert [set(row) for row in rows] == [set(COLUMNS) - set(LABELS)] * 2
    small, whole = rows
    assert (small["size"], small["n"], small["d"], small["head"]) == (12, N, 16, 0)
    assert all(math.isnan(small[name]) for name in ("error", "sigma", "needle_loss", "needle_found_full", "layer"))
    assert whole["loss"] == pytest.approx(whole["loss_full"], abs=1e-5)
    assert whole["kl"] == pytest.approx(0, abs=1e-6)
    assert whole["agreement"] == 1
    model, tokenizer, _ = load_model("tiny-random")
    ids, _ = segment(Source("tiny-random", "britannica", N, C), model, tokenizer)
    with torch.no_grad():
        full = model(ids).logits[:, N:].log_softmax(-1)
    assert small["loss_full"] == pytest.approx(float(losses(full, ids[:, N:]).mean()), abs=1e-5)
    held = compress(prefill(model, ids[:, :N], 16), make_coreset("snapkv", window=4), 12)
    found = continuation(model, held, ids[:, N:])
    assert small["loss"] == pytest.approx(float(losses(found, ids[:, N:]).mean()), abs=1e-5)
    assert small["kl"] > 0.01
    assert small["kept_bytes"] == 2 * 2 * 12 * (2 * 16 * 4 + 4)  # layers, KV heads, tokens: keys, values, indices
    frame = to_frame([row | dict.fromkeys(LABELS, "x") for row in rows])
    assert list(frame["loss"]) == [row["loss"] for row in rows]


def test_a_text_is_read_once_for_all_arms(monkeypatch) -> None:
    language._read.cache_clear()
    reads = []
    monkeypatch.setattr(language, "prefill", lambda *a: reads.append(a) or prefill(*a))
    uniform = {"name": "uniform", "sinks": 0}
    first, again = (run_cell(configuration(coreset=uniform, sizes=[8])) for _ in range(2))
    other = run_cell(configuration(coreset=uniform, sizes=[8, 9], seed=4))
    run_cell(configuration(keep_recent=4, sizes=[8]))
    assert len(reads) == 1
    assert first[0]["loss"] == again[0]["loss"] != other[0]["loss"]
    run_cell(configuration(cache=configuration()["cache"] | {"start": 5}, sizes=[8]))
    assert len(reads) == 2


def test_cells_of_errors_keep_their_names() -> None:
    """Results on disk from before there was a task stay where they are found."""
    plain = configuration(task="errors")
    older = {key: value for key, value in plain.items() if key not in ("task", "keep_recent")}
    assert cell_hash(plain) == cell_hash(older)
    read = {key: value for key, value in identity(older).items() if key != "adversary"}
    assert identity(configuration(keep_recent=2)) == read | {"task": "language", "keep_recent": 2}


def test_cells_of_replays_without_a_lead_keep_their_names_and_those_with_one_have_others() -> None:
    """There was no lead at first; and then its own queries did not count."""
    none, zero, some = ({"name": "replay_fit", **asked} for asked in ({}, {"lead": 0}, {"lead": 32}))
    first, plain, led = (identity(configuration(coreset=coreset)) for coreset in (none, zero, some))
    assert first == plain != led
    assert led["format"] == plain["format"] + 1


def test_a_replay_has_the_lead_that_its_construction_says(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(language, "replay", lambda *a: asked.append(a[-1]) or replay(*a))
    for lead in (0, 7):
        language._replayed.cache_clear()
        run_cell(configuration(coreset={"name": "replay_fit", "lead": lead}, sizes=[16]))
    run_cell(configuration(coreset={"name": "attention_matching"}, sizes=[16]))
    assert asked == [0, 7, 32]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "loss"}, "task=loss: must be one of errors, structured, hardness, language"),
        ({"task": "errors", "keep_recent": 2}, "keep_recent=2: must be 0 but for task=language"),
        ({"task": "errors", "probe": "pairs"}, "probe=pairs: must be facts but for task=language"),
        ({"keep_recent": -1}, "keep_recent=-1: must be at least 0"),
        ({"keep_recent": 12}, r"sizes=\[12, 48\]: must be above keep_recent=12"),
        ({"sizes": [N + 1]}, r"sizes=\[49\]: must be at most cache.n=48 for task=language"),
        ({"cache": {"name": "sphere", "n": 64, "d": 2}, "coreset": {"name": "uniform"}}, "cache=sphere: must be model"),
    ],
)
def test_cells_that_cannot_be_are_refused(changes, message) -> None:
    with pytest.raises(StudyError, match=message):
        check(configuration(**changes))


class Letters:
    """A tokenizer: one token a letter."""

    def __call__(self, text, **options):
        ids = torch.tensor([[ord(letter) for letter in text]])
        return type("Encoded", (), {"input_ids": ids})


def test_needles_are_planted_in_their_places() -> None:
    drawn = needles.draw(7)
    assert [needle.depth for needle in drawn] == [0.125, 0.375, 0.625, 0.875]
    assert drawn == needles.draw(7) != needles.draw(8)
    text = torch.full((900,), ord("x"))
    ids, own = plant(Letters(), text, drawn, 800)
    planted = "".join(chr(i) for i in ids)
    assert len(planted) == 800
    assert planted.count("x") == own
    for needle in drawn:
        before = planted[: planted.index(needle.fact)]
        assert before.count("x") == round(needle.depth * own)
        assert needle.fact == f"\n\nThe {needle.topic} is{needle.answer}.\n\n"
    with pytest.raises(ValueError, match="100 tokens with 4 facts need 1 to 900 tokens of the text, got"):
        plant(Letters(), text, drawn, 100)
    with pytest.raises(ValueError, match="depth must lie between 0 and 1, got 2"):
        needles.Needle("colour", "1", 2.0)


def test_probes_of_one_kind_and_pairs_differ_in_a_name_and_stand_where_they_should() -> None:
    cities = needles.drawn("one_kind", 3, 8)
    assert len({needle.topic.replace(city, "") for needle, city in zip(cities, CITIES, strict=True)}) == 1
    pairs = needles.drawn("pairs", 3, 8)
    words = [word for pair in pairs for word in pair.topic.split("-")]
    assert len(set(words)) == 16  # no word names two keys
    text = torch.full((900,), ord("x"))
    planted, own = plant(Letters(), text, pairs, 900)
    whole = "".join(pair.fact for pair in pairs)
    assert "".join(chr(i) for i in planted) == "x" * round(own / 2) + whole + "x" * (own - round(own / 2))
    assert all(f"{pair.topic}:{pair.answer}\n" in whole for pair in pairs)
    assert all(pair.question.endswith(f"{pair.topic}:") for pair in pairs)
    assert needles.drawn("facts", 3, 4) == needles.draw(3)
    assert needles.drawn("quotes", 3, 8) == []
    assert needles.drawn("repetition", 3, 4) == needles.draw(3)
    with pytest.raises(ValueError, match="probe = 'riddles' is none of facts, one_kind, pairs, quotes, repetition"):
        needles.drawn("riddles", 3, 8)


def test_quotations_are_the_texts_own_words_and_those_that_follow() -> None:
    words = torch.arange(ord("!"), ord("!") + 90)
    decode = type("Letters", (), {"decode": staticmethod(lambda ids: "".join(chr(i) for i in ids))})
    text = decode.decode(words)
    quotes = needles.quotes(decode, words, 3)
    assert len(quotes) == 3
    for i, quote in enumerate(quotes):
        place = text.index(quote.given + quote.answer)
        assert place + len(quote.given) == round((i + 0.5) / 3 * 90)
        assert quote.question.endswith(quote.given)
        assert (len(quote.given), len(quote.answer)) == (12, 10)
    with pytest.raises(ValueError, match="5 quotations need 110 tokens of text, got 90"):
        needles.quotes(decode, words, 5)


def test_answers_are_read_where_the_model_predicts_them() -> None:
    model, _, _ = load_model("tiny-random")
    needle = needles.Needle("key", "42", 0.5)
    cache = prefill(model, torch.randint(256, (1, N), generator=torch.Generator().manual_seed(0))).cache
    answer = ask(model, Letters(), cache, needle)
    rows = continuation(model, cache, Letters()(needle.question + needle.answer).input_ids)[0]
    place = len(needle.question) - 1
    expected = [-float(rows[place + i, ord(letter)]) for i, letter in enumerate(" 42")]
    assert answer.loss == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert not answer.found


def test_a_passage_is_said_again_as_a_replay_says_it() -> None:
    model, _, _ = load_model("tiny-random")
    ids = torch.randint(256, (1, 33), generator=torch.Generator().manual_seed(0))
    pieces = needles.passages(ids[0], 16)
    assert [piece.ids.tolist() for piece in pieces] == [ids[0, :16].tolist(), ids[0, 16:32].tolist()]
    answer = ask(model, None, prefill(model, ids).cache, pieces[1])
    with torch.no_grad():
        rows = model(torch.cat([ids, ids[:, 16:32]], dim=1)).logits[0, 33:-1].log_softmax(-1)
    assert answer.loss == pytest.approx(-float(rows.gather(-1, ids[0, 17:32, None]).mean()), rel=1e-5)
    assert answer.right == pytest.approx(float((rows.argmax(-1) == ids[0, 17:32]).double().mean()))


@pytest.mark.parametrize(("wrong", "right"), [(None, 1), (-1, 2 / 3), (-2, 2 / 3), (0, 1)])
def test_an_answer_is_found_where_all_its_tokens_are_most_probable(monkeypatch, wrong, right) -> None:
    """`wrong`: which token is badly predicted; the question's own do not matter."""

    def certain(model, cache, ids):
        rows = torch.full((1, ids.shape[-1], 256), -20.0)
        rows[0, torch.arange(ids.shape[-1]), ids.roll(-1, dims=-1)[0]] = 0.0
        if wrong is not None:
            rows[0, wrong - 1 if wrong < 0 else wrong] = torch.arange(256.0)
        return rows

    monkeypatch.setattr(needles, "continuation", certain)
    model = type("Model", (), {"device": "cpu"})
    answer = ask(model, Letters(), None, needles.Needle("key", "42", 0.5))
    assert answer.right == pytest.approx(right)
    assert answer.found == (right == 1)


def test_a_whole_models_coreset_is_measured_like_any_other() -> None:
    cell = configuration(coreset={"name": "replay_fit", "sinks": 2}, sizes=[12, N])
    check(cell)
    small, whole = run_cell(cell)
    assert (small["coreset"], small["model"], small["size"]) == ("replay_fit", "free", 12)
    assert whole["kl"] == pytest.approx(0, abs=1e-6)
    model, _, _ = load_model("tiny-random")
    ids, _ = segment(Source("tiny-random", "britannica", N, C), model, None)
    held = compress_prompt(model, ids[:, :N], count=12 * 4, construct=ReplayFit(sinks=2), calibration=16)
    found = continuation(model, held, ids[:, N:])
    assert small["loss"] == pytest.approx(float(losses(found, ids[:, N:]).mean()), abs=1e-5)
    assert small["kept_bytes"] == 12 * 4 * (2 * 16 * 4 + 4 + 4)  # keys, values, indices, log-weights
    plain = configuration(coreset={"name": "replay_fit", "sinks": 2, "weights": "none", "part": 1.0}, sizes=[12])
    assert run_cell(plain)[0]["model"] == "unweighted"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "errors", "sizes": [8]}, "task=errors: must be language for replay_fit"),
        ({"keep_recent": 2}, "keep_recent=2: must be 0 for replay_fit"),
        (
            {"coreset": {"name": "replay_fit", "recent": 8}},
            r"sizes=\[12, 48\]: must be above the 12 tokens that each head keeps anyway",
        ),
        ({"needles": 9}, "needles=9: must be 1 to 8"),
        ({"probe": "riddles"}, "probe=riddles: must be one of facts, one_kind, pairs, quotes, repetition"),
        ({"coreset": {"name": "replay_fit", "first": "kvzap"}}, "coreset=replay_fit: first must be one of"),
    ],
)
def test_cells_of_whole_models_that_cannot_be_are_refused(changes, message) -> None:
    with pytest.raises(StudyError, match=message):
        check(configuration(**({"coreset": {"name": "replay_fit"}} | changes)))


@pytest.mark.slow
@pytest.mark.parametrize("probe", ["one_kind", "pairs", "quotes", "repetition"])
def test_each_probe_is_asked_on_the_full_cache_as_on_a_full_coreset(probe) -> None:
    cache = configuration()["cache"] | {"model": "smollm2-135m", "n": 400, "calibration": 16}
    cell = configuration(cache=cache, sizes=[40, 400], needles=4, probe=probe)
    small, whole = run_cell(cell)
    assert (small["probe"], small["needle_loss_full"]) == (probe, whole["needle_loss_full"])
    assert whole["needle_loss"] == pytest.approx(whole["needle_loss_full"], abs=1e-3)
    assert whole["needle_right"] == whole["needle_right_full"]
    assert small["needle_loss"] > whole["needle_loss"]
    assert small["needle_right"] <= small["needle_right_full"]


@pytest.mark.slow
@pytest.mark.parametrize(("n", "across"), [(2048, False), (4096, True)])
def test_numbers_of_facts_begin_where_a_chunk_does_in_long_texts_alone(n, across) -> None:
    """Of all eight, in the texts of real_tasks and real_lengths: what real_lead is about."""
    model, tokenizer, _ = load_model("smollm2-135m")
    for text, start in itertools.product(("britannica", "code", "manual"), (25000, 70000, 75000)):
        ids, _ = segment(Source("smollm2-135m", text, n, C, start=start), model, tokenizer)
        planted, _ = plant(tokenizer, ids[0], needles.drawn("facts", start, 8), n)
        said = tokenizer.batch_decode(planted[:, None])
        for needle in needles.drawn("facts", start, 8):
            (place,) = (i for i in range(n) if "".join(said[i : i + 6]).startswith(f" {needle.value}"))
            assert (min(place % 256, -place % 256) <= 2) == across, (text, start, needle.topic, place)


def test_what_is_asked_names_a_cell_and_its_setting() -> None:
    plain, pairs = configuration(), configuration(probe="pairs")
    assert cell_hash(plain) == cell_hash(configuration(probe="facts")) != cell_hash(pairs)
    assert place_of(pairs).setting == f"{place_of(plain).setting} pairs"
    rows = to_frame([row | dict.fromkeys(LABELS, "x") for row in run_cell(pairs)])
    assert list(placed(rows)["setting"]) == [place_of(pairs).setting] * 2


def test_cells_with_as_many_needles_as_ever_keep_their_names() -> None:
    assert cell_hash(configuration()) == cell_hash(configuration(needles=4)) != cell_hash(configuration(needles=8))
