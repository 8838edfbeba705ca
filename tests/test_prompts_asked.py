"""Ways to ask a compressed prompt: each gives what the model alone gives where all is kept, or is refused in words."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from attention_coresets.models.recording import record  # noqa: E402
from attention_coresets.models.serving.positions import check_positions  # noqa: E402
from attention_coresets.serving import (  # noqa: E402
    compress_prompt,
    compressed,
    continuation,
    load_prompt,
    prefill,
    save_prompt,
)
from serving_models import SHAPE, UNIFORM, Around, answer, make, padded, text  # noqa: E402

MORE = text(seed=5, length=6)


def alone(model, prompt: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
    """Log-probabilities after each token of the question, of the model itself."""
    with torch.no_grad():
        logits = model(torch.cat([prompt, question], dim=1)).logits
    return logits[:, prompt.shape[1] :].float().log_softmax(-1)


def asked(model, question: torch.Tensor, *args, **options) -> torch.Tensor:
    with torch.no_grad():
        return model(question, *args, **options).logits.log_softmax(-1)


# Masks and positions


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def prompt(model):
    return compress_prompt(model, text(), share=1.0)


@pytest.fixture(scope="module")
def questions() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Two questions of 6 and 3 tokens, padded in one batch, and the mask of the prompt and them."""
    rows = [MORE, text(seed=6, length=3)]
    ids, shown = padded(rows)
    return rows, ids, torch.cat([torch.ones(2, 40, dtype=torch.long), shown], dim=1)


def test_padded_questions_in_one_batch(model, prompt, questions) -> None:
    rows, ids, mask = questions
    whole = torch.cat([text().expand(2, -1), ids], dim=1)
    wanted = torch.cat([answer(make(), torch.cat([text(), row], dim=1)) for row in rows])
    assert torch.equal(answer(model, whole, attention_mask=mask, past_key_values=prompt), wanted)
    places = (mask.cumsum(-1) - 1)[:, 40:]
    by_query = torch.ones(46, 46, dtype=torch.bool).tril()[40:] & mask[:, None, None].bool()
    for options in (
        {"attention_mask": mask},
        {"attention_mask": mask, "position_ids": places},
        {"attention_mask": by_query, "position_ids": places.clamp_min(0)},
        {"attention_mask": by_query, "position_ids": places.masked_fill(mask[:, 40:] == 0, 0)},
    ):
        found = asked(model, ids, past_key_values=prompt, **options)
        for sample, row in enumerate(rows):
            wanted = alone(make(), text(), row)[0]
            torch.testing.assert_close(found[sample, -row.shape[1] :], wanted, rtol=0, atol=1e-4)


def test_padded_questions_of_padded_prompts(model) -> None:
    prompts, rows = [text(), text(length=25, seed=1)], [text(length=3, seed=6), MORE]
    ids, mask = padded(prompts)
    cache = compress_prompt(model, ids, share=1.0, attention_mask=mask)
    following, shown = padded(rows)
    whole, both = torch.cat([ids, following], dim=1), torch.cat([mask, shown], dim=1)
    wanted = torch.cat([answer(make(), torch.cat(pair, dim=1)) for pair in zip(prompts, rows, strict=True)])
    assert torch.equal(answer(model, whole, attention_mask=both, past_key_values=cache), wanted)
    with pytest.raises(ValueError, match="hides compressed tokens of sample 1, or shows its padding"):
        answer(model, whole, attention_mask=torch.ones_like(whole), past_key_values=cache)
    with pytest.raises(ValueError, match=r"begin at positions \[40, 40\], and their prompts end before \[40, 25\]"):
        model(following, position_ids=torch.arange(40, 46)[None], past_key_values=cache)


def test_a_mask_of_four_axes(model, prompt) -> None:
    mask = torch.ones(46, 46, dtype=torch.bool).tril()[None, None, 40:]
    found = asked(model, MORE, attention_mask=mask, past_key_values=prompt)
    torch.testing.assert_close(found, alone(make(), text(), MORE), rtol=0, atol=1e-4)
    mask[..., 5:20] = False
    with pytest.raises(ValueError, match="hides compressed tokens of sample 0"):
        model(MORE, attention_mask=mask, past_key_values=prompt)


def test_a_mask_or_positions_of_other_tokens_are_refused(model, prompt) -> None:
    hiding = torch.ones(1, 46, dtype=torch.long)
    hiding[:, 5:20] = 0
    with pytest.raises(ValueError, match="hides compressed tokens of sample 0"):
        model(MORE, attention_mask=hiding, past_key_values=prompt)
    with pytest.raises(ValueError, match="the mask of 6 tokens has 47 columns, and their prompt 40"):
        model(MORE, attention_mask=torch.ones(1, 47), past_key_values=prompt)
    for first in (39, 41):
        with pytest.raises(ValueError, match=rf"begin at positions \[{first}\], and their prompts end before \[40\]"):
            model(MORE, position_ids=torch.arange(first, first + 6)[None], past_key_values=prompt)


def test_a_question_that_is_missing_or_comes_without_the_prompt_is_refused(model, prompt) -> None:
    nothing = "no token follows the 40 of a compressed prompt; generate wants their ids and mask"
    for ids in (text(), MORE):
        with pytest.raises(ValueError, match=nothing):
            answer(model, ids, past_key_values=prompt)
    with pytest.raises(ValueError, match=nothing):
        model(MORE, attention_mask=torch.ones_like(MORE), past_key_values=prompt)


# Ways to run


def checkpointing():
    model = make().train()
    model.activation_checkpointing_enable()
    return model


