"""Compressed prompts: continued and generated from any number of times, saved and loaded, batches as single runs."""

import gc
import json

import pytest
import torch

transformers = pytest.importorskip("transformers")

from attention_coresets.models.whole import prompt  # noqa: E402
from attention_coresets.models.whole.attention_matching import AttentionMatching  # noqa: E402
from attention_coresets.models.whole.measured import Measured  # noqa: E402
from attention_coresets.models.whole.replay import read  # noqa: E402
from attention_coresets.models.whole.replay_fit import ReplayFit  # noqa: E402
from attention_coresets.serving import (  # noqa: E402
    PromptCache,
    attach,
    branch,
    cache_bytes,
    compress_prompt,
    compressed,
    continuation,
    load_prompt,
    save_prompt,
)
from serving_models import GREEDY, UNIFORM, answer, make, padded, text  # noqa: E402

MORE = text(seed=5, length=6)


def step_by_step(model, cache, ids: torch.Tensor, new: int = 5) -> torch.Tensor:
    """Greedy tokens after the cache and these, each from one forward over all that follows the prompt."""
    for _ in range(new):
        ids = torch.cat([ids, continuation(model, cache, ids)[:, -1:].argmax(-1)], dim=1)
    return ids[:, -new:]


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Gemma3", "GPTNeoX"])
def test_a_full_share_is_the_model_itself(family) -> None:
    model, ids = make(family), text()
    with torch.no_grad():
        expected = model(torch.cat([ids, MORE], dim=1)).logits[:, ids.shape[1] :].log_softmax(-1)
    cache = compress_prompt(model, ids, share=1.0)
    torch.testing.assert_close(continuation(model, cache, MORE), expected, rtol=1e-3, atol=1e-4)
    assert float(cache.errors.max()) < 1e-4
    assert int(cache.sizes.min()) == ids.shape[1]


@pytest.mark.parametrize("family", ["Llama", "Gemma3"])
def test_a_prompt_is_continued_many_times_and_stays_as_it_is(family) -> None:
    model, ids = make(family), text()
    cache = compress_prompt(model, ids, share=0.4)
    before = [x.clone() for layer in cache.layers for x in vars(layer).values() if isinstance(x, torch.Tensor)]
    following, whole = step_by_step(model, cache, MORE), torch.cat([ids, MORE], dim=1)
    for _ in range(2):
        assert torch.equal(answer(model, whole, past_key_values=cache), following)
    one = text(seed=6, length=1)
    assert torch.equal(answer(model, torch.cat([ids, one], 1), past_key_values=cache), step_by_step(model, cache, one))
    direct = model(MORE, past_key_values=cache).logits.log_softmax(-1)
    torch.testing.assert_close(direct, continuation(model, cache, MORE))
    torch.testing.assert_close(model(MORE, None, None, cache).logits.log_softmax(-1), direct)
    several = torch.cat([MORE, text(seed=7, length=6)])
    rows = answer(model, torch.cat([ids.expand(2, -1), several], dim=1), past_key_values=cache)
    assert torch.equal(rows, torch.cat([step_by_step(model, cache, row[None]) for row in several]))
    beams = answer(model, whole, past_key_values=cache, num_beams=3)
    three = branch(cache)
    three.batch_repeat_interleave(3)
    assert torch.equal(beams, answer(model, whole, past_key_values=three, num_beams=3))
    after = [x for layer in cache.layers for x in vars(layer).values() if isinstance(x, torch.Tensor)]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert cache.get_seq_length() == 40
    with torch.no_grad():  # any other cache is the model's own
        usual = model(ids).logits
    torch.testing.assert_close(usual, make(family)(ids).logits.detach(), rtol=1e-4, atol=1e-4)


