"""The profile of a step counts every moment once, and every PyTorch call in the stage that made it."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import step_spans, step_trace


def test_stages_are_timed_without_those_within(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(
        step_spans, "time", SimpleNamespace(perf_counter=lambda: now[0], thread_time=lambda: now[0] / 2)
    )
    out = io.StringIO()
    spans = step_spans.Spans(out)

    def wait(seconds: float) -> None:
        now[0] += seconds

    inner = spans.wrap(lambda: wait(1), "inner")

    def outer() -> None:
        inner()
        wait(2)
        inner()

    spanned = spans.wrap(outer, "outer")

    def step(worker: object) -> None:
        wait(4)
        spanned()

    inner()  # outside of a step
    spans.step(step, lambda result, worker: {"requests": 1})(None)
    line = json.loads(out.getvalue())
    assert line["stages"] == {"inner": [2.0, 1.0, 2], "outer": [2.0, 1.0, 1], "other": [4.0, 2.0, 1]}


def test_calls_belong_to_the_stage_that_made_them() -> None:
    def event(name: str, start: float, end: float, category: str) -> dict:
        return {"ph": "X", "tid": 1, "name": name, "ts": start, "dur": end - start, "cat": category}

    events = [
        event("hetero: other", 0, 100, "user_annotation"),
        event("aten::add", 5, 7, "cpu_op"),
        event("hetero: merge", 10, 50, "user_annotation"),
        event("aten::to", 12, 20, "cpu_op"),
        event("aten::copy_", 13, 19, "cpu_op"),
        event("aten::cat", 22, 24, "cpu_op"),
        event("aten::sub", 60, 61, "cpu_op"),
        event("aten::mul", 200, 201, "cpu_op"),
    ]
    assert step_trace.ops_per_step(events) == {"other": 2, "merge": 2}


def test_a_real_trace_is_read(tmp_path) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(2):
            with torch.profiler.record_function("hetero: other"), torch.profiler.record_function("hetero: merge"):
                torch.ones(2).add(1)
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    assert step_trace.ops_per_step(step_trace.load(tmp_path / "trace.json")) == {"merge": 2}
