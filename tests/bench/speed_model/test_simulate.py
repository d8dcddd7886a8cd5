"""Blocks worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from sglang_hetero_spec.bench.speed_model.accept import NOBODY
from sglang_hetero_spec.bench.speed_model.costs import Counts
from sglang_hetero_spec.bench.speed_model.simulate import Job, simulate

PLAIN = Job(NOBODY, prompt_tokens=10, steps=3, tokens_per_step=1.0, width=1.0)
CHAIN = Job("a", prompt_tokens=10, steps=2, tokens_per_step=3.0, width=5.0)


def seconds(counts: Counts) -> float:
    return 10.0 * counts.prefills + 1.0 * counts.steps


def test_one_request() -> None:
    trace = simulate([PLAIN], 1, seconds)
    assert trace.counts == Counts(
        steps=3, wide_steps=0, tokens=3, context=11 + 12 + 13, requests=3, prefills=1, prompt_tokens=10, drafts={}
    )
    assert trace.busy == 13.0
    assert trace.waits == (13.0,)


def test_a_drafter_reads_the_prompt_in_its_first_proposal_only() -> None:
    trace = simulate([CHAIN, CHAIN], 2, seconds)
    assert trace.counts.drafts == {"a": [2.0, 4.0, 20.0]}
    assert trace.counts.tokens == 2 * 2 * 5
    assert trace.counts.wide_steps == 2
    assert trace.counts.context == 2 * (11 + 14)


def test_a_batch_is_as_wide_as_its_widest_and_each_drafter_proposes_by_itself() -> None:
    other = dataclasses.replace(CHAIN, drafter="b", width=9.0)
    trace = simulate([CHAIN, other, dataclasses.replace(PLAIN, steps=2)], 3, seconds)
    assert trace.counts.tokens == 2 * 3 * 9
    assert trace.counts.drafts == {"a": [2.0, 2.0, 10.0], "b": [2.0, 2.0, 10.0]}
    assert trace.counts.requests == 6


def test_the_next_request_comes_a_step_after_one_ends() -> None:
    short, long = dataclasses.replace(PLAIN, steps=1), dataclasses.replace(PLAIN, steps=4)
    trace = simulate([short, long, short], 2, seconds)
    # Prefill of two; a step of both; a step of the long one alone; prefill; a step of both; one of the long one.
    assert trace.counts.prefills == 2
    assert trace.counts.steps == 4
    assert trace.counts.requests == 2 + 1 + 2 + 1
    assert trace.waits == (11.0, 24.0, 12.0)  # the third one was sent when the first one ended, at 11, and ended at 23


def test_where_nothing_runs_the_next_request_is_there_at_once() -> None:
    trace = simulate([PLAIN, PLAIN], 1, seconds)
    assert trace.busy == 26.0
    assert trace.waits == (13.0, 13.0)


def test_an_answer_of_one_token_has_no_step() -> None:
    trace = simulate([dataclasses.replace(PLAIN, steps=0)] * 2, 1, seconds)
    assert trace.counts.steps == 0
    assert trace.counts.prefills == 2
    assert not any(map(math.isnan, trace.waits))


def test_arrivals_by_the_clock() -> None:
    """The second one arrives while the first one is in its second step, the third one when all is over."""
    jobs = [dataclasses.replace(PLAIN, arrival=at) for at in (1.0, 12.5, 50.0)]
    trace = simulate(jobs, None, seconds)
    # 1 to 11 prefill, 12, 13; 13 to 23 prefill; 24 the first one's last step, 25, 26; 50 to 63.
    assert trace.waits == (23.0, 13.5, 13.0)
    assert trace.busy == 62.0


def test_more_in_flight_is_never_more_steps() -> None:
    jobs = [dataclasses.replace(PLAIN, steps=1 + n % 5) for n in range(30)]
    steps = [simulate(jobs, number, seconds).counts.steps for number in (1, 2, 4, 8, 16, 64)]
    assert steps[0] == sum(job.steps for job in jobs)
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 5


@pytest.mark.parametrize("in_flight", [1, 3, 16])
def test_no_work_is_lost(in_flight: int) -> None:
    jobs = [dataclasses.replace(CHAIN, drafter="ab"[n % 2], steps=1 + n % 4) for n in range(23)]
    counts = simulate(jobs, in_flight, seconds).counts
    assert counts.requests == sum(job.steps for job in jobs)
    assert counts.prompt_tokens == 230
    assert sum(drafted for _, drafted, _ in counts.drafts.values()) == counts.requests
    assert sum(read for *_, read in counts.drafts.values()) == 230