def test_a_prompt_is_replayed_with_the_lead_that_the_construct_says(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(prompt, "read", lambda *a: asked.append(a[-1]) or read(*a))
    for construct in (None, ReplayFit(lead=3), AttentionMatching()):
        compress_prompt(make("Llama"), text(), 0.5, construct=construct)
    assert asked == [32, 3, 32]


def test_rows_of_a_batch_are_those_of_single_runs() -> None:
    model, rows = make(), [text(), text(seed=2, length=31)]
    ids, mask = padded(rows)
    cache = compress_prompt(model, ids, share=0.5, attention_mask=mask)
    found = continuation(model, cache, torch.cat([MORE, MORE]))
    for sample, row in enumerate(rows):
        alone = compress_prompt(model, row, share=0.5)
        torch.testing.assert_close(found[sample], continuation(model, alone, MORE)[0], rtol=1e-3, atol=1e-4)
        assert torch.equal(cache.sizes[sample], alone.sizes[0])
        torch.testing.assert_close(cache.errors[sample], alone.errors[0], rtol=1e-3, atol=1e-6)


def test_what_is_kept_is_told(capsys) -> None:
    model, ids = make(), text()
    cache = compress_prompt(model, ids, count=64)
    assert int(cache.sizes.sum()) == 64
    assert cache.sizes.shape == cache.errors.shape == (1, 2, 2)
    stored = 64 * (2 * 8 * 4 + 4 + 4)  # keys, values, indices, log-weights
    assert cache.bytes == cache_bytes(cache) == stored
    assert cache.full_bytes == 4 * 40 * 2 * 8 * 4
    print(cache)
    said = capsys.readouterr().out
    low, high = int(cache.sizes.min()), int(cache.sizes.max())
    assert f"40.0% of 40 tokens, {low} to {high} a KV head; 0.0 MB of 0.0 MB" in said
    place = int(cache.errors.flatten().argmax())
    assert f"largest layer {place // 2} head {place % 2}: {float(cache.errors.max()):.2g}" in said
    assert f"median {float(cache.errors.median()):.2g}" in said
    other = ReplayFit(first="kvzip", part=1.0, weights="none")
    plain = compress_prompt(model, ids, count=64, construct=other)
    assert all(core.log_weights is None for layer in plain.layers for core in layer.cores)


@pytest.mark.parametrize("family", ["Llama", "Gemma3"])
def test_a_prompt_is_saved_and_loaded(tmp_path, family) -> None:
    model, ids = make(family), text()
    cache = compress_prompt(model, ids, share=0.4)
    save_prompt(cache, tmp_path / "prompt.safetensors")
    fresh = make(family)
    loaded = load_prompt(fresh, tmp_path / "prompt.safetensors")
    assert isinstance(loaded, PromptCache)
    assert torch.equal(continuation(fresh, loaded, MORE), continuation(model, cache, MORE))
    whole = torch.cat([ids, MORE], dim=1)
    assert torch.equal(answer(fresh, whole, past_key_values=loaded), answer(model, whole, past_key_values=cache))
    assert torch.equal(loaded.errors, cache.errors)
    assert (loaded.bytes, loaded.full_bytes, str(loaded)) == (cache.bytes, cache.full_bytes, str(cache))
    assert [path.name for path in tmp_path.iterdir()] == ["prompt.safetensors"]


def trained():
    """A copy of the model with one matrix changed a little, as by an adapter that was merged."""
    model = make()
    model.model.layers[1].self_attn.v_proj.weight.data *= 1.001
    return model


def test_a_copy_in_another_dtype_continues_a_prompt(tmp_path) -> None:
    path = tmp_path / "prompt.safetensors"
    save_prompt(compress_prompt(make().to(torch.bfloat16), text(), share=0.4), path)
    coarse, fine = make().to(torch.bfloat16), make()
    there, here = (continuation(model, load_prompt(model, path), MORE) for model in (coarse, fine))
    assert float((there - here).abs().mean()) < 0.05


def test_files_that_do_not_fit_are_refused(tmp_path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = tmp_path / "prompt.safetensors"
    save_prompt(compress_prompt(make(), text(), share=0.4), path)
    for other in (make(num_hidden_layers=3), make(num_key_value_heads=4), make("Gemma3"), make("Qwen3"), trained()):
        with pytest.raises(ValueError, match=f"by a model of other weights than this {type(other.model).__name__}"):
            load_prompt(other, path)
    parts = load_file(path)
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    save_file({name: x for name, x in parts.items() if name != "0.0.values"}, path, metadata=meta)
    with pytest.raises(ValueError, match=r"lacks a part of the prompt \('0.0.values'\)"):
        load_prompt(make(), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="is damaged"):
        load_prompt(make(), path)
    save_file({"x": torch.zeros(1)}, path, metadata={"prompt": json.dumps({})})
    with pytest.raises(ValueError, match="of no known format"):
        load_prompt(make(), path)
    with pytest.raises(FileNotFoundError):
        load_prompt(make(), tmp_path / "none.safetensors")


def test_samples_of_different_lengths() -> None:
    """The second is too short to hold queries out; its padding is known to whatever continues it."""
    model = make()
    ids, mask = padded([text(), text(length=20, seed=1)])
    cache = compress_prompt(model, ids, share=0.5, attention_mask=mask)
    assert "50.0% of 40 tokens" in repr(cache)
    assert "nan" not in repr(cache)
    assert cache.errors.isnan().flatten(1).all(-1).tolist() == [False, True]
    more = text(2, 6, seed=9)
    direct = model(more, past_key_values=cache).logits.log_softmax(-1)
    torch.testing.assert_close(direct, continuation(model, cache, more))
    by_place = model(more, None, None, cache).logits.log_softmax(-1)
    torch.testing.assert_close(by_place, direct)
    columns = torch.cat([mask, torch.ones_like(more)], dim=1)
    places = (columns.cumsum(-1) - 1)[:, -6:]
    torch.testing.assert_close(model(more, columns, places, cache).logits.log_softmax(-1), direct)
    masked = model(more, attention_mask=columns, past_key_values=cache)
    torch.testing.assert_close(masked.logits.log_softmax(-1), direct)
    alone = compress_prompt(model, text(length=20, seed=1), share=0.5)
    torch.testing.assert_close(direct[1:], continuation(model, alone, more[1:]), rtol=1e-4, atol=1e-5)


def test_samples_of_different_lengths_on_a_device(device) -> None:
    model = make().to(device)
    ids, mask = (x.to(device) for x in padded([text(), text(length=20, seed=1)]))
    cache = compress_prompt(model, ids, share=0.5, attention_mask=mask)
    assert cache.sizes.sum(dim=(1, 2)).tolist() == [80, 40]


@pytest.mark.parametrize("construct", [ReplayFit(), AttentionMatching()])
@pytest.mark.parametrize("length", [1, 3])
def test_a_prompt_of_few_tokens_is_kept_whole(construct, length) -> None:
    model, ids = make(), text(length=length)
    with torch.no_grad():
        expected = model(torch.cat([ids, MORE], dim=1)).logits[:, length:].log_softmax(-1)
    cache = compress_prompt(model, ids, share=1.0, construct=construct)
    torch.testing.assert_close(continuation(model, cache, MORE), expected, rtol=1e-3, atol=1e-4)


def test_a_share_that_does_not_fit_is_refused_before_the_replay(monkeypatch) -> None:
    monkeypatch.setattr("attention_coresets.models.whole.prompt.read", lambda *_: pytest.fail("read"))
    with pytest.raises(ValueError, match="keep 20 to 160 tokens in all, got 16"):
        compress_prompt(make(), text(), share=0.1)
    ids, mask = padded([text(), text(length=20, seed=1)])
    with pytest.raises(ValueError, match="keep 20 to 80 tokens in all, got 100"):
        compress_prompt(make(), ids, count=100, attention_mask=mask)


def test_what_cannot_be_is_refused_in_words() -> None:
    model, ids = make(), text()
    with pytest.raises(ValueError, match="ids must be tokens"):
        compress_prompt(model, ids[:, :0], share=0.5)
    with pytest.raises(ValueError, match="nothing but padding"):
        compress_prompt(model, text(2), share=0.5, attention_mask=torch.tensor([[1], [0]]).expand(2, 40))
    with pytest.raises(ValueError, match="ids must be tokens"):
        continuation(model, compress_prompt(model, ids, share=0.4), MORE[:, :0])
    for wrong in ({}, {"share": 0.5, "count": 80}):
        with pytest.raises(ValueError, match="give a share or a count of tokens, not both"):
            compress_prompt(model, ids, **wrong)
    with pytest.raises(ValueError, match=r"share = 1.5 must lie in \(0, 1\]"):
        compress_prompt(model, ids, share=1.5)
    with pytest.raises(ValueError, match="keep 20 to 160 tokens in all, got 16"):
        compress_prompt(model, ids, share=0.1)
    with pytest.raises(ValueError, match="wording = 'Again:' needs the model's tokenizer"):
        compress_prompt(model, ids, share=0.5, construct=ReplayFit(wording="Again:"))
    cache = compress_prompt(model, ids, share=0.4)
    two = compress_prompt(model, text(2), share=0.4)
    with pytest.raises(ValueError, match="a batch of 3 cannot continue the 2 samples"):
        model(text(3, 2), past_key_values=two)
    other = make()
    with pytest.raises(ValueError, match=r"call `attach\(model, cache\)`"):
        other(MORE, past_key_values=cache)
    attach(other, cache)
    torch.testing.assert_close(other(MORE, past_key_values=cache).logits, model(MORE, past_key_values=cache).logits)
    for other in (make(num_hidden_layers=3), trained()):
        with pytest.raises(ValueError, match="the compressed prompt was made by a model of other weights"):
            attach(other, cache)
    for change in (cache.reset, lambda: cache.crop(3), lambda: cache.batch_repeat_interleave(3)):
        with pytest.raises(ValueError, match="is not extended or changed"):
            change()


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 3}, {"assistant_model": make(num_hidden_layers=1)}])
def test_decoding_that_reads_the_prompt_again_is_refused(options) -> None:
    """transformers has such decoding read all tokens behind the cache that already holds them, without a word."""
    model, ids = make(), text()
    cache = compress_prompt(model, ids, share=0.4)
    with pytest.raises(ValueError, match="assisted decoding and prompt lookup read a prompt again"):
        answer(model, torch.cat([ids, MORE], dim=1), past_key_values=cache, **options)