def test_what_drops_the_cache_is_refused() -> None:
    model = checkpointing()
    own = compress_prompt(model.eval(), text(), share=1.0)
    model.train()
    uses = [
        lambda: model(MORE, past_key_values=own),
        lambda: continuation(model, own, MORE),
        lambda: prefill(model, text(), 8),
        lambda: compress_prompt(model, text(), share=0.5),
        lambda: check_positions(checkpointing().model),
        lambda: record(model, text(), [0], print, chunk=10),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="gradient checkpointing drops the cache"):
            use()
    torch.testing.assert_close(continuation(model.eval(), own, MORE), alone(make(), text(), MORE), rtol=0, atol=1e-4)


def test_use_cache_false_is_refused_where_tokens_follow_each_other() -> None:
    model = make(use_cache=False)
    cache = compress_prompt(model, text(), share=1.0)
    with pytest.raises(ValueError, match="use_cache = False: coresets live in the cache"):
        answer(model, torch.cat([text(), MORE], dim=1), past_key_values=cache)
    found = asked(model, MORE, past_key_values=cache)  # one forward needs no more than the prompt's
    torch.testing.assert_close(found, alone(make(), text(), MORE), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="output_attentions = True"):
        model(MORE, past_key_values=cache, output_attentions=True)


def test_compressed_and_asked_in_one_context(model) -> None:
    whole = torch.cat([text(), MORE], dim=1)
    own = make()
    with compressed(own, UNIFORM, size=64):
        cache = compress_prompt(own, text(), share=1.0)
        assert torch.equal(answer(own, whole, past_key_values=cache), answer(make(), whole))
    assert torch.equal(answer(own, whole, past_key_values=cache), answer(make(), whole))


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [Around, pytest.param(compiled, marks=pytest.mark.slow)])
def test_a_module_around_the_model(wrap) -> None:
    model = wrap(make(num_hidden_layers=1))
    cache = compress_prompt(model, text(), share=1.0)
    wanted = alone(make(num_hidden_layers=1), text(), MORE)
    for found in (asked(model, MORE, past_key_values=cache), asked(model, MORE, None, None, cache)):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


# Models


def test_a_refused_use_changes_no_states_of_layers_without_tokens() -> None:
    model = make("Lfm2")
    cache = compress_prompt(model, text(), share=1.0)
    with pytest.raises(ValueError, match=r"call `attach\(model, cache\)`"):
        make("Lfm2")(MORE, past_key_values=cache)
    for change in (cache.update_conv_state, cache.update_recurrent_state, cache.update_indexer):
        with pytest.raises(ValueError, match="is not extended or changed"):
            change(torch.zeros(1), 0)
    torch.testing.assert_close(continuation(model, cache, MORE), alone(make("Lfm2"), text(), MORE), rtol=0, atol=1e-4)


def test_beams_and_several_questions_beside_layers_without_tokens() -> None:
    model, plain, questions = make("Lfm2"), make("Lfm2"), torch.cat([MORE, text(seed=7, length=6)])
    cache = compress_prompt(model, text(), share=1.0)
    whole = torch.cat([text().expand(2, -1), questions], dim=1)
    assert torch.equal(answer(model, whole, past_key_values=cache), answer(plain, whole))
    one = whole[:1]
    assert torch.equal(answer(model, one, past_key_values=cache, num_beams=2), answer(plain, one, num_beams=2))


def test_tokens_that_stand_for_images_are_refused() -> None:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = transformers.Qwen2_5_VLConfig(
        text_config=SHAPE | {"rope_parameters": rope},
        vision_config={"depth": 1, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 16},
        image_token_id=91,
        video_token_id=92,
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
    words = text().clamp_max(90)
    compress_prompt(model, words, share=0.5)
    for token, name in ((91, "image"), (92, "video")):
        ids = words.clone()
        ids[:, 3:5] = token
        for use in (lambda ids=ids: compress_prompt(model, ids, share=0.5), lambda ids=ids: prefill(model, ids)):
            with pytest.raises(ValueError, match=f"ids have 2 tokens {token}, the model's {name}_token_id"):
                use()


LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("family", "changes", "setting"),
    [
        ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_parameters"),
        ("Llama", {"rope_parameters": LINEAR}, "rope_parameters"),
        ("Llama", {"rope_parameters": YARN}, "rope_parameters"),
        ("Gemma3", {"sliding_window": 8}, "sliding_window"),
    ],
)
def test_a_model_that_places_keys_elsewhere_is_refused(tmp_path, family, changes, setting) -> None:
    path = tmp_path / "prompt.safetensors"
    save_prompt(compress_prompt(make(family), text(), share=0.5), path)
    with pytest.raises(ValueError, match=f"by a model of other {setting} than this"):
        load_prompt(make(family, **changes), path)
    load_prompt(make(family), path)


def scaled(by: float, dtype: torch.dtype = torch.bfloat16):
    model = make()
    for name, weight in model.named_parameters():
        if "v_proj" in name:
            weight.data *= by
    return model.to(dtype)


def test_weights_of_one_dtype_are_compared_exactly(tmp_path) -> None:
    path = tmp_path / "prompt.safetensors"
    save_prompt(compress_prompt(scaled(1.0), text(), share=0.5), path)
    load_prompt(scaled(1.0), path)
    load_prompt(scaled(1.0, torch.float32), path)
    for by, dtype in ((1.005, torch.bfloat16), (1.02, torch.bfloat16), (1.1, torch.float32)):
        with pytest.raises(ValueError, match="by a model of other weights"):
            load_prompt(scaled(by, dtype), path)


def test_a_file_of_an_older_format_is_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "prompt.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"format": "attention_coresets.prompt.2"})
    with pytest.raises(ValueError, match=r"is attention_coresets.prompt.2, not .*prompt.3; compress the prompt again"):
        load_prompt(make(), path)
