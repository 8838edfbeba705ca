"""A saved prompt read by kvpress, in an environment of its own, against this package's continuation of it.

ATTENTION_CORESETS_KVPRESS names a folder of `pip install --target FOLDER kvpress` (and its transformers, too).
"""

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

transformers = pytest.importorskip("transformers")

from attention_coresets.models.serving import continuation  # noqa: E402
from attention_coresets.models.serving.caches import coreset_layers  # noqa: E402
from attention_coresets.models.whole.prompt import compress_prompt  # noqa: E402
from attention_coresets.models.whole.prompt_files import save_prompt  # noqa: E402
from serving_models import make, text  # noqa: E402

FOLDER = os.environ.get("ATTENTION_CORESETS_KVPRESS", "")
TESTS = Path(__file__).parent


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


@pytest.fixture
def adapter(monkeypatch) -> ModuleType:
    """The adapter where kvpress is not installed: what it does itself."""
    monkeypatch.setitem(sys.modules, "kvpress", SimpleNamespace(BasePress=object))
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
