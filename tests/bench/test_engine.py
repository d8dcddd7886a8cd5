"""A real benchmark of the demo's target at its own size, broken off twice on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sglang_hetero_spec.bench.records import RequestRecord, read_blocks, read_requests

pytestmark = pytest.mark.slow
ARMS = ("none", "hetero", "hetero-oracle", "hetero-worst")
NUM_PROMPTS, REPETITIONS = 6, 2
NUM_BLOCKS = len(ARMS) * 2 * REPETITIONS
SMALL = ["--target-params", "0", "--num-prompts", str(NUM_PROMPTS), "--max-new-tokens", "32", "--device", "cpu"]
COMMAND = [sys.executable, "-m", "sglang_hetero_spec.cli", "bench", *SMALL, "--repetitions", str(REPETITIONS),
           "--concurrency", "1", "--rate", "4", "--arms", ",".join(ARMS), "--json"]  # fmt: skip
START_SECONDS = 900


def start(run: Path) -> subprocess.Popen[str]:
    environ = {"OMP_NUM_THREADS": "1", **os.environ}
    command = [*COMMAND, "--out", str(run)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def num_blocks(run: Path) -> int:
    path = run / "blocks.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def broken_off(run: Path, after: int, number: signal.Signals) -> int:
    """Ends the command by a signal once it has measured `after` blocks in all; its exit code."""
    process = start(run)
    deadline = time.monotonic() + START_SECONDS
    while num_blocks(run) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert num_blocks(run) >= after, err
    return process.returncode


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the run, and what the last call printed."""
    run = tmp_path_factory.mktemp("bench") / "run"
    assert broken_off(run, 2, signal.SIGINT) == 130
    kept = (run / "blocks.jsonl").read_bytes()
    assert broken_off(run, num_blocks(run) + 2, signal.SIGKILL) == -signal.SIGKILL
    assert (run / "blocks.jsonl").read_bytes().startswith(kept)
    last = start(run)
    out, err = last.communicate(timeout=START_SECONDS)
    assert last.returncode == 0, err
    return run, json.loads(out)


def requests(ran: tuple[Path, dict[str, Any]], arm: str) -> list[RequestRecord]:
    return [one for one in read_requests(ran[0] / "requests.jsonl") if one.arm == arm]


def test_every_request_once(ran: tuple[Path, dict[str, Any]]) -> None:
    counts = Counter((one.arm, one.setting, one.repetition, one.prompt) for arm in ARMS for one in requests(ran, arm))
    assert len(counts) == NUM_BLOCKS * NUM_PROMPTS and set(counts.values()) == {1}
    assert sorted(block.order for block in read_blocks(ran[0] / "blocks.jsonl")) == list(range(NUM_BLOCKS))


def test_tokens_came_as_they_were_made(ran: tuple[Path, dict[str, Any]]) -> None:
    for arm in ARMS:
        for one in requests(ran, arm):
            assert one.chunks[-1][1] == one.completion_tokens == len(one.output_ids)
            assert one.ttft == one.chunks[0][0] <= one.seconds
    alone, drafted = requests(ran, "none"), requests(ran, "hetero-oracle")
    assert sum(len(one.chunks) for one in alone) > 1.5 * sum(len(one.chunks) for one in drafted)


def test_routing_was_what_the_arm_says(ran: tuple[Path, dict[str, Any]]) -> None:
    assert all(one.drafter is None and one.verify_steps is None for one in requests(ran, "none"))
    assert {one.source for one in requests(ran, "hetero")} <= {"router", "fallback"}
    assert all(one.source == "request" for one in requests(ran, "hetero-oracle"))
    assert all(one.drafter not in (one.task, "none") for one in requests(ran, "hetero-worst"))
    length = {}
    for arm in ("hetero-oracle", "hetero-worst"):
        mine = requests(ran, arm)
        length[arm] = sum(one.completion_tokens for one in mine) / sum(one.verify_steps or 0 for one in mine)
    assert length["hetero-oracle"] > 1.5 * length["hetero-worst"]


def test_counters_are_of_the_block(ran: tuple[Path, dict[str, Any]]) -> None:
    for block in read_blocks(ran[0] / "blocks.jsonl"):
        if block.arm == "none":
            assert block.draft_seconds is block.forwards is block.routes is None
            continue
        assert block.draft_seconds is not None and 0 < block.draft_seconds < block.seconds
        assert block.routes == NUM_PROMPTS and 0 < (block.route_seconds or 0) < 1
        mine = [
            one
            for one in requests(ran, block.arm)
            if (one.setting, one.repetition) == (block.setting, block.repetition)
        ]
        steps = sum(one.verify_steps or 0 for one in mine)
        assert block.forwards is not None and block.forwards <= steps
        assert block.setting != "c1" or block.forwards == steps
        assert block.kv_bytes is not None and block.kv_bytes > 0


def test_answers_are_those_of_no_speculation(ran: tuple[Path, dict[str, Any]]) -> None:
    rows = [json.loads(line) for line in (ran[0] / "differences.jsonl").read_text().splitlines()]
    assert all(row["gap"] < 1e-4 for row in rows)


def test_the_figures_follow(ran: tuple[Path, dict[str, Any]]) -> None:
    run, printed = ran
    assert printed["run"] == str(run) and printed["why_not"], "two repetitions are too few to be cited"
    for name in ("aggregate.json", "summary.md", "report.html"):
        assert (run / name).stat().st_size > 0
    assert json.loads((run / "metadata.json").read_text())["complete"] is True
