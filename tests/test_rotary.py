"""Queries moved to later positions are those a model computes there."""

import pytest
import torch
from transformers import (
    Cohere2Config,
    Cohere2Model,
    Exaone4Config,
    Exaone4Model,
    Gemma3TextConfig,
    Gemma3TextModel,
    GlmConfig,
    GlmModel,
    GPT2Config,
    GPT2Model,
    GPTNeoXConfig,
    GPTNeoXModel,
    HunYuanDenseV1Config,
    HunYuanDenseV1Model,
    LlamaConfig,
    LlamaModel,
    Phi3Config,
    Phi3Model,
    PhiConfig,
    PhiModel,
    Qwen3Config,
    Qwen3Model,
    SmolLM3Config,
    SmolLM3Model,
    StableLmConfig,
    StableLmModel,
)

from attention_coresets.models.recording import asked_alone, record
from attention_coresets.models.rotary import learn_positions, move

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.5, 2.0, 3.0],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "llama": lambda: LlamaModel(LlamaConfig(**SIZES, num_hidden_layers=1)),
    "llama-yarn": lambda: LlamaModel(LlamaConfig(**SIZES, num_hidden_layers=1, rope_parameters=YARN)),
    "phi": lambda: PhiModel(PhiConfig(**SIZES, num_hidden_layers=1, rope_parameters=PARTIAL)),
    "stablelm": lambda: StableLmModel(StableLmConfig(**SIZES, num_hidden_layers=1, rope_parameters=PARTIAL)),
    "gpt-neox": lambda: GPTNeoXModel(
        GPTNeoXConfig(**SIZES, num_hidden_layers=1, rope_parameters=PARTIAL, use_parallel_residual=False)
    ),
    "glm": lambda: GlmModel(GlmConfig(**SIZES, head_dim=8, num_hidden_layers=1, rope_parameters=PARTIAL, **TOKENS)),
    "phi3-longrope": lambda: Phi3Model(
        Phi3Config(**SIZES, num_hidden_layers=1, rope_parameters=LONG, original_max_position_embeddings=64, **TOKENS)
    ),
    "qwen3": lambda: Qwen3Model(Qwen3Config(**SIZES, head_dim=8, num_hidden_layers=1)),
    "gemma3": lambda: Gemma3TextModel(
        Gemma3TextConfig(**SIZES, head_dim=8, num_hidden_layers=1, layer_types=["full_attention"])
    ),
}


def learn(model):
    """`learn_positions`, asked by recordings of all layers."""
    learn_positions(model, lambda place: asked_alone(model, range(model.config.num_hidden_layers), place))


def first_queries(model, ids, first):
    """Queries of the first layer from position `first` on; they depend on each token and its position alone."""
    found = []
    record(model, ids, [0], lambda layer, queries, keys, values, scaling: found.append(queries), first=first)
    return found[0]


def here_and_there(make):
    """A model, and its first layer's queries of the same six tokens, at the beginning and eleven positions on."""
    torch.manual_seed(0)
    model = make().eval()
    learn(model)
    tokens, filler = torch.randint(64, (1, 6)), torch.randint(64, (1, 11))
    return model, first_queries(model, tokens, 0), first_queries(model, torch.cat([filler, tokens], dim=-1), 11)


@pytest.mark.parametrize("name", MODELS)
def test_a_moved_query_is_the_one_of_the_later_position(name):
    model, here, there = here_and_there(MODELS[name])
    torch.testing.assert_close(move(model, here, 11, 0), there, rtol=0, atol=1e-5)
    assert not torch.allclose(here, there, atol=1e-3)
    torch.testing.assert_close(move(model, move(model, here, 11, 0), -11, 0), here, rtol=0, atol=1e-5)


WINDOWS = {"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]}
STILL = {  # the first layer gives no positions
    "smollm3": lambda: SmolLM3Model(SmolLM3Config(**SIZES, num_hidden_layers=2, no_rope_layers=[0, 1], **TOKENS)),
    "cohere2": lambda: Cohere2Model(Cohere2Config(**SIZES, num_hidden_layers=2, **WINDOWS, **TOKENS)),
    "exaone4": lambda: Exaone4Model(Exaone4Config(**SIZES, num_hidden_layers=2, **WINDOWS, **TOKENS)),
}


@pytest.mark.parametrize("name", STILL)
def test_a_layer_without_positions_asks_the_same_everywhere(name):
    model, here, there = here_and_there(STILL[name])
    torch.testing.assert_close(move(model, here, 11, 0), there, rtol=0, atol=1e-5)
    assert not torch.allclose(move(model, here, 11, 1), here, atol=1e-3)  # the second does


def test_a_model_that_positions_its_queries_in_another_way_is_refused():
    model = HunYuanDenseV1Model(HunYuanDenseV1Config(**SIZES, num_hidden_layers=1, head_dim=8, **TOKENS)).eval()
    with pytest.raises(RuntimeError, match="comes first"):
        move(model, torch.zeros(4, 3, 8), 1, 0)
    model.layers[0].self_attn.query_layernorm.weight.data = torch.linspace(0.2, 3, 8)  # a gain behind the turn
    with pytest.raises(ValueError, match="layer 0 in a way that is not known"):
        learn(model)
    model.layers[0].self_attn.query_layernorm.weight.data = torch.ones(8)
    learn(model)


def test_asking_the_model_leaves_its_angles():
    model = MODELS["phi3-longrope"]().eval()
    with torch.no_grad():
        model(torch.randint(64, (1, 80)))  # beyond its first length: other angles
    before = model.rotary_emb.inv_freq.clone()
    learn(model)
    assert torch.equal(model.rotary_emb.inv_freq, before)
    assert not torch.equal(before, model.rotary_emb.original_inv_freq)


def test_models_without_fixed_rotary_positions_are_refused():
    with pytest.raises(ValueError, match="GPT2Model has no rotary positions"):
        learn(GPT2Model(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4)))
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    with pytest.raises(ValueError, match="'dynamic' change with the text"):
        learn(LlamaModel(LlamaConfig(**SIZES, num_hidden_layers=1, rope_parameters=dynamic)))
