"""Tensor parallelism: every rank makes the same decisions, because they follow from the requests alone.

Two processes with other hashes, other orders of keys and other object ids come to the same tags, shares, widths and
trees (worker of tests/worker/rank.py); they would otherwise wait for each other in the target's all-reduce for ever.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def start(seed: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.worker.rank", str(seed)]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err[-4000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    return [answer(child) for child in [start(seed) for seed in (1, 2)]]


def test_two_ranks_decide_the_same(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0] == ranks[1]


def test_there_was_something_to_decide(ranks: list[dict[str, Any]]) -> None:
    decided = ranks[0]
    assert len(decided["shares"]) >= 4 and any(len(drafters) == 2 for drafters in decided["drafters"])
    served = {place for places, _ in decided["shares"] for place in places}
    assert 7 not in served, "one request may not be drafted for"
    assert any(len(set(parents)) < len(parents) - 1 for parents in decided["parents"]), "some trees branch"
