"""Greedy output is the target's own, token for token, whoever drafts and however a request is made."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from tests.engine.cases import CONCURRENCY, NUM_TOKENS, Case, cases_of
from tests.engine.compare import Comparison
from tests.engine.figures import accept_length, num_drafted, served_by
from tests.engine.fleet import Reference, ask
from tests.engine.pools import CHAINS, EVERYONE, TREES
from tests.support.servers import Server


@pytest.mark.parametrize(
    "drafters",
    [pytest.param(CHAINS, marks=pytest.mark.slow), pytest.param(TREES, marks=pytest.mark.slow), EVERYONE],
    ids=["chains", "trees", "everyone"],
)
def test_whoever_drafts(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str], drafters: tuple[str, ...]
) -> None:
    cases = cases_of(prompts, drafters)
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    for drafter in drafters:
        served = served_by(drafter, cases, answers)
        assert all(answer["meta_info"]["hetero"]["drafter"] == drafter for answer in served)
        length = accept_length(served)
        print(f"{drafter}: accept length {length:.3f}")
        assert length == 1.0 if drafter == "none" else length > 1.0


def test_stop_strings(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    """Strings from the middle of each answer, cut without regard to tokens, and a token as well."""
    plain = reference.answers(cases_of(prompts, EVERYONE))
    cases = []
    for number, (case, answer) in enumerate(zip(cases_of(prompts, EVERYONE), plain, strict=True)):
        text, start = answer["text"], 20 + number
        stop = {"stop": [text[start : start + 2 + number % 5], "no such text"]}
        if number % 4 == 3:
            stop = {"stop_token_ids": [answer["output_ids"][start]], "no_stop_trim": number % 8 == 3}
        cases.append(case.with_params(**stop))
    expected = reference.answers(cases)
    assert sum(answer["meta_info"]["finish_reason"]["type"] == "stop" for answer in expected) > NUM_TOKENS // 3
    same_tokens.answers(cases, expected, ask(hetero, cases))


def test_end_of_sequence(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    cases = cases_of(prompts, EVERYONE, ignore_eos=False)
    same_tokens.answers(cases, reference.answers(cases), ask(hetero, cases))


def test_two_answers_per_prompt(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    single = cases_of(prompts[:24], EVERYONE)
    expected = [[answer, answer] for answer in reference.answers(single)]
    answers = ask(hetero, [case.with_params(n=2) for case in single], concurrency=CONCURRENCY // 2)
    assert all(len(pair) == 2 for pair in answers)
    same_tokens.answers(single, expected, answers)


def test_streaming(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    """Over the native route: each event repeats the one before it and adds to it; the last is the answer."""
    cases = cases_of(prompts[:32], EVERYONE)

    def streamed(case: Case) -> dict:
        events = list(hetero.stream("/generate", {"text": case.prompt, **case.request()}))
        texts = [event["text"] for event in events]
        assert all(after.startswith(before) for before, after in pairwise(texts))
        assert len(events) > 1
        return events[-1]

    with ThreadPoolExecutor(CONCURRENCY) as threads:
        answers = list(threads.map(streamed, cases))
    same_tokens.answers(cases, reference.answers(cases), answers)


def test_openai_streaming(hetero: Server, reference: Reference, prompts: list[str]) -> None:
    """Over the OpenAI route the pieces add up to the text; without a tie there is nothing to excuse."""
    cases = cases_of(prompts[:CONCURRENCY], EVERYONE)

    def streamed(case: Case) -> str:
        request = {"model": "target", "prompt": case.prompt, "temperature": 0, "max_tokens": NUM_TOKENS}
        request |= {"ignore_eos": True, "custom_params": {"hetero": {"drafter": case.drafter}}}
        events = hetero.stream("/v1/completions", request)
        return "".join(choice["text"] for event in events for choice in event["choices"])

    with ThreadPoolExecutor(CONCURRENCY) as threads:
        texts = list(threads.map(streamed, cases))
    assert texts == [answer["text"] for answer in reference.answers(cases)]


SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["code", "number", "sentence"]},
        "title": {"type": "string", "maxLength": 24},
        "amount": {"type": "integer", "minimum": 0, "maximum": 9999},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 2, "maxItems": 3},
        "final": {"type": "boolean"},
    },
    "required": ["kind", "title", "amount", "tags", "final"],
    "additionalProperties": False,
}


def test_json_schema(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    """Every other request is bound to a schema; the rest of its batch is free."""
    cases = [
        case.with_params(json_schema=json.dumps(SCHEMA), ignore_eos=False) if number % 4 < 3 else case
        for number, case in enumerate(cases_of(prompts[:32], EVERYONE))
    ]
    expected = reference.answers(cases)
    answers = ask(hetero, cases)
    same_tokens.answers(cases, expected, answers)
    bound = [a for case, a in zip(cases, answers, strict=True) if "json_schema" in case.params]
    finished = [json.loads(a["text"]) for a in bound if a["meta_info"]["finish_reason"]["type"] == "stop"]
    print(f"{len(finished)} of {len(bound)} objects came to their end")
    assert finished
    assert all(set(value) == set(SCHEMA["required"]) for value in finished)
    assert num_drafted(bound) > 0


# Not a repetition penalty together with another: without overlap SGLang applies them in the order of a Python set
# of classes (sampling_batch_info.py), which changes from process to process, and they do not commute.
PENALTIES = (
    {"frequency_penalty": 0.6},
    {"presence_penalty": 0.8},
    {"repetition_penalty": 1.3},
    {"min_new_tokens": 60, "ignore_eos": False},
    {"frequency_penalty": 0.3, "presence_penalty": 0.2},
    {},
    {"min_p": 0.3},
    {"logit_bias": {"10": 4.0, "20": -3.0}},
)


def test_penalties(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    """Requests with penalties are exact because nobody drafts for them; the rest of the batch is drafted for."""
    cases = [
        case.with_params(**PENALTIES[number % len(PENALTIES)])
        for number, case in enumerate(cases_of(prompts[:32], (*CHAINS, *TREES)))
    ]
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    for number, answer in enumerate(answers):
        assert (num_drafted([answer]) == 0) == (number % len(PENALTIES) < 5), cases[number].params


def test_newcomers_among_running_requests(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    """Requests of all lengths, each joining while others run."""
    whole = cases_of(prompts, EVERYONE)
    cases = [case.with_params(max_new_tokens=2 + 2 * number) for number, case in enumerate(whole)]
    with ThreadPoolExecutor(len(cases)) as threads:
        jobs = []
        for case in cases:
            jobs.append(threads.submit(hetero.generate, case.prompt, **case.request()))
            time.sleep(0.05)
        answers = [job.result() for job in jobs]
    for case, want, have in zip(whole, reference.answers(whole), answers, strict=True):
        same_tokens.tokens(case, want["output_ids"][: len(have["output_ids"])], have["output_ids"])
    assert [len(answer["output_ids"]) for answer in answers] == [case.params["max_new_tokens"] for case in cases]
