"""The whole demo, with real servers, at its smallest."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "sglang_hetero_spec.cli", "demo", "--target-params", "0", "--passes", "1"]
SMALL = ["--num-prompts", "12", "--tokens", "24", "--concurrency", "4"]


@pytest.fixture(scope="module")
def ran() -> subprocess.CompletedProcess[str]:
    environ = {"OMP_NUM_THREADS": "1", **os.environ}
    return subprocess.run([*COMMAND, *SMALL, "--json"], capture_output=True, text=True, env=environ, check=False)


def test_one_object_on_stdout_and_progress_on_stderr(ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("\n") == 1
    assert "SGLang is up: HETERO." in ran.stderr and "left" in ran.stderr


def test_every_arm_gave_the_same_tokens(ran: subprocess.CompletedProcess[str]) -> None:
    found = json.loads(ran.stdout)
    assert found["identical"] or all(d["gap"] < 1e-4 for d in found["differences"])
    totals = {one["arm"]: one["total"] for one in found["passes"]}
    assert sorted(totals) == ["hetero", "none", "standalone"]
    assert len({total["completion_tokens"] for total in totals.values()}) == 1 or not found["identical"]
    assert totals["none"]["verify_steps"] == 0


def test_every_task_has_its_drafter_and_its_figures(ran: subprocess.CompletedProcess[str]) -> None:
    figures = json.loads(ran.stdout)["figures"][0]
    assert len(figures["tasks"]) >= 5
    own = [task for task, row in figures["tasks"].items() if row["routes"] == {task: 2}]
    assert len(own) >= 4  # the router may err on one or two of twelve prompts
    for row in figures["tasks"].values():
        assert row["hetero"]["accept_length"] > 1 and row["standalone"]["accept_length"] > 1
        assert 0 < row["hetero"]["accept_rate"] <= 1


def test_samples_and_the_note_on_cost(ran: subprocess.CompletedProcess[str]) -> None:
    found = json.loads(ran.stdout)
    assert len({sample["task"] for sample in found["samples"]}) == 3
    assert all(sample["answer"].strip() for sample in found["samples"])
    assert "its cost was not raised" in found["target"]["note"]
