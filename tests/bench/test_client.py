"""The streaming client against a server that streams like SGLang, or does not."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sglang_hetero_spec.bench.client import Streamed, send_all
from sglang_hetero_spec.serving.errors import ServingError
from sglang_hetero_spec.serving.remote import parse_url
from tests.bench.fake import Fake

BODIES = [{"text": f"prompt {i}", "sampling_params": {"temperature": 0.0, "max_new_tokens": 5}} for i in range(9)]


def send(fake: Fake, **kind: object) -> list[Streamed]:
    answers: list[Streamed] = []
    seconds = send_all(parse_url("a", fake.url), BODIES, on_answer=answers.append, **kind)  # type: ignore[arg-type]
    assert seconds >= max(answer.start + answer.seconds for answer in answers)
    return sorted(answers, key=lambda answer: answer.number)


@pytest.mark.parametrize("incremental", [False, True])
def test_what_came_and_when(fake: Fake, incremental: bool) -> None:
    fake.incremental = incremental
    answers = send(fake, concurrency=3)
    assert [answer.number for answer in answers] == list(range(9))
    for answer in answers:
        assert [tokens for _, tokens in answer.chunks] == [1, 3, 5]
        assert all(a[0] <= b[0] for a, b in pairwise(answer.chunks))
        assert answer.ttft == answer.chunks[0][0] and 0 < answer.chunks[-1][0] <= answer.seconds
        assert len(answer.output_ids) == 5 and answer.meta["finish_reason"] == {"type": "length"}
    assert len({tuple(answer.output_ids) for answer in answers}) == 9
    assert all(seen["stream"] for seen in fake.seen)


@pytest.mark.parametrize("concurrency", [1, 3, 9])
def test_as_many_at_a_time_as_asked_for(fake: Fake, concurrency: int) -> None:
    fake.seconds = 0.5 if concurrency > 1 else 0.0  # long enough for a slow machine to start its threads
    send(fake, concurrency=concurrency)
    assert fake.busiest == concurrency


def test_requests_arrive_at_their_times(fake: Fake) -> None:
    fake.seconds = 0.3  # open loop: nobody waits for an answer
    times = [0.05 * number for number in range(9)]
    answers = send(fake, times=times)
    assert all(answer.start >= time for answer, time in zip(answers, times, strict=True))
    assert fake.busiest > 1


def test_an_answer_without_its_end(fake: Fake) -> None:
    fake.breaks_at = 4
    with pytest.raises(ServingError, match=r"(broke off|ended) an answer"):
        send(fake, concurrency=1)


def test_an_http_error_is_one_sentence(fake: Fake) -> None:
    fake.status = 400
    with pytest.raises(ServingError, match=r"answered /generate with HTTP 400 \(.*no such drafter"):
        send(fake, times=[0.0] * 9)
