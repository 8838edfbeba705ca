"""Our own targets on facts that a compressed cache keeps."""

from dataclasses import replace

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.measured import Measure, Rows
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.facts import measures as facts
from attention_coresets.analysis.topics.facts.tolerances import BANDS
from attention_coresets.analysis.topics.real_heads.caches import HEURISTICS, at_share

REPLAYED = (
    *("kvzip", "kvzip_plus", "dropkv", "kvgrad"),
    *(facts.MATCHING, f"{facts.MATCHING}_shares", f"{facts.MATCHING}_refitted"),
)
RIVALS = (*REPLAYED, *HEURISTICS, *(f"{name}_layer" for name in HEURISTICS))


def _at(share: int, experiment: str) -> Rows:
    return lambda results: at_share(results.rows(experiment), share)


def _claim(
    id: str, statement: str, measure: Measure, says: str, refutes: str, share: int, experiment: str = facts.FACTS
) -> Claim:
    return Claim(id, statement, "free", experiment, BANDS[id], measure, OWN, says, refutes, _at(share, experiment))


def _found(share: int, least: str) -> Claim:
    statement = f"{facts.OURS} on 1/{share} of a cache: planted facts found, over the full one's"
    measure = facts.means_of("found", share)
    return _claim(f"facts_{share}", statement, measure, f"at least {least}", "an interval below that", share)


def _divergence(share: int, most: str) -> Claim:
    statement = f"{facts.OURS} on 1/{share} of a cache: divergence of its predictions from the full cache's"
    measure = facts.means_of("kl", share)
    return _claim(f"facts_kl_{share}", statement, measure, f"at most {most} nats", "an interval above that", share)


def _matching(share: int) -> Claim:
    statement = f"{facts.OURS} on 1/{share} of a cache: divergence over that of Attention Matching's subsets"
    measure = facts.divergence_ratios([share], facts.matched)
    refutes = "an interval above 1; undecided where 1 is in it"
    return _claim(f"facts_matching_{share}", statement, measure, "below 1", refutes, share)


CLAIMS: tuple[Claim, ...] = (
    _found(4, "97 %"),
    _found(8, "90 %"),
    _divergence(4, "0.005"),
    _divergence(8, "0.025"),
    _claim(
        "facts_kl_ratio",
        f"{facts.OURS} on 1/8 of a cache: its divergence over that of each arm without weights",
        facts.divergence_ratios([8]),
        "at most 1/3 of the best",
        "an interval above 1/3",
        8,
    ),
    replace(
        _claim(
            "facts_more",
            f"{facts.OURS} on 1/8 of a cache finds more planted facts than each published rule",
            facts.finds_more(RIVALS, 8),
            "more than each",
            "a rival that finds more; undecided where 0 is in the interval",
            8,
        ),
        added="`kvgrad`, `attention_matching_shares` as rivals",
    ),
    _matching(4),
    _matching(8),
    _claim(
        "gemma_kl_ratio",
        f"Gemma 3 270M: {facts.OURS} on 1/8 of a cache: its divergence over that of each arm without weights",
        facts.divergence_ratios([8], experiment=facts.GEMMA),
        "at most 1/2 of the best",
        "an interval above 1/2",
        8,
        facts.GEMMA,
    ),
)