@pytest.mark.parametrize(("family", "last"), [("Llama", 216), ("Phi3", 88)])
def test_a_replay_beyond_the_known_positions_is_refused(family, last) -> None:
    """Llama's end at 256; at 128 Phi-3 turns all queries by other angles than the keys in the cache."""
    compress_prompt(make(family), text(length=last), share=0.5, construct=ReplayFit(chunk=40, lead=0))
    with pytest.raises(ValueError, match=rf"passes position {last + 40}, .* shorten the text to {last} tokens"):
        compress_prompt(make(family), text(length=last + 1), share=0.5, construct=ReplayFit(chunk=40, lead=0))
    with pytest.raises(ValueError, match="a replay of 72 tokens after"):
        compress_prompt(make(family), text(length=last), share=0.5, construct=ReplayFit(chunk=40))


def test_under_autocast_the_choice_is_as_exact_as_ever() -> None:
    """The forwards alone are the caller's: what is made of their keys and queries rounds as without autocast."""
    model, ids = make(), text()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = compress_prompt(model, ids, share=1.0, construct=AttentionMatching())
    assert float(cache.errors.max()) < 1e-4


def test_a_reading_is_freed_with_the_prompt_compressed() -> None:
    before = readings()  # other tests may hold some
    compress_prompt(make(), text(), share=0.5, construct=AttentionMatching())
    assert readings() <= before


