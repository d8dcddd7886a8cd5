"""What is counted of a step as whose time."""

from __future__ import annotations

import time

import pytest

from sglang_hetero_spec.worker import stopwatch
from sglang_hetero_spec.worker.step_record import StepSeconds
from sglang_hetero_spec.worker.stopwatch import Stopwatch, TimedTarget


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds; perf_counter returns the only entry."""
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    return now


def test_what_is_timed_within_counts_once(clock: list[float]) -> None:
    watch = Stopwatch()

    @watch.timed
    def inner() -> None:
        clock[0] += 1

    @watch.timed
    def outer() -> None:
        inner()
        clock[0] += 2

    outer()
    clock[0] += 10
    inner()
    assert watch.seconds == 4


def test_a_forward_that_fails_stops_the_watch(clock: list[float]) -> None:
    watch = Stopwatch()

    @watch.timed
    def failing() -> None:
        clock[0] += 1
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):
            failing()
    assert watch.seconds == 2


class FakeWorker:
    model_runner = object()

    def __init__(self, clock: list[float]) -> None:
        self._clock = clock

    def forward_batch_generation(self, batch: object, *, is_verify: bool) -> tuple[object, bool]:
        self._clock[0] += 3
        return batch, is_verify


def test_a_targets_forward_is_passed_on_and_timed(clock: list[float]) -> None:
    worker = FakeWorker(clock)
    target = TimedTarget(worker)  # type: ignore[arg-type]
    assert target.forward_batch_generation(7, is_verify=True) == (7, True)
    assert (target.watch.seconds, target.model_runner) == (3, worker.model_runner)


def test_host_seconds_are_neither_proposing_nor_the_targets_forward() -> None:
    seconds = StepSeconds(step=10.0, draft={0: 2.0, 3: 1.0}, draft_forward={0: 1.5, 3: 0.5}, target=5.0)
    assert (seconds.verify, seconds.host) == (7.0, 2.0)


def test_the_clock_is_the_one_that_steps_are_timed_by() -> None:
    watch = Stopwatch()
    watch.timed(time.sleep)(0.001)
    assert watch.seconds >= 0.001
