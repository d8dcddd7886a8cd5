"""What a trace of torch.profiler says of copies to the host and waits for the device, between verify steps.

Chrome trace events (torch writes microseconds): `cuda_runtime` and `cuda_driver` are calls on the host, `gpu_memcpy` is
on the device and has the same `correlation` as the call that queued it, `user_annotation` are record_function spans.
"""

from __future__ import annotations

import gzip
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAITS = frozenset(("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cuStreamSynchronize"))
STEP = "verify"  # SGLang's span of a step's verification (spec_utils.spec_stage_span)
# benchmarks.step_spans: what is within a step but SGLang's.
OURS, THEIRS = "hetero: ", ("hetero: SGLang", "hetero: accept", "hetero: target", "hetero: read prompts")


@dataclass(frozen=True)
class Steady:
    """Of the steps from the first to the last one that are looked at. waits, copies: by the innermost span around
    each; `(none)` outside of all spans. ours: those within HETERO's own spans."""

    steps: int
    waits: Counter[str]
    copies: Counter[str]

    @property
    def ours(self) -> Counter[str]:
        both = self.waits + self.copies
        return Counter({name: n for name, n in both.items() if name.startswith(OURS) and not name.startswith(THEIRS)})

    def per_step(self, counts: Counter[str]) -> float:
        return counts.total() / self.steps


def read_trace(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)["traceEvents"]


def steady(events: list[dict[str, Any]], skipped: int = 6) -> Steady:
    """skipped: steps at the beginning, where drafters read prompts. ValueError where no two steps are left."""
    spans = [event for event in events if event.get("cat") == "user_annotation" and event.get("ph") == "X"]
    starts = sorted(event["ts"] for event in spans if event["name"] == STEP)[skipped:]
    if len(starts) < 2:
        raise ValueError(f"the trace has {len(starts)} steps behind the first {skipped}")
    first, last = starts[0], starts[-1]
    inside = _Innermost([span for span in spans if span["name"] == STEP or span["name"].startswith(OURS)])
    calls = [event for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")]
    to_host = {event["args"].get("correlation") for event in _copies(events)}
    waits: Counter[str] = Counter()
    copies: Counter[str] = Counter()
    for call in calls:
        if first <= call["ts"] < last:
            if call["name"] in WAITS:
                waits[inside.of(call)] += 1
            if call.get("args", {}).get("correlation") in to_host:
                copies[inside.of(call)] += 1
    return Steady(len(starts) - 1, waits, copies)


def _copies(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for event in events:
        if event.get("cat") == "gpu_memcpy" and event["name"].startswith("Memcpy DtoH"):
            yield event


class _Innermost:
    """The shortest span around an event of the same thread."""

    def __init__(self, spans: list[dict[str, Any]]) -> None:
        self._spans = sorted(spans, key=lambda span: span["ts"])
        self._starts = [span["ts"] for span in self._spans]

    def of(self, event: dict[str, Any]) -> str:
        before = self._spans[: bisect_right(self._starts, event["ts"])]
        around = [s for s in before if s["tid"] == event["tid"] and event["ts"] <= s["ts"] + s["dur"]]
        return min(around, key=lambda span: span["dur"])["name"] if around else "(none)"
