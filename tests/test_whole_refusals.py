"""Models on which errors in the residual stream would be wrong without a word: refused, or told in the right units."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from attention_coresets.models.serving import prefill  # noqa: E402
from attention_coresets.models.whole.measured import Measured  # noqa: E402
from attention_coresets.models.whole.prompt import compress_prompt  # noqa: E402
from attention_coresets.models.whole.replay import read  # noqa: E402
from attention_coresets.models.whole.replay_fit import ReplayFit  # noqa: E402
from attention_coresets.models.whole.scores import scores  # noqa: E402
from serving_models import make, text  # noqa: E402

SCORED = {"part": 1.0, "weights": "none", "inside": "score"}
WINDOWS = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}


def measured(model) -> Measured:
    return Measured(read(prefill(model, text(), 40), text()))


def test_a_factor_of_what_attention_adds_is_part_of_the_errors() -> None:
    """Granite multiplies it: the stream moves by as much less, and the projection with it."""
    one, less = (make("Granite", head_dim=8, residual_multiplier=times) for times in (1.0, 0.25))
    factors = [measured(model).reading.layers[0].factors for model in (one, less)]
    torch.testing.assert_close(factors[1], 0.25 * factors[0])
    block, hidden = less.model.layers[0], torch.randn(1, 3, 32)
    added = []
    for times in (1.0, 2.0):
        block.self_attn.o_proj.register_forward_hook(lambda *_, times=times: times * torch.ones(1, 3, 32))
        block.mlp.register_forward_hook(lambda *_: torch.zeros(1, 3, 32))
        places = less.model.rotary_emb(hidden, torch.arange(3)[None])
        added.append(block(hidden, position_embeddings=places))
    torch.testing.assert_close(added[1] - added[0], torch.full_like(hidden, 0.25))


def test_a_norm_before_the_projection_is_refused() -> None:
    with pytest.raises(ValueError, match="has a norm before its output projection"):
        compress_prompt(make("BitNet", head_dim=8), text(), share=0.5)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_codes_of_a_quantization_are_no_weights(dtype) -> None:
    model = make()
    for layer in model.model.layers:
        codes = (layer.self_attn.o_proj.weight.detach() * 100).to(dtype)
        layer.self_attn.o_proj.weight = torch.nn.Parameter(codes, requires_grad=False)
        layer.self_attn.o_proj.forward = lambda x, codes=codes: x @ codes.to(x).T / 100
    with pytest.raises(ValueError, match="has a quantized output projection"):
        compress_prompt(model, text(), share=0.5)


def test_heuristics_do_not_score_logits_with_soft_caps() -> None:
    found = measured(make("Gemma2", attn_logit_softcapping=0.5))
    with pytest.raises(ValueError, match="tova scores by a plain softmax"):
        scores("tova", found, 1.0, 10)
    assert scores("kvzip", found, 1.0, 10).isfinite().all()


@pytest.mark.parametrize("name", ["snapkv", "curdkv", "h2o"])
def test_texts_shorter_than_a_heuristics_sinks(name) -> None:
    cache = compress_prompt(make(), text(length=3), count=8, construct=ReplayFit(first=name, sinks=0, **SCORED))
    assert int(cache.sizes.sum()) == 8


def test_slopes_of_a_model_whose_other_layers_return_a_tensor() -> None:
    model = make("Lfm2")
    steep = read(prefill(model, text(), 8), text(), sloped=True)
    assert Measured(steep).sloped
    assert list(steep.layers) == [1]


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("ModernBertDecoder", WINDOWS, "does not take another attention function"),
        ("Gemma3n", {}, "in a way that is not known"),
    ],
)
def test_models_that_are_not_known_are_refused_in_words(family, options, words) -> None:
    with pytest.raises(ValueError, match=words):
        compress_prompt(make(family, **options), text(), share=0.5)


def test_budgets_by_sensitivity_need_the_replay() -> None:
    assert ReplayFit(first="snapkv", budget="sensitivity", **SCORED).replays
    assert not ReplayFit(first="snapkv", **SCORED).replays
