"""Our own targets on questions that are harder than facts of different kinds, and on texts of other lengths."""

import pandas as pd

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.measured import Measure, Rows
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.answers import measures as answers
from attention_coresets.analysis.topics.answers.tolerances import BANDS
from attention_coresets.analysis.topics.facts.measures import OURS
from attention_coresets.analysis.topics.real_heads.caches import at_share

_SHARE = 8


def _probed() -> Rows:
    return lambda results: at_share(results.rows(answers.PROBED), _SHARE)


def _led(results: Results) -> pd.DataFrame:
    return at_share(results.rows(answers.LEAD), _SHARE)


def _claim(id: str, statement: str, of: str, measure: Measure, says: str, refutes: str, rows: Rows) -> Claim:
    return Claim(id, statement, "free", of, BANDS[id], measure, OWN, says, refutes, rows)


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "answers_right",
        f"{OURS} on 1/{_SHARE} of a cache: tokens of answers that are right, over the full cache's",
        answers.PROBED,
        answers.answers_right(_SHARE),
        "at least 85 % for each kind of question",
        "an interval below that",
        _probed(),
    ),
    _claim(
        "answers_more",
        f"{OURS} on 1/{_SHARE} of a cache gets more tokens of answers right than each rule without weights",
        answers.PROBED,
        answers.answers_more(_SHARE),
        "more than each, for each kind of question",
        "a rule that gets more right; undecided where 0 is in the interval",
        _probed(),
    ),
    _claim(
        "lengths_kl",
        f"{OURS} at other lengths and shares: divergence over that of each arm without weights",
        answers.LENGTHS,
        answers.divergences_at_lengths,
        "at most 1/2 of the best, at each length and share",
        "an interval above 1/2",
        lambda results: results.rows(answers.LENGTHS),
    ),
    _claim(
        "lengths_facts",
        f"{OURS} on 1/{_SHARE} of the cache, texts of other lengths: facts found over the full cache's",
        answers.LENGTHS,
        answers.facts_at_lengths(_SHARE),
        "at least 90 %",
        "an interval below that",
        lambda results: at_share(results.rows(answers.LENGTHS), _SHARE),
    ),
    _claim(
        "lead_more",
        "Facts across chunks of the replay: what a rule finds with a lead, less without",
        answers.LEAD,
        answers.facts_by_lead(_SHARE),
        "more, for each rule",
        "a rule that finds fewer; undecided where 0 is in the interval",
        _led,
    ),
    _claim(
        "lead_kl_ratio",
        f"{OURS}: divergence with a lead over that without, on 1/{_SHARE} of the cache",
        answers.LEAD,
        answers.divergences_by_lead(_SHARE),
        "at most 1.15",
        "an interval above that",
        _led,
    ),
)