def readings() -> int:
    gc.collect()
    return sum(type(x) is Measured for x in gc.get_objects())


def test_a_construction_of_one_head_and_a_mask_of_other_tokens_are_refused(unchecked) -> None:
    with pytest.raises(ValueError, match="chooses for a head: use compressed"):
        compress_prompt(make(), text(), share=0.5, construct=UNIFORM)
    with pytest.raises(ValueError, match=r"attention_mask is \[1, 40\] for tokens \[2, 40\]"):
        compress_prompt(make(), text(2), share=0.5, attention_mask=torch.ones(1, 40, dtype=torch.long))


def test_a_prompt_inside_a_context_is_continued_too() -> None:
    model, ids = make(), text()
    cache = compress_prompt(model, ids, share=0.4)
    following = step_by_step(model, cache, MORE)
    with compressed(model, UNIFORM, size=64):
        out = model.generate(torch.cat([ids, MORE], 1), past_key_values=cache, **GREEDY)
    assert torch.equal(out[:, -5:], following)
    assert cache.get_seq_length() == 40
    other = make()
    with compressed(other, UNIFORM, size=64):
        inside = compress_prompt(other, ids, share=0.4)
    assert torch.equal(answer(other, torch.cat([ids, MORE], 1), past_key_values=inside), following)
    other.set_attn_implementation("eager")
    hidden = other.model(MORE, past_key_values=inside)[0]
    torch.testing.assert_close(other.lm_head(hidden).log_softmax(-1), continuation(other, inside, MORE))
