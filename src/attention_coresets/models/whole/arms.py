"""Lists the arms of whole-model coresets, a row each: `arm=LABEL` of a sweep with task=language."""

from typing import Any

from attention_coresets.coresets.eviction import EVICTION
from attention_coresets.models.whole.attention_matching import AttentionMatching
from attention_coresets.models.whole.replay_fit import ReplayFit

WHOLE: dict[str, type] = {"replay_fit": ReplayFit, "attention_matching": AttentionMatching}
REPEAT = "\n\nRepeat the previous context exactly.\n"  # KVzip's words


def _scored(name: str, budget: str = "pooled", weights: str = "none") -> dict[str, Any]:
    return {"first": name, "part": 1.0, "budget": budget, "weights": weights, "inside": "score"}


# of ReplayFit, parameters that differ from its own
_REPLAY_FIT: dict[str, dict[str, Any]] = {
    "replay_fit": {},
    # published, budgets over the whole model, as kvpress pools them; their own wording asks for the repetition, and up
    # to their 2048 tokens there is one chunk (later ones they ask for in other words, quote 8 tokens before them, and
    # score each by its own)
    "kvzip_asked": _scored("kvzip") | {"wording": REPEAT, "chunk": 2048, "lead": 8},
    "kvzip_plus_asked": _scored("kvzip_plus") | {"wording": REPEAT, "chunk": 2048, "lead": 8},
    # the same of our replay, which nothing asks for, and with fitted weights
    "kvzip": _scored("kvzip"),
    "kvzip_plus": _scored("kvzip_plus"),
    "kvzip_fitted": _scored("kvzip", weights="fitted"),
    "kvzip_plus_fitted": _scored("kvzip_plus", weights="fitted"),
    "kvgrad": _scored("kvgrad"),
    "kvgrad_fitted": _scored("kvgrad", weights="fitted"),
    # values of tokens that are left out, blended into those of kept ones: the rival of weights
    "kvzip_merged": _scored("kvzip") | {"merge": True},
    "kvzip_plus_merged": _scored("kvzip_plus") | {"merge": True},
    # DropKV's score of the same replay
    "dropkv": _scored("dropkv"),
    "dropkv_fitted": _scored("dropkv", weights="fitted"),
    # leverage of keys, which asks for no queries, under AdaKV's budgets and one pooled budget
    "leverage_layer": _scored("leverage", "layer"),
    "leverage_pooled": _scored("leverage"),
    "leverage_layer_fitted": _scored("leverage", "layer", "fitted"),
    # each chunk repeated without the tokens before it, which facts across chunks need
    "replay_fit_leadless": {"lead": 0},
    "kvzip_leadless": _scored("kvzip") | {"lead": 0},
    "dropkv_leadless": _scored("dropkv") | {"lead": 0},
    # one choice of ours changed
    "replay_fit_own": {"part": 0.0},
    "replay_fit_maximum": {"part": 1.0},
    "replay_fit_unweighted": {"weights": "none"},
    "replay_fit_even": {"budget": "even"},
    "replay_fit_layer": {"budget": "layer"},
    "replay_fit_sensitivity": {"budget": "sensitivity"},
    "replay_fit_score": {"inside": "score"},
    "replay_fit_walk": {"inside": "walk"},
    "replay_fit_gain": {"second": "gain"},
    "replay_fit_unmoved": {"moved": 0.0},
    "replay_fit_recent": {"recent": 32},
    "replay_fit_asked": {"wording": REPEAT},
    "replay_fit_half": {"repeated": 0.5},
    "replay_fit_whole": {"chunk": 2048},
    # the eviction heuristics under AdaKV's budgets and one pooled budget, without weights and with
    **{
        f"{name}_{budget}{end}": _scored(name, budget, weights)
        for name in EVICTION
        for budget in ("layer", "pooled")
        for end, weights in (("", "none"), ("_fitted", "fitted"))
    },
}

# of AttentionMatching: with the tokens' own values, and refitted ones, under each kind of budget
_MATCHED: dict[str, dict[str, Any]] = {
    "attention_matching_refitted_leadless": {"refit": True, "lead": 0},
} | {
    f"attention_matching{budget}{end}": {"refit": refit} | parameters
    for budget, parameters in {
        "": {},
        "_even": {"budget": "even"},
        "_shares": {"budget": "shares", "shares": "smollm2-135m"},
    }.items()
    for end, refit in (("", False), ("_refitted", True))
}

# construction and parameters
WHOLE_ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    label: (name, parameters)
    for name, arms in (("replay_fit", _REPLAY_FIT), ("attention_matching", _MATCHED))
    for label, parameters in arms.items()
}
