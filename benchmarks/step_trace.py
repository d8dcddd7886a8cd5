"""How many PyTorch calls each stage of a step makes, out of a trace of torch.profiler."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PREFIX = "hetero: "
STEP = PREFIX + "other"


def load(trace: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(trace.read_bytes()) if trace.suffix == ".gz" else trace.read_bytes()
    return json.loads(text)["traceEvents"]


def ops_per_step(events: list[dict[str, Any]]) -> dict[str, float]:
    """Stage -> calls per step; an operation that another one calls is part of it."""
    counts: Counter[str] = Counter()
    steps = 0
    for thread in {event["tid"] for event in events if event.get("name") == STEP}:
        mine = [event for event in events if event.get("ph") == "X" and event.get("tid") == thread]
        steps += sum(event["name"] == STEP for event in mine)
        counts.update(_stages(mine))
    return {stage: count / steps for stage, count in counts.items()} if steps else {}


def _stages(events: list[dict[str, Any]]) -> Iterator[str]:
    """The innermost stage of each outermost operation, in one thread."""
    stages: list[tuple[float, str]] = []  # (end, name) of what is open
    busy_until = 0.0
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        start, end = event["ts"], event["ts"] + event["dur"]
        while stages and stages[-1][0] <= start:
            stages.pop()
        if event["name"].startswith(PREFIX) and event.get("cat") == "user_annotation":
            stages.append((end, event["name"].removeprefix(PREFIX)))
        elif event.get("cat") == "cpu_op" and stages and start >= busy_until:
            busy_until = end
            yield stages[-1][1]
