"""Log-probabilities are those of the target alone, as many and as precise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tests.engine.cases import cases_of
from tests.engine.compare import Comparison
from tests.engine.fleet import Reference, ask
from tests.engine.pools import EVERYONE
from tests.support.servers import Server

CLOSE = 1e-4
OF_ONE_TOKEN = ("input_token_logprobs", "output_token_logprobs")
OF_SEVERAL = ("input_top_logprobs", "output_top_logprobs", "input_token_ids_logprobs", "output_token_ids_logprobs")


def test_logprobs(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    """Three of four requests ask for them: of generated tokens, of the likeliest ones, of the prompt, of chosen ids."""
    wishes = (
        {"return_logprob": True},
        {"return_logprob": True, "top_logprobs_num": 3},
        {"return_logprob": True, "top_logprobs_num": 2, "logprob_start_len": 0, "token_ids_logprob": [5, 7, 100]},
        {},
    )
    cases = [case.with_fields(**wishes[number % 4]) for number, case in enumerate(cases_of(prompts[:32], EVERYONE))]
    expected, answers = reference.answers(cases), ask(hetero, cases)
    same_tokens.answers(cases, expected, answers)
    worst = 0.0
    for case, want, have in zip(cases, expected, answers, strict=True):
        if want["output_ids"] == have["output_ids"] and case.fields:
            assert len(have["meta_info"]["output_token_logprobs"]) == len(have["output_ids"])
            worst = max(worst, _furthest(want["meta_info"], have["meta_info"]))
    print(f"logprobs differ by {worst:.1e} at most")
    assert 0 < worst <= CLOSE


def test_logprobs_with_penalties_and_bias(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    params = ({"frequency_penalty": 0.5}, {"logit_bias": {"10": 4.0}}, {"repetition_penalty": 1.2}, {})
    cases = [
        case.with_fields(return_logprob=True, top_logprobs_num=2).with_params(**params[number % 4], max_new_tokens=48)
        for number, case in enumerate(cases_of(prompts[:32], EVERYONE))
    ]
    expected, answers = reference.answers(cases), ask(hetero, cases)
    same_tokens.answers(cases, expected, answers)
    for want, have in zip(expected, answers, strict=True):
        if want["output_ids"] == have["output_ids"]:
            assert _furthest(want["meta_info"], have["meta_info"]) <= CLOSE


def _furthest(want: dict, have: dict) -> float:
    """The largest difference of any log-probability in an answer; the same entries must be there."""
    worst = 0.0
    for name in OF_ONE_TOKEN:
        assert (name in want) == (name in have), name
        worst = max(worst, _furthest_entry(want.get(name) or [], have.get(name) or [], same_ids=True))
    for name in OF_SEVERAL:
        for one_want, one_have in zip(want.get(name) or [], have.get(name) or [], strict=True):
            worst = max(worst, _furthest_entry(one_want or [], one_have or [], same_ids=False))
    return worst


def _furthest_entry(want: Sequence[Any], have: Sequence[Any], same_ids: bool) -> float:
    """Entries are [log-probability or None, token id, text]. Among the likeliest, near ties may change places."""
    worst = 0.0
    for (want_value, want_id, _), (have_value, have_id, _) in zip(want, have, strict=True):
        assert (want_value is None) == (have_value is None)
        assert not same_ids or want_id == have_id
        if want_value is not None:
            assert math.isfinite(have_value)
            worst = max(worst, abs(want_value - have_value))
    return worst
