"""What benchmarks/gpu_trace.py reads off a profiler's trace, and benchmarks/gpu_checks.py off spans and answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_checks
from benchmarks.gpu_engines import Answer
from benchmarks.gpu_trace import steady


def span(name: str, start: float, length: float, thread: int = 1) -> dict[str, Any]:
    return {"ph": "X", "cat": "user_annotation", "name": name, "ts": start, "dur": length, "tid": thread}


def call(name: str, at: float, correlation: int = 0, thread: int = 1) -> dict[str, Any]:
    args = {"correlation": correlation}
    return {"ph": "X", "cat": "cuda_runtime", "name": name, "ts": at, "dur": 1, "tid": thread, "args": args}


def copy(correlation: int, kind: str = "DtoH") -> dict[str, Any]:
    name = f"Memcpy {kind} (Device -> Pinned)"
    return {
        "ph": "X",
        "cat": "gpu_memcpy",
        "name": name,
        "ts": 1e6,
        "dur": 1,
        "tid": 7,
        "args": {"correlation": correlation},
    }


def steps(number: int) -> list[dict[str, Any]]:
    """A step each 100 us: ours from 0 to 90, drafting to 30, SGLang's verification from 40 to 80."""
    made = []
    for start in range(0, 100 * number, 100):
        made += [span("hetero: other", start, 90), span("hetero: propose: loop", start, 30)]
        made += [span("verify", start + 40, 40), span("hetero: SGLang: verify, rest", start + 41, 38)]
    return made


def test_steady_steps_without_anything() -> None:
    found = steady([*steps(5), call("cudaStreamSynchronize", 10), call("cudaLaunchKernel", 350)], skipped=1)
    assert found.steps == 3 and not found.ours and not found.waits, "what comes before the first step that counts"


def test_whose_a_wait_or_copy_is() -> None:
    events = [
        *steps(6),
        call("cudaStreamSynchronize", 310),
        call("cudaStreamSynchronize", 360),
        call("cudaEventSynchronize", 395),
        call("cudaStreamSynchronize", 310, thread=2),
        call("cudaMemcpyAsync", 384, correlation=5),
        call("cudaMemcpyAsync", 385, correlation=6),
        copy(5),
        copy(6, "HtoD"),
    ]
    found = steady(events, skipped=1)
    assert found.waits == {"hetero: propose: loop": 1, "hetero: SGLang: verify, rest": 1, "(none)": 2}
    assert found.copies == {"hetero: other": 1}
    assert found.ours == {"hetero: propose: loop": 1, "hetero: other": 1}
    assert found.per_step(found.waits) == 1.0


def test_a_trace_without_steps_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": steps(3)}).encode()))
    with pytest.raises(ValueError, match="has 0 steps behind the first 6"):
        gpu_checks.of_trace(path)


def test_the_row_of_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.json"
    path.write_text(json.dumps({"traceEvents": steps(12)}))
    assert gpu_checks.of_trace(path).verdict == "met"
    path.write_text(json.dumps({"traceEvents": [*steps(12), call("cudaStreamSynchronize", 910)]}))
    row = gpu_checks.of_trace(path)
    assert row.verdict == "MISSED" and "propose: loop" in row.note


def record(size: int = 4, profiled: bool = False, **stages: float) -> dict[str, Any]:
    return {"requests": size, "profiled": profiled, "stages": {name: [s, s, 1] for name, s in stages.items()}}


def test_host_time_is_of_whole_batches_and_ours() -> None:
    own = {"merge": 60e-6, "commit": 40e-6}
    theirs = {"SGLang: verify, rest": 1.0, "target forward": 1.0, "propose: forward": 1.0, "accept": 1.0}
    records = [
        record(merge=1.0),
        *[record(**own, **theirs)] * 3,
        record(size=2, merge=1.0),
        record(profiled=True, merge=1),
    ]
    microseconds, note = gpu_checks.host_microseconds(records, 4)
    assert microseconds == pytest.approx(100) and note == "merge 60, commit 40"
    with pytest.raises(ValueError, match="no step of 8"):
        gpu_checks.host_microseconds(records, 8)


def test_a_sampler_that_is_off_is_seen() -> None:
    answer = Answer(1.0, 6, None, [[0, 1, 2, 0], [2, 2]])
    assert gpu_checks.likeliest(answer, [1, 2, 0]) == (3, 4)
    assert abs(gpu_checks.standard_errors((500, 1000), (510, 1000))) < 1
    assert abs(gpu_checks.standard_errors((3000, 6000), (3300, 6000))) > 4
    assert gpu_checks.standard_errors((9, 9), (8, 8)) == 0
