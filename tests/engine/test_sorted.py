"""Sorted drafters: greedy output is the target's own wherever drafts leave the model, alone and among others."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.engine.cases import Case, cases_of
from tests.engine.compare import Comparison
from tests.engine.figures import accept_length, assert_accepts_everything, served_by
from tests.engine.fleet import Reference, ask
from tests.engine.pools import EVERYONE, SORTED, SORTED_STEPS
from tests.support.servers import Server


@pytest.mark.parametrize("concurrency", [pytest.param(1, marks=pytest.mark.slow), 16])
@pytest.mark.parametrize("drafter", SORTED)
def test_alone(
    hetero: Server,
    reference: Reference,
    same_tokens: Comparison,
    prompts: list[str],
    drafter: str,
    concurrency: int,
) -> None:
    cases = cases_of(prompts[: 6 if concurrency == 1 else 32], [drafter])
    answers = ask(hetero, cases, concurrency)
    same_tokens.answers(cases, reference.answers(cases), answers)
    print(f"{drafter}, {concurrency} in flight: accept length {accept_length(answers):.3f}")
    if drafter == "sorted-whole":
        assert_accepts_everything(answers, SORTED_STEPS)


def test_among_others(hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]) -> None:
    cases = cases_of(prompts[:48], (*SORTED, *EVERYONE))
    answers = ask(hetero, cases)
    same_tokens.answers(cases, reference.answers(cases), answers)
    assert_accepts_everything(served_by("sorted-whole", cases, answers), SORTED_STEPS)


def test_a_conversation_with_the_prefix_cache(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    """A later turn finds what the earlier ones filled in of the same slots, and nothing that they left behind."""
    text = prompts[0]
    for turn in range(5):
        drafter = "sorted-whole" if turn % 2 else "sorted-some"
        case = Case(text, drafter=drafter).with_params(max_new_tokens=70)
        (expected,), (answer,) = reference.answers([case]), ask(hetero, [case])
        same_tokens.answers([case], [expected], [answer])
        if drafter == "sorted-whole":
            assert_accepts_everything([answer], SORTED_STEPS)
        text += answer["text"] + "\n"


def test_newcomers_among_running_requests(
    hetero: Server, reference: Reference, same_tokens: Comparison, prompts: list[str]
) -> None:
    whole = cases_of(prompts[:24], ["sorted-some"])
    cases = [case.with_params(max_new_tokens=4 + 4 * number) for number, case in enumerate(whole)]
    with ThreadPoolExecutor(len(cases)) as threads:
        jobs = []
        for case in cases:
            jobs.append(threads.submit(hetero.generate, case.prompt, **case.request()))
            time.sleep(0.05)
        answers = [job.result() for job in jobs]
    for case, want, have in zip(whole, reference.answers(whole), answers, strict=True):
        same_tokens.tokens(case, want["output_ids"][: len(have["output_ids"])], have["output_ids"])
