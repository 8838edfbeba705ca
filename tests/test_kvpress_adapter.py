"""A saved prompt read by kvpress, in an environment of its own, against this package's continuation of it.

ATTENTION_CORESETS_KVPRESS names a folder of `pip install --no-deps --target FOLDER -r requirements-kvpress.txt`.
"""

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

transformers = pytest.importorskip("transformers")

from attention_coresets.models.serving import continuation  # noqa: E402
from attention_coresets.models.serving.caches import coreset_layers  # noqa: E402
from attention_coresets.models.serving.ragged import Ragged  # noqa: E402
from attention_coresets.models.whole.prompt import compress_prompt  # noqa: E402
from attention_coresets.models.whole.prompt_files import save_prompt  # noqa: E402
from serving_models import make, text  # noqa: E402

FOLDER = os.environ.get("ATTENTION_CORESETS_KVPRESS", "")
TESTS = Path(__file__).parent


def scores_of(core: Ragged) -> torch.Tensor:
    """What a file of this prompt of 40 tokens scores them, ``[kv, 40]``, head after head, without the adapter."""
    found, weights = torch.zeros(len(core.sizes), 40), torch.zeros(len(core.indices))
    weights = weights if core.log_weights is None else core.log_weights
    for head, (size, end) in enumerate(zip(core.sizes, accumulate(core.sizes), strict=True)):
        found[head, core.indices[end - size : end].long()] = weights[end - size : end].exp()
    return found


@pytest.mark.skipif(
    not FOLDER, reason="kvpress' transformers is older than this package's: ATTENTION_CORESETS_KVPRESS names its folder"
)
def test_kvpress_reads_a_saved_prompt_as_this_package_does(tmp_path) -> None:
    model, ids, more = make("Llama"), text(), text(seed=3)[:, :12]
    cache = compress_prompt(model, ids, share=0.3)
    weighted = continuation(model, cache, more)
    make("Llama").save_pretrained(tmp_path / "model")
    save_prompt(cache, tmp_path / "prompt.safetensors")
    torch.save({"ids": ids, "more": more}, tmp_path / "out.in")
    for layer in coreset_layers(cache):
        layer.cores[:] = [replace(core, log_weights=None) for core in layer.cores]
    plain = continuation(model, cache, more)
    paths = os.pathsep.join([FOLDER, str(TESTS.parent / "src")])
    names = [str(tmp_path / name) for name in ("model", "prompt.safetensors", "out")]
    done = subprocess.run(
        [sys.executable, str(TESTS / "kvpress_child.py"), *names],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "out")
    torch.testing.assert_close(found["True"], weighted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["False"], plain, rtol=1e-4, atol=1e-4)
    assert float((weighted - plain).abs().max()) > 0.01
    assert found["ratio"] == pytest.approx(0.7)
    assert "is of a prompt of 40 tokens, and the model has read 9" in found["wrong"]
    assert found["left"] == 12
    for layer, (heads, tokens) in zip(coreset_layers(cache), found["hidden"], strict=True):
        kept = scores_of(layer.cores[0]) > 0
        left = torch.ones_like(kept).index_put((heads, tokens), torch.tensor(False))
        # its budget is of a layer, the prompt's of the model: one of the two has room for more
        assert int((left & kept).sum()) == min(int(left.sum()), int(kept.sum()))


@pytest.fixture
def adapter(monkeypatch) -> ModuleType:
    """The adapter where kvpress is not installed: what it does itself."""
    monkeypatch.setitem(sys.modules, "kvpress", SimpleNamespace(BasePress=object, ScorerPress=object))
    monkeypatch.delitem(sys.modules, "attention_coresets.kvpress_adapter", raising=False)
    module = importlib.import_module("attention_coresets.kvpress_adapter")
    monkeypatch.delitem(sys.modules, "attention_coresets.kvpress_adapter")
    return module


@pytest.mark.parametrize("family", ["GPTNeoX", "Persimmon"])
def test_a_model_that_kvpress_does_not_know_is_refused(adapter, family, tmp_path) -> None:
    model, ids = make(family), text()
    save_prompt(compress_prompt(model, ids, share=0.3), tmp_path / "prompt.safetensors")
    with pytest.raises(ValueError, match=f"{family}ForCausalLM: kvpress works on"):
        adapter.CoresetPress(str(tmp_path / "prompt.safetensors"))(model).__enter__()


def test_scores_are_the_weights_of_what_is_kept(adapter, tmp_path) -> None:
    model, ids = make("Llama"), text()
    cache = compress_prompt(model, ids, share=0.3)
    save_prompt(cache, tmp_path / "prompt.safetensors")
    press = adapter.CoresetScorer(0.7, str(tmp_path / "prompt.safetensors"))
    for index, layer in enumerate(coreset_layers(cache)):
        module, wanted = SimpleNamespace(layer_idx=index), scores_of(layer.cores[0])
        keys, hidden = torch.zeros(2, len(wanted), 40, 8), torch.zeros(2, 40, 16)
        torch.testing.assert_close(press.score(module, hidden, keys, keys, None, {}), wanted.expand(2, -1, -1))
        with pytest.raises(ValueError, match="of a prompt of 40 tokens, and the model has read 9"):
            press.score(module, hidden, keys[:, :, :9], keys[:, :, :9], None, {})


def test_a_press_without_weights_is_released(adapter, tmp_path) -> None:
    """What kvpress reads of the module, without kvpress."""
    model, ids = make("Llama"), text()
    save_prompt(compress_prompt(model, ids, share=0.3), tmp_path / "prompt.safetensors")
    press = adapter.CoresetPress(str(tmp_path / "prompt.safetensors"), weighted=False)
    with press(model):
        model(ids)
    attentions = [layer.self_attn for layer in model.model.layers]
    assert sum(len(each.masked_key_indices[0]) for each in attentions) == round(0.7 * 160)
    press.release()
    assert [each.masked_key_indices for each in attentions] == [None, None]
